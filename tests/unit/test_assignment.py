"""Tests of the blanks: every check passes on the finished code and fails on everything else."""

from __future__ import annotations
import __future__

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

import cs285
from cs285.assignment.blanks import (
    Blank,
    Cut,
    Mistake,
    WrongError,
    choose_blanks,
    load_blanks,
    load_mistakes,
)
from cs285.assignment.checks.support import expect
from cs285.assignment.source import (
    cut_blanks,
    find_function,
    function_of,
    graft,
    parse,
    part_of,
    plant,
)
from cs285.assignment.worker import judge
from cs285.infrastructure.errors import BlankError, UsageError

PACKAGE = Path(cs285.__file__).parent
BLANKS = load_blanks()
MISTAKES = load_mistakes()
BY_ID = {blank.id: blank for blank in BLANKS}
of_each_blank = pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: blank.id)


def finished(file: str) -> str:
    return (PACKAGE / file).read_text()


def files_of(blanks: Sequence[Blank]) -> set[str]:
    return {cut.file for blank in blanks for cut in blank.cuts}


def cut_texts(blanks: Sequence[Blank]) -> dict[str, str]:
    return {file: cut_blanks(finished(file), file, blanks) for file in files_of(blanks)}


def without_imports(text: str) -> list[str]:
    imports = ast.Import | ast.ImportFrom
    return [ast.dump(node) for node in ast.parse(text).body if not isinstance(node, imports)]


def run_check(blank: Blank) -> None:
    question, name = blank.id.split(".")
    getattr(importlib.import_module(f"cs285.assignment.checks.{question}"), name)()


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

    Other modules may hold a function by value (`from x import f`). Its code object is therefore
    replaced, and not the function.

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


def test_table_is_consistent() -> None:
    assert len(BLANKS) == len(BY_ID) >= 20
    assert sum(blank.points for blank in BLANKS) == 60
    for blank in BLANKS:
        assert len(blank.hints) == 2
        assert all(len(" ".join(hint.split())) > 40 for hint in blank.hints), blank.id
        assert set(blank.needs) < set(BY_ID), blank.id
        for cut in blank.cuts:
            assert part_of(find_function(parse(finished(cut.file)), cut.function), cut)


@of_each_blank
def test_finished_code_passes(blank: Blank) -> None:
    run_check(blank)


@of_each_blank
def test_a_blank_fails_its_own_check_and_those_that_need_it(blank: Blank) -> None:
    with patched(cut_texts([blank]), [blank]):
        for other in BLANKS:
            if other is blank or blank.id in other.needs:
                with pytest.raises(BlankError) as caught:
                    run_check(other)
                assert caught.value.args == (blank.id,), other.id
            else:
                run_check(other)


def test_without_any_answer_each_check_fails_with_its_own_id() -> None:
    with patched(cut_texts(BLANKS), BLANKS):
        for blank in BLANKS:
            with pytest.raises(BlankError) as caught:
                run_check(blank)
            assert caught.value.args == (blank.id,)


def test_error_of_a_blank_is_one_line_with_its_page() -> None:
    text = str(BlankError("q1.loss"))
    assert "docs/assignment.md#q1loss" in text
    assert "\n" not in text


@of_each_blank
def test_grafted_answer_is_the_finished_code(blank: Blank) -> None:
    for file in files_of([blank]):
        cuts = [cut for cut in blank.cuts if cut.file == file]
        starter = cut_blanks(finished(file), file, [blank])
        assert starter.count(f'raise BlankError("{blank.id}")') == len(cuts)
        whole = graft(starter, finished(file), cuts)
        assert without_imports(whole) == without_imports(finished(file))


