"""The notebook edition of questions 1 and 2: its cells, and `use`, which its answers call.

`python -m cs285.assignment.notebook` writes notebooks/assignment_q1_q2.ipynb.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from cs285.assignment.blanks import NOT_BEGUN, PACKAGE, PASSED, Blank, choose_blanks
from cs285.assignment.source import cut_blanks, find_function, function_of, parse
from cs285.assignment.worker import judge
from cs285.infrastructure.errors import UsageError

FILE = PACKAGE.parent / "notebooks" / "assignment_q1_q2.ipynb"
QUESTIONS = ("q1", "q2")


def use(blank_id: str, *functions: FunctionType) -> None:
    """Check the answer to a blank and print the verdict; keep the answer if it passes.

    `functions` are the functions of the blank. The finished code stays in use until they pass.
    Raises UsageError: a function is missing, or uses variables of another function.
    """
    (blank,) = choose_blanks([blank_id])
    given = {function.__name__: function for function in functions}
    targets = {cut.function.split(".")[-1]: function_of(cut) for cut in blank.cuts}
    if set(given) != set(targets):
        raise UsageError(f"{blank_id}: must be called with the functions {', '.join(targets)}")
    if any(function.__code__.co_freevars for function in functions):
        raise UsageError(f"{blank_id}: must not use variables of an enclosing function")
    before = {name: target.__code__ for name, target in targets.items()}
    scopes = {name: dict(target.__globals__) for name, target in targets.items()}
    for name, target in targets.items():
        target.__code__ = given[name].__code__
        for word in _names_in(given[name].__code__):  # imports and helpers of the notebook
            if word in given[name].__globals__:
                target.__globals__.setdefault(word, given[name].__globals__[word])
    status = message = ""
    try:
        status, message = judge(blank)
    finally:  # also after an interrupt
        if status != PASSED:
            for name, target in targets.items():
                target.__code__ = before[name]
                for word in set(target.__globals__) - set(scopes[name]):
                    del target.__globals__[word]
    hint = "" if status in (PASSED, NOT_BEGUN) else f": {message}"
    print(textwrap.fill(f"{status}  {blank_id}{hint}", 100, subsequent_indent="  "))


def hint(blank_id: str, level: int = 1) -> None:
    """Print the hints of a blank up to `level`, 1 or 2."""
    (blank,) = choose_blanks([blank_id])
    for text in blank.hints[:level]:
        print(textwrap.fill(" ".join(text.split()), 100))


def answer_cell(blank: Blank, is_finished: bool) -> str:
    """Return the source of the cell for a blank, with or without its answer."""
    parts, names = [], []
    for cut in blank.cuts:
        text = (PACKAGE / cut.file).read_text()
        text = text if is_finished else cut_blanks(text, cut.file, [blank])
        node = find_function(parse(text), cut.function)
        lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
        parts.append(textwrap.dedent("\n".join(lines)))
        names.append(node.name)
    return "\n\n\n".join([*parts, f'use("{blank.id}", {", ".join(names)})'])


def make_notebook() -> dict[str, Any]:
    """Return the notebook, in the format of Jupyter."""
    cells = [_text("title", TITLE), _code("setup", _setup()), _code("imports", IMPORTS)]
    page = (PACKAGE.parent / "docs" / "assignment.md").read_text()
    for question in QUESTIONS:
        cells.append(_text(question, HEADINGS[question]))
        for blank in choose_blanks([question]):
            name = blank.id.replace(".", "-")
            cells.append(_text(f"{name}-text", f"### {blank.id}\n\n{_section(page, blank.id)}"))
            cells.append(_code(name, answer_cell(blank, is_finished=False), blank=blank.id))
        for number, (kind, source) in enumerate(RUNS[question]):
            cells.append({"text": _text, "code": _code}[kind](f"{question}-run-{number}", source))
    cells.append(_code("end", "data.cleanup()"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _names_in(code: CodeType) -> set[str]:
    """Return the global names that a function uses, also in its inner functions."""
    inner = [_names_in(part) for part in code.co_consts if isinstance(part, CodeType)]
    return {*code.co_names}.union(*inner)


def _section(page: str, blank_id: str) -> str:
    """Return the text below the heading of a blank in docs/assignment.md."""
    found = re.search(rf"^#### {re.escape(blank_id)}\n\n(.*?)(?=^#|^\*\*)", page, re.M | re.S)
    assert found is not None, blank_id
    return found[1].strip()


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _split(source)}


def _code(name: str, source: str, **metadata: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"execution_count": None, "outputs": []}
    content = {"id": name, "metadata": metadata, "source": _split(source)}
    return {"cell_type": "code", **empty, **content}


def _split(source: str) -> list[str]:
    return source.strip("\n").splitlines(keepends=True)


def _setup() -> str:
    """Return the first code cell of notebooks/train.ipynb, which installs cs285 on Colab."""
    other = json.loads((FILE.parent / "train.ipynb").read_text())
    return "".join(other["cells"][1]["source"])


TITLE = """
# Homework 4, questions 1 and 2

