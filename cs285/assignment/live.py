"""Change functions of the running process: answers in a notebook, and mistakes in tests.

Other modules may hold a function by value (`from x import f`). Its code object is therefore
replaced, and not the function.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

from cs285.assignment.blanks import Blank, Cut
from cs285.assignment.source import find_function, parse
from cs285.infrastructure.errors import BlankError


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


def code_of(text: str, cut: Cut) -> CodeType:
    """Return the code object of a function in the text of its file."""
    node = find_function(parse(text), cut.function)
    node.decorator_list = []
    target = function_of(cut)
    tree = ast.Module([node], type_ignores=[])
    flags = __future__.annotations.compiler_flag
    scope = dict(target.__globals__)
    exec(compile(tree, target.__code__.co_filename, "exec", flags, dont_inherit=True), scope)
    made = scope[node.name]
    assert isinstance(made, FunctionType)
    return made.__code__


@contextmanager
def patched(texts: dict[str, str], blanks: Sequence[Blank]) -> Iterator[None]:
    """Run the functions of `blanks` as they are in `texts`, the texts of files by name.

    Of the imports in `texts`, only BlankError is added.
    """
    cuts = [cut for blank in blanks for cut in blank.cuts if cut.file in texts]
    functions = [function_of(cut) for cut in cuts]
    before = [function.__code__ for function in functions]
    scopes = [f.__globals__ for f in functions if "BlankError" not in f.__globals__]
    try:
        for scope in scopes:
            scope["BlankError"] = BlankError
        for function, cut in zip(functions, cuts, strict=True):
            function.__code__ = code_of(texts[cut.file], cut)
        yield
    finally:
        for function, code in zip(functions, before, strict=True):
            function.__code__ = code
        for scope in scopes:
            scope.pop("BlankError", None)