def test_graft_brings_helpers_and_imports() -> None:
    (blank,) = choose_blanks(["q1.loss"])
    (cut, _) = blank.cuts
    text = finished(cut.file)
    body = "return (means - targets).square().mean(1)"
    assert body in text
    answer = text.replace(body, "return _mean(operator.pow(means - targets, POWER))")
    answer = answer.replace("import torch\n", "import operator\n\nimport torch\n", 1)
    answer = answer.replace("NOISE_FLOOR = 1e-3", "POWER = 2\nNOISE_FLOOR = 5", 1)
    answer += "\n\ndef _mean(errors):\n    return errors.mean(1)\n"
    whole = graft(text, answer, [cut])
    scope: dict[str, object] = {}
    exec(compile(whole, "grafted", "exec"), scope)
    assert {"POWER", "_mean", "operator"} <= set(scope)
    assert scope["NOISE_FLOOR"] == 1e-3  # names of the finished file keep their values


FINISHED = """
import math

SCALE = 2


class Shape:
    def area(self, side):
        return side**2
"""
SUBMITTED = """
import math
import operator
from nowhere import nothing

HALF = math.sqrt(0.25)
SCALE = 3


def _one():
    return 1


ONE = _one() * SCALE


def logged(function):
    return function


def unused():
    return nothing


class Shape:
    @logged
    def area(self, side):
        return self.power(side, ONE, HALF)

    def power(self, *values):
        return operator.mul(*values[:2]) * _last(values)


def _last(values):
    return values[-1]
"""


def test_graft_brings_what_the_answer_needs_in_its_order() -> None:
    whole = graft(FINISHED, SUBMITTED, [Cut("file", "Shape.area")])
    scope: dict[str, Any] = {}
    exec(compile(whole, "grafted", "exec"), scope)
    assert scope["Shape"]().area(5) == 5 * 2 * 0.5
    assert "unused" not in scope


def test_graft_brings_methods_once() -> None:
    (blank,) = choose_blanks(["q1.normalise"])
    file = blank.cuts[0].file
    text = finished(file)
    answer = text.replace("(columns - self.mean) * self.inverse_std", "self.centred(columns)")
    answer = answer.replace(
        "    def denormalize(",
        "    def centred(self, c):\n        return (c - self.mean) * self.inverse_std\n\n"
        "    def denormalize(",
    )
    whole = graft(text, answer, blank.cuts)
    assert whole.count("def centred") == 1
    scope: dict[str, Any] = {}
    exec(compile(whole, "grafted", "exec"), scope)
    assert hasattr(scope["Normalizer"], "centred")


def name_of(mistake: Mistake) -> str:
    return f"{mistake.blank}-{MISTAKES.index(mistake)}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_wrong_answer_fails(mistake: Mistake) -> None:
    blank = BY_ID[mistake.blank]
    texts = {}
    for file in files_of([blank]):
        changed = plant(finished(file), file, blank, mistake)
        if changed != finished(file):
            texts[file] = changed
    assert len(texts) == 1, "the mistake must be in one file"
    with patched(texts, [blank]), pytest.raises(Exception) as caught:
        run_check(blank)
    assert not isinstance(caught.value, BlankError)
    assert mistake.message in str(caught.value)


# Other right answers: a blank, and a replacement in its finished code.
RIGHT = [
    (
        "q0.iterate",
        "(paths, iteration)\n        self.counters",
        "(paths, iteration=iteration)\n        self.counters",
    ),
    ("q0.iterate", "self._collect(iteration)", "self._collect(iteration=iteration)"),
    ("q0.iterate", "self._log(iteration, metrics)", "self._log(iteration, metrics=metrics)"),
    ("q1.loss", "self.outputs(batch, masks)", "self.outputs(batch, masks=masks)"),
    ("q1.update", "model.loss(batch, masks)", "model.loss(batch, masks=masks)"),
    ("q1.predict", "logits > 0", "logits.sigmoid() > 0.5"),
    ("q6.critic", "            discount,\n", "            discount=discount,\n"),
    ("q6.actor", "policy.sample(obs, noise)", "policy.sample(obs, noise=noise)"),
    ("q6.schedule", "(batch, noise[number], draw)", "(batch, noise[number], draws=draw)"),
    ("q6.schedule", "(batch.obs, actor_noise)", "(obs=batch.obs, noise=actor_noise)"),
    (
        "q6.rollout",
        "dropped += (alive & ~finite).sum()",
        "dropped = dropped + int((alive & ~finite).sum())",
    ),
    (
        "q6.start",
        "self.sac_agent.policy.draw,",
        "lambda obs, generator: self.sac_agent.policy.draw(obs, generator),",
    ),
    (
        "q6.start",
        'torch.randint(recipe["real"], shape, generator=generator, device=self.device)',
        'torch.multinomial(torch.ones(recipe["real"]), *shape, True, generator=generator)',
    ),
    (
        "q6.start",
        'torch.randint(recipe["real"], shape, generator=generator, device=self.device)',
        '(torch.rand(shape, dtype=torch.float64, generator=generator) * recipe["real"]).long()',
    ),
]


