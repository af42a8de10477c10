"""Changes of source text by its syntax tree: cut a blank, graft an answer, plant a mistake.

Also the function of this process that a cut names.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, TypeAlias

from cs285.assignment.blanks import Blank, Cut, Mistake
from cs285.infrastructure.errors import OMITTED

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
ERRORS = "cs285.infrastructure.errors"  # the module of BlankError
WIDTH = 100


def find_function(tree: ast.Module, name: str) -> Function:
    """Return the function with a qualified name. Raises ValueError: there is not exactly one."""
    scopes: list[ast.AST] = [tree]
    for part in name.split("."):
        scopes = [node for scope in scopes for node in _named(scope, part)]
    if len(scopes) != 1 or not isinstance(scopes[0], Function):
        raise ValueError(f"{len(scopes)} functions are called {name}; must be one")
    return scopes[0]


def function_of(cut: Cut) -> FunctionType:
    """Return the function of this process that a cut names, without its decorators."""
    module = importlib.import_module(module_of(cut.file))
    found: Any = module
    for part in cut.function.split("."):
        found = vars(found)[part]
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType)
    return function


def module_of(file: str) -> str:
    """Return the name of the module in a file of the package, for example models/losses.py."""
    return "cs285." + file.removesuffix(".py").replace("/", ".")


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a Python file. Raises ValueError: the file does not parse."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        place = f"line {error.lineno}" if error.lineno else "the file"
        raise ValueError(f"{place} does not parse ({error.msg})") from error
    except (RecursionError, MemoryError) as error:  # from deeply nested expressions
        raise ValueError("the file is nested too deeply to parse") from error


def part_of(function: Function, cut: Cut) -> list[ast.stmt]:
    """Return the statements that `cut` removes from the finished function.

    Raises ValueError: no statement, or several, begin with `cut.after`, or none follows.
    """
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if cut.after is not None:
        headers = [ast.unparse(statement).splitlines()[0] for statement in body]
        after = cut.after if cut.after.endswith(":") else ast.unparse(ast.parse(cut.after))
        if headers.count(after) != 1:
            raise ValueError(f"{cut.function}: {headers.count(after)} statements are {cut.after!r}")
        body = body[headers.index(after) + 1 :]
    part = body[: cut.statements]
    if not part or (cut.statements is not None and len(part) != cut.statements):
        raise ValueError(f"{cut.function}: too few statements after {cut.after!r}")
    return part


def cut_blanks(text: str, file: str, blanks: Sequence[Blank]) -> str:
    """Return the text of a finished file without the parts that `blanks` cut from it.

    A comment with the task and a line that raises BlankError take the place of each part.
    """
    tree, lines = parse(text), text.splitlines()
    holes = [
        (part_of(find_function(tree, cut.function), cut), blank, cut.task or blank.task)
        for blank in blanks
        for cut in blank.cuts
        if cut.file == file
    ]
    for part, blank, task in sorted(holes, key=lambda hole: -hole[0][0].lineno):
        first, last = part[0], part[-1]
        indent = " " * first.col_offset
        comment = textwrap.wrap(
            f"{blank.id}: {' '.join(task.split())}",
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        line = f'{indent}raise BlankError("{blank.id}")'
        line += "  # replace this line by your code" * (blank.id != OMITTED)
        lines[first.lineno - 1 : last.end_lineno] = [*comment, line]
    return _with_import("\n".join(lines) + "\n") if holes else text


def raising_lines(text: str, blank_id: str) -> list[int]:
    """Return the numbers of the lines that raise BlankError of a blank."""
    return [node.lineno for node in _raises(parse(text), blank_id)]


def is_begun(text: str, cut: Cut, blank_id: str) -> bool:
    """Return whether a function no longer raises BlankError of its blank.

    Raises ValueError: the file does not parse, or the function is missing.
    """
    return not list(_raises(find_function(parse(text), cut.function), blank_id))


def graft(finished: str, submitted: str, cuts: Sequence[Cut]) -> str:
    """Return the finished file with the submitted versions of the functions in `cuts`.

    What these functions need and only the submitted file has is added: imports, functions, classes
    and variables, and all methods of their classes. Imports come after the finished imports, and
    definitions keep their place before the next one that both files have, so that a decorator or a
    variable may use an added function. Raises ValueError: the file does not parse, or a function is
    missing.
    """
    old, new = parse(finished), parse(submitted)
    lines = finished.splitlines()
    inserted: dict[int, list[str]] = {}  # lines to insert after this line of the finished file
    replaced: list[tuple[int, int, list[str]]] = []
    brought: dict[str, set[str]] = {}  # the names in each class
    used: list[ast.stmt] = []
    for cut in cuts:
        target, source = find_function(old, cut.function), find_function(new, cut.function)
        used.append(source)
        _, last = _span(target)
        replaced.append((*_span(target), _lines(submitted, source)))
        if "." in cut.function:
            owner = cut.function.rpartition(".")[0]
            known = brought.setdefault(
                owner, {name for node in _class(old, owner).body for name in _bound(node)}
            )
            for method in _class(new, owner).body:
                if _bound(method) and not set(_bound(method)) & known:
                    inserted.setdefault(last, []).extend(["", *_lines(submitted, method)])
                    known.update(_bound(method))
                    used.append(method)
    places = {
        name: _span(node)[0] - 1
        for node in old.body
        if not _is_import(node)
        for name in _bound(node)
    }
    finished_imports = {ast.dump(node): _span(node)[1] for node in old.body if _is_import(node)}
    after_imports = max(finished_imports.values(), default=0)
    needed = _needed(new.body, used)
    for node in needed:
        if _is_import(node) and ast.dump(node) not in finished_imports:
            inserted.setdefault(after_imports, []).extend(_lines(submitted, node))
    added: dict[int, list[str]] = {}
    place = len(lines)
    for node in reversed([node for node in new.body if not _is_import(node)]):
        known_places = [places[name] for name in _bound(node) if name in places]
        if known_places:
            place = max(*known_places, after_imports)
        elif node in needed:
            added[place] = ["", *_lines(submitted, node), *added.get(place, [])]
    for place, definitions in added.items():
        inserted.setdefault(place, []).extend(definitions)
    seen = {(first, last): new_lines for first, last, new_lines in replaced}
    edits = [(first, last, each) for (first, last), each in seen.items()]
    edits += [(place + 1, place, each) for place, each in inserted.items()]
    for first, last, new_lines in sorted(edits, reverse=True):
        lines[first - 1 : last] = new_lines
    return "\n".join(lines) + "\n"


def plant(text: str, file: str, blank: Blank, mistake: Mistake) -> str:
    """Return the finished file with a mistake, unchanged if the mistake is in another file.

    Raises ValueError: the mistake's text occurs several times in the functions of the blank.
    """
    tree, lines = parse(text), text.splitlines()
    for cut in blank.cuts:
        if cut.file != file:
            continue
        first, last = _span(find_function(tree, cut.function))
        function = "\n".join(lines[first - 1 : last])
        if function.count(mistake.old) > 1:
            raise ValueError(f"{blank.id}: {mistake.old!r} occurs several times")
        if mistake.old in function:
            lines[first - 1 : last] = function.replace(mistake.old, mistake.new).splitlines()
            return "\n".join(lines) + "\n"
    return text


def _named(scope: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in getattr(scope, "body", []):
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            yield node


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    (found,) = _named(tree, name)
    assert isinstance(found, ast.ClassDef)
    return found


def _raises(scope: ast.AST, blank_id: str) -> Iterator[ast.Raise]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called, words = node.exc.func, node.exc.args
            is_blank = isinstance(called, ast.Name) and called.id == "BlankError"
            if is_blank and any(_is_text(word, blank_id) for word in words):
                yield node


def _is_text(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a definition, an assignment or an import binds."""
    if isinstance(node, Function | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [part.id for each in targets for part in ast.walk(each) if isinstance(part, ast.Name)]


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _needed(body: Sequence[ast.stmt], used: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of `body` that bind names in the statements `used`, or in each other.

    They are in the order of `body`.
    """
    found: list[ast.stmt] = []
    more = list(used)
    while more:
        parts = (part for each in more for part in ast.walk(each))
        names = {part.id for part in parts if isinstance(part, ast.Name)} | {"*"}
        more = [node for node in body if node not in found and set(_bound(node)) & names]
        found += more
    return [node for node in body if node in found]


def _span(node: ast.stmt) -> tuple[int, int]:
    """Return the first and the last line of a statement, with its decorators."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return first, node.end_lineno or node.lineno


def _lines(text: str, node: ast.stmt) -> list[str]:
    first, last = _span(node)
    return text.splitlines()[first - 1 : last]


def _with_import(text: str) -> str:
    """Return the text of a file with BlankError among its imports, in their order."""
    tree, lines = ast.parse(text), text.splitlines()
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [
        node
        for node in imports
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cs285.")
    ]
    for node in own:
        if node.module == ERRORS:
            names = sorted({"BlankError", *(alias.name for alias in node.names)})
            first, last = _span(node)
            lines[first - 1 : last] = [_import(names)]
            return "\n".join(lines) + "\n"
    later = [node for node in own if (node.module or "") > ERRORS]
    if later:
        lines.insert(later[0].lineno - 1, _import(["BlankError"]))
    else:
        last = _span(imports[-1])[1]
        gap = [] if own else [""]
        lines[last:last] = [*gap, _import(["BlankError"])]
    return "\n".join(lines) + "\n"


def _import(names: Sequence[str]) -> str:
    line = f"from {ERRORS} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {ERRORS} import (", *(f"    {name}," for name in names), ")"])
