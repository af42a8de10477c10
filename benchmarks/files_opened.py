"""Number of files in cs285/ that a reader opens to follow one question from its entry function.

Run `python -m benchmarks.files_opened [--list]`.

The script follows calls by static analysis. It finds a function by its name, and a method by the
class that annotations and assignments give to a variable or attribute. If a name can refer to
several things (a protocol, a table of planners), it follows the homework's default. A file counts
if the calls reach one of its functions or methods, so a file with only data classes does not count.
Settings (config/), tasks (envs/) and the helpers in VOCABULARY are not counted either: they define
terms and are not a step of the route.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "cs285"
VOCABULARY = (
    "config/",
    "envs/",
    "infrastructure/pytorch_util.py",  # tensors, seeds, devices
    "infrastructure/recording/",  # stopwatch and progress bar
    "policies/base_policy.py",
)
DEFAULTS = {  # what an ambiguous name refers to in a homework run
    "DynamicsModel": "FFModel",
    "Policy": "SACActor",
    "PLANNERS": "random_shooting",
    "LOSSES": "mse",
    "Planner": "random_shooting",
    "Returns": "MPCPolicy.evaluate_sequences",
    "Update": "gradient_step",
    "ActionsOf": "SACPolicy.draw",
    "DrawBatches": "MBPOAgent.draw_mixed",
    "Step": "FFModel.planning_step",
    "Function": "",  # the argument of compiled(): the calls of the function itself are followed
}
ROUTES = {  # question -> entry function, target for the number of files
    "one MPC decision": ("MPCPolicy.get_action", 6),
    "one fit": ("MBAgent.train", 5),
    "one MBPO iteration": ("MBPOAgent.train", 12),
}


class Definition(NamedTuple):
    """A function, or a method of the class `owner`."""

    file: str
    owner: str
    node: ast.FunctionDef

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.node.name}" if self.owner else self.node.name


class Package:
    """The functions, methods and attribute types of a package. Their names must be unique."""

    def __init__(self, folder: Path) -> None:
        self.functions: dict[str, Definition] = {}
        self.attributes: dict[str, dict[str, str]] = {}  # class -> attribute -> its class
        self.bases: dict[str, str] = {}
        for path in sorted(folder.rglob("*.py")):
            file = path.relative_to(folder).as_posix()
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef):
                    self.functions[node.name] = Definition(file, "", node)
                elif isinstance(node, ast.ClassDef):
                    self._read_class(file, node)
        for name in self.attributes:  # needs all files: an attribute's class may be in a later one
            self._read_attributes(name)

    def _read_class(self, file: str, node: ast.ClassDef) -> None:
        types = self.attributes.setdefault(node.name, {})
        self.bases[node.name] = (
            node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
        )
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                types[item.target.id] = _type_name(item.annotation)
            elif isinstance(item, ast.FunctionDef):
                self.functions[f"{node.name}.{item.name}"] = Definition(file, node.name, item)
                if any(isinstance(d, ast.Name) and d.id == "property" for d in item.decorator_list):
                    types[item.name] = _type_name(item.returns)

    def _read_attributes(self, name: str) -> None:
        """Read the attribute types from the __init__ of class `name`."""
        init = self.functions.get(f"{name}.__init__")
        if init is None:
            return
        types, local = self.attributes[name], self._types_in(init)
        for statement in ast.walk(init.node):
            for target, value in _assignments(statement):
                if isinstance(target, ast.Attribute):
                    found = self._type_of(value, local)
                    if isinstance(statement, ast.AnnAssign):
                        found = _type_name(statement.annotation)
                    types.setdefault(target.attr, found)

    def method(self, owner: str, name: str) -> str | None:
        """Return the full name of an own or inherited method, or None."""
        while owner:
            if f"{owner}.{name}" in self.functions:
                return f"{owner}.{name}"
            owner = self.bases.get(owner, "")
        return None

    def _types_in(self, definition: Definition) -> dict[str, str]:
        """Return the classes of a function's variables; "" means unknown."""
        types = {"self": definition.owner}
        for function in ast.walk(definition.node):
            if isinstance(function, ast.FunctionDef):
                for argument in [*function.args.args, *function.args.kwonlyargs]:
                    types.setdefault(argument.arg, _type_name(argument.annotation))
        for statement in ast.walk(definition.node):
            for target, value in _assignments(statement):
                if isinstance(target, ast.Name):
                    types.setdefault(target.id, self._type_of(value, types))
        return types

    def _type_of(self, node: ast.expr | None, types: dict[str, str]) -> str:
        """Return the class of an expression, or "" if it is unknown."""
        if isinstance(node, ast.Name):
            return types.get(
                node.id, DEFAULTS.get(node.id, node.id if node.id in self.functions else "")
            )
        if isinstance(node, ast.Attribute):
            if node.attr in DEFAULTS:  # a name that is accessed through its module
                return DEFAULTS[node.attr]
            owner = self._type_of(node.value, types)
            return (
                self.attributes.get(owner, {}).get(node.attr) or self.method(owner, node.attr) or ""
            )
        if isinstance(node, ast.BoolOp | ast.IfExp):
            parts = node.values if isinstance(node, ast.BoolOp) else [node.body, node.orelse]
            return next(filter(None, (self._type_of(part, types) for part in parts)), "")
        if isinstance(node, ast.Subscript):
            return self._type_of(node.value, types)
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            if called in self.attributes:
                return called
            name = self._called(node, types)
            if name in self.functions:
                return _type_name(self.functions[name].node.returns)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "to":  # nn.Module.to
                return self._type_of(node.func.value, types)
        return ""

    def _called(self, node: ast.Call, types: dict[str, str]) -> str:
        """Return the full name of the called function, or "" if it is unknown."""
        function = node.func
        if isinstance(function, ast.Attribute):
            owner = self._type_of(function.value, types)
            found = self.method(owner, function.attr)
            kind = self.attributes.get(owner, {}).get(function.attr, "")
            return found or (kind if kind in self.functions else "")
        if isinstance(function, ast.Name):
            made = self.method(function.id, "__init__") if function.id in self.attributes else None
            kind = types.get(function.id, "")
            return made or (kind if kind in self.functions else function.id)
        return ""

    def calls(self, definition: Definition) -> Iterator[Definition]:
        """Yield the functions that a function calls or passes on."""
        types = self._types_in(definition)
        for node in ast.walk(definition.node):
            names = []
            if isinstance(node, ast.Call):
                names = [self._called(node, types)]
                kind = self._type_of(node.func, types)
                names.append(self.method(kind, "__call__") or self.method(kind, "forward") or kind)
            elif isinstance(node, ast.Attribute):  # a method passed as a value, or a property
                names = [self.method(self._type_of(node.value, types), node.attr) or ""]
            for name in names:
                if name in self.functions:
                    yield self.functions[name]

    def files_from(self, entry: str) -> set[str]:
        """Return the files of all functions that calls from `entry` reach."""
        queue, seen = [self.functions[entry]], {entry}
        files = {self.functions[entry].file}
        while queue:
            for found in self.calls(queue.pop()):
                if found.name not in seen and not found.file.startswith(VOCABULARY):
                    seen.add(found.name)
                    files.add(found.file)
                    queue.append(found)
        return files


def _assignments(node: ast.AST) -> list[tuple[ast.expr, ast.expr | None]]:
    """Return the (target, value) pairs of an assignment; a tuple assignment gives several."""
    if isinstance(node, ast.AnnAssign):
        return [(node.target, node.value)]
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _type_name(annotation: ast.expr | None) -> str:
    """Return the first class of an annotation. Replace a protocol by its default."""
    if isinstance(annotation, ast.BinOp):
        return _type_name(annotation.left)
    name = annotation.id if isinstance(annotation, ast.Name) else ""
    return DEFAULTS.get(name, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="also print the files")
    arguments = parser.parse_args()
    package = Package(PACKAGE)
    for question, (entry, at_most) in ROUTES.items():
        files = package.files_from(entry)
        print(f"{question}: {len(files)} files (target: at most {at_most})")
        if arguments.list:
            print("".join(f"  {file}\n" for file in sorted(files)), end="")


if __name__ == "__main__":
    main()