@pytest.mark.parametrize(
    ("name", "old", "new"), RIGHT, ids=[f"{right[0]}-{right[2][:30]}" for right in RIGHT]
)
def test_other_right_answer_passes(name: str, old: str, new: str) -> None:
    blank = BY_ID[name]
    texts = {
        file: plant(finished(file), file, blank, Mistake(name, old, new, ""))
        for file in files_of([blank])
    }
    assert any(text != finished(file) for file, text in texts.items())
    with patched(texts, [blank]):
        run_check(blank)


@of_each_blank
@pytest.mark.parametrize("code", ["pass", "return None"])
def test_answer_without_content_has_a_message(blank: Blank, code: str) -> None:
    texts = cut_texts([blank])
    for file, text in texts.items():
        texts[file] = re.sub(r"raise BlankError\(.*\)", code, text)
    with patched(texts, [blank]):
        status, message = judge(blank)
    assert status == "wrong"
    assert "Error: " not in message or message.startswith("cs285/"), message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return 1 / 0", r"cs285/agents/mbpo_agent.py:\d+: ZeroDivisionError: division by zero"),
        ("exec('(')", r"SyntaxError: .*never closed|SyntaxError: unexpected EOF"),
        ("raise SystemExit(3)", r"cs285/agents/mbpo_agent.py:\d+: SystemExit: 3"),
        ("raise BlankError('q0.enough')", r"^q0.enough$"),
        ("return {}", r"share of .*: must be a tensor .*, got dict \{\}"),
    ],
)
def test_errors_of_an_answer_name_the_place(code: str, message: str) -> None:
    (blank,) = choose_blanks(["q6.share"])
    file = blank.cuts[0].file
    first = "if len(self.model_buffer) == 0:"
    text = finished(file).replace(first, f"{code}\n        {first}")
    with patched({file: text}, [blank]):
        status, got = judge(blank)
    assert status == ("blocked" if "Blank" in code else "wrong")
    assert re.search(message, got), got


def test_every_blank_has_wrong_answers() -> None:
    assert len(MISTAKES) >= 60
    for blank in BLANKS:
        assert len([mistake for mistake in MISTAKES if mistake.blank == blank.id]) >= 3, blank.id


def test_expect_names_what_came_and_the_likely_mistake() -> None:
    mistakes = [("halve it", [1.0, 2.0])]
    with pytest.raises(WrongError, match=r"sum: expected \[2, 4\], got \[1, 2\]; likely.*halve it"):
        expect("sum", [1, 2], [2.0, 4.0], mistakes)
    with pytest.raises(WrongError, match=r"shape \(2,\), got \(1,\)"):
        expect("sum", [1], [2.0, 4.0], mistakes)
    with pytest.raises(WrongError, match="got None"):
        expect("sum", None, [2.0, 4.0])
    expect("sum", [float("nan"), 4], [float("nan"), 4.0])


@pytest.mark.parametrize("name", ["q9", "q1.los", "", "q1.loss.x"])
def test_unknown_blank_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="must be a question"):
        choose_blanks([name])


def test_blanks_are_chosen_by_id_and_by_question() -> None:
    assert [blank.id for blank in choose_blanks(["q5", "q0.iterate"])] == [
        "q0.iterate",
        "q5.elites",
        "q5.cem",
        "q5.icem",
    ]
    assert choose_blanks([]) == [*BLANKS]