This notebook is a short edition of the [assignment](../docs/assignment.md): you write the model and
the planner in the cells below, and train with them. Each cell with `raise BlankError(...)` is an
exercise. Replace that line by your code and run the cell: `use` checks the answer. If it passes,
the runs below use your functions; until then, they use the finished ones. `hint("q1.loss")` prints
an idea, and `hint("q1.loss", 2)` the operation, too.
"""

IMPORTS = """
from __future__ import annotations

import tempfile

import numpy as np
import torch
from IPython.display import display
from IPython.utils.capture import capture_output
from torch import Tensor

from cs285.analysis.rebuild import rebuild
from cs285.assignment.notebook import hint, use
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.envs.obstacles.drawing import draw_obstacles
from cs285.infrastructure.errors import BlankError
from cs285.infrastructure.recording.figures import draw_predictions, new_figure
from cs285.scripts import run_hw4_mb

data = tempfile.TemporaryDirectory()  # for the log folders; the last cell removes it


def run(flags):
    \"\"\"Train with the flags of run_hw4_mb.py, and return the log folder.\"\"\"
    before = set(Path(data.name).iterdir())
    with capture_output(stderr=False) as printed:
        run_hw4_mb.main([*flags.split(), "--num_workers", "1", "--data_dir", data.name])
    print(printed.stdout[printed.stdout.rfind("iteration") :])  # the last iteration
    (folder,) = set(Path(data.name).iterdir()) - before
    return folder
"""

HEADINGS = {
    "q1": """
## Question 1: is the model good?

The network predicts the normalised change of the observation. An ensemble of three networks learns
from random data of the cheetah.
""",
    "q2": """
## Question 2: can MPC use the model?

The planner draws random sequences of actions, imagines their returns with the model, and executes
the first action of the best one.
""",
}

RUNS = {
    "q1": [
        (
            "text",
            """
### The fit

Two runs of the homework, with less data: 5 gradient steps and 200. **Before you run:** which error
after 10 steps do you expect?
""",
        ),
        (
            "code",
            """
Q1 = \"\"\"--env_name cheetah-cs285-v0 --add_sl_noise --n_iter 1 --batch_size_initial 2000
  --n_layers 1 --size 32 --scalar_log_freq -1 --num_agent_train_steps_per_iter \"\"\"
folders = {steps: run(f"{Q1} {steps} --exp_name q1_n{steps}") for steps in (5, 200)}


def draw(folder):
    figure = new_figure(11, 3)
    loss, *panels = figure.subplots(1, 4)
    loss.plot(np.load(folder / "itr_0_losses.npy"))
    loss.set(xlabel="gradient step", ylabel="training loss", yscale="log")
    with np.load(folder / "itr_0_predictions.npz") as arrays:
        draw_predictions(panels, arrays["true"], arrays["predicted"], [0, 2, 5])
    return figure


for folder in folders.values():
    display(draw(folder))
""",
        ),
        (
            "text",
            """
Left: the loss of each gradient step. Right: three dimensions of the real episode (green) and of the
prediction (red). The prediction gets the first observation and the actions only. Which steps does
it predict well, and why do errors grow?
""",
        ),
    ],
    "q2": [
        (
            "text",
            """
### The plan

One fit to random data, then the planner acts. Random actions return about -160.
""",
        ),
        (
            "code",
            """
Q2 = \"\"\"--env_name obstacles-cs285-v0 --add_sl_noise --n_iter 1 --batch_size_initial 2000
  --batch_size 200 --eval_batch_size 200 --num_agent_train_steps_per_iter 20 --mpc_horizon 10
  --mpc_num_action_sequences 200 --exp_name q2\"\"\"
trained = rebuild(run(Q2), no_gpu=True)
keys = [EpisodeKey(1, "notebook", 0, number) for number in range(2)]
policy = trained.agent.eval_policies["Eval"]
paths = [path for key in keys for path in run_episodes([trained.env], policy, [key])]
trained.env.close()
""",
        ),
        (
            "code",
            """
figure = new_figure(4, 4)
axes = figure.subplots()
draw_obstacles(axes, paths[0].obs[0, 2:4])
for path in paths:
    (line,) = axes.plot(*path.obs[:, :2].T)
    axes.plot(*path.obs[0, :2], "o", color=line.get_color())
returns = ", ".join(f"{path.total_reward:.0f}" for path in paths)
axes.set(title=f"returns {returns}", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
display(figure)
""",
        ),
        (
            "text",
            """
The point mass starts at a dot, and its goal is the green circle. Where does the model not know the
obstacles?

The homework's own commands and values are in the [assignment](../docs/assignment.md#question-2).
The full edition, with all questions and the whole training loop, is the starter that
`python scripts/make_starter.py --output hw4` makes.
""",
        ),
    ],
}


def main(file: Path = FILE) -> None:
    """Write the notebook."""
    file.write_text(json.dumps(make_notebook(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
