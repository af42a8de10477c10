"""The diagnosis as one self-contained HTML file, without scripts or external files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cs285.analysis.diagnosis.figures import (
    Picture,
    draw_dimensions,
    draw_errors,
    draw_returns,
    draw_spread,
)
from cs285.analysis.diagnosis.model_error import rms
from cs285.analysis.diagnosis.plan_check import EXECUTED, REPLANNED, Findings

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
img, video { display: block; width: 100%; height: auto; margin: 1rem auto; }
img { max-width: 36rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.6rem 0.25rem 0;
         border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums; }
.pairs td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.note { background: #fff6dd; padding: 0.4rem 0.8rem; border-radius: 4px; }
"""
Rows = Sequence[Sequence[str]]


_BY_HORIZON = """The model predicts open-loop: starting in a state of a new episode, each ensemble
member predicts the states that follow the actions of that episode. It never sees a later real
state. The number of start states is {}. The error in each dimension is divided by the standard
deviation of that dimension in the model's training data. With an error of 1, the prediction is no
better than always predicting the mean of the training data.

Thick blue line: the error of the mean of the members (root mean square over start states and
dimensions). Thin blue lines: the error of each member. Blue band: the range that holds the middle
80% of the start states. Dotted line, the no-change baseline: the error of predicting that the state
does not change. If the model's error is above it, the model is worse than no model. Dashed red
line: the spread, which is the standard deviation over the members. If the spread is far below the
error, the members agree on a wrong prediction. Vertical line: the length of the plans."""
_BY_DIMENSION = """The same error for each observation dimension, as the root mean square over the
members and start states. Bright colours mark dimensions that the model cannot predict that far
ahead. White rows are dimensions that are constant in the training data or in these episodes, so
their error has no unit."""
_SPREAD = """Top: Spearman's rank correlation of spread and error over the start states, for each
number of env steps ahead. With a correlation of 1, the members disagree most in the states in which
their mean is most wrong, so the spread warns of errors. With a correlation of 0, the spread says
nothing about the error. Bottom: spread and error of each start state, after the number of env
steps in the title."""
_RETURNS = """For {} states of the policy's episodes, the model predicts the return over {} env
steps of {}. The actual return is measured in two ways. "{}" (left): the simulator starts in the
same state and executes the same actions. "{}" (right): the agent continued its episode from that
state and chose each action in the real state.

A point on the diagonal is a correct prediction. Below the diagonal, the model predicted too much.
The bias is the mean of predicted minus actual return, so a positive bias means that the model
predicts too much. A planner searches for the plans with the highest predicted return, so it also
finds plans that the model overestimates. The correlation shows whether plans with a higher
predicted return also get a higher actual return."""


class Section(NamedTuple):
    """A section of the page."""

    title: str
    text: str  # paragraphs, separated by empty lines
    table: Rows = ()  # the first row is the header
    medium: Figure | bytes | None = None  # bytes: an mp4
    notes: Sequence[str] = ()  # what was skipped or cut, and why; shown above the text


def page(
    title: str, facts: Rows, sections: Sequence[Section], settings: Mapping[str, object]
) -> str:
    """Return the content of the HTML file: key figures, the sections, and all flags of the run."""
    flags = [(f"--{name}", str(value)) for name, value in settings.items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        _pairs(facts),
        *map(_section, sections),
        f"<details><summary>All flags of the run</summary>{_pairs(flags)}</details>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f'<p class="note">{escape(note)}</p>' for note in section.notes]
    parts += [f"<p>{escape(part)}</p>" for part in section.text.split("\n\n") if part]
    parts += [_table(section.table)] if section.table else []
    parts += [_medium(section.medium, section.title)] if section.medium is not None else []
    return "\n".join(parts)


def _medium(medium: Figure | bytes, title: str) -> str:
    if isinstance(medium, bytes):
        source = _data_uri("video/mp4", medium)
        return f'<video controls loop muted playsinline src="{source}"></video>'
    buffer = io.BytesIO()
    medium.savefig(buffer, format="svg", metadata={"Date": None})
    source = _data_uri("image/svg+xml", buffer.getvalue())
    return f'<img alt="{escape(title)}" src="{source}">'


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _pairs(rows: Rows) -> str:
    """Return a table with a name and a value in each row."""
    lines = (f"<tr>{_cells('th', row[:1])}{_cells('td', row[1:])}</tr>" for row in rows)
    return f'<table class="pairs">{"".join(lines)}</table>'


def _table(rows: Rows) -> str:
    """Return a table; the first row is the header."""
    cells = [_cells("th", rows[0]), *(_cells("td", row) for row in rows[1:])]
    lines = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table>{lines}</table></div>'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def facts(found: Findings) -> list[tuple[str, str]]:
    """Return the key figures as (name, text), for the page and the terminal."""
    rows = []
    for name, paths in found.paths.items():
        returns = np.array([path.total_reward for path in paths])
        text = f"mean {show(returns.mean())}, std {show(returns.std())}, {len(paths)} episodes"
        rows.append((f"return, {name}", text))
    for name, *cells in error_table(found)[1:]:
        text = "{1} (spread {2}, no-change baseline {3}, rank correlation {4})".format(*cells)
        steps = f"{cells[0]} env step{'s' * (cells[0] != '1')}"
        rows.append((f"model error after {steps}, {name}", text))
    for name, each in found.agreements.items():
        text = f"{show(_mean(each.predicted))} predicted, {show(_mean(each.actual))} actual"
        text += f", bias {show(each.bias)}, correlation {show(each.correlation)}"
        rows.append((f"predicted and actual return, {name}", text))
    return rows


def error_table(found: Findings) -> list[Sequence[str]]:
    """Return the errors at three horizons for each kind of episode; the first row is the header."""
    rows: list[Sequence[str]] = []
    for name, loop in found.loops.items():
        sizes = (loop.errors_of_mean(), loop.spreads(), loop.errors_of_no_change())
        curves = [*(rms(each, 0) for each in sizes), loop.rank_correlation()]
        for step in sorted({1, min(found.plan_horizon, loop.horizon), loop.horizon}):
            rows.append((name, str(step), *(show(float(curve[step - 1])) for curve in curves)))
    header = (
        "episodes",
        "env steps ahead",
        "error of the mean",
        "spread",
        "no-change baseline",
        "rank correlation of spread and error",
    )
    return [header, *rows]


def sections(found: Findings, is_planned: bool, picture: Picture) -> list[Section]:
    """Return the sections of the page; `is_planned` tells whether the policy is a planner."""
    plans_are = "the policy acting in the model (the next state is the mean of the members)"
    if is_planned:
        plans_are = "the plan that the planner made there"
    loops = found.loops
    starts = " and ".join(f"{len(each.starts)} ({name})" for name, each in loops.items())
    returns = _RETURNS.format(*found.check.replanned.shape, plans_are, EXECUTED, REPLANNED)
    return [
        Section(
            "Model error by horizon",
            _BY_HORIZON.format(starts),
            error_table(found),
            draw_errors(loops, found.plan_horizon),
            _error_notes(found),
        ),
        Section(
            "Model error by observation dimension", _BY_DIMENSION, medium=draw_dimensions(loops)
        ),
        _spread_section(found),
        Section(
            "Predicted and actual returns",
            returns,
            _returns_table(found),
            draw_returns(found.agreements),
            _plan_notes(found),
        ),
        Section(
            "Imagined and real states", picture.text, medium=picture.medium, notes=picture.notes
        ),
    ]


def _spread_section(found: Findings) -> Section:
    title, loops = "Ensemble spread as a warning of model error", found.loops
    if all(len(loop.imagined) == 1 for loop in loops.values()):
        return Section(title, "", notes=["An ensemble with one member has no spread."])
    return Section(title, _SPREAD, medium=draw_spread(loops, found.plan_horizon))


def _returns_table(found: Findings) -> Rows:
    header = ["actual return from", "plans", "predicted", "actual", "bias", "correlation"]
    rows = [header]
    for name, each in found.agreements.items():
        numbers = (_mean(each.predicted), _mean(each.actual), each.bias, each.correlation)
        rows.append([name, str(len(each.predicted)), *map(show, numbers)])
    return rows


def _error_notes(found: Findings) -> list[str]:
    return [
        f"All episodes ({name}) have fewer than {found.horizon} env steps, so errors are shown up "
        f"to env step {loop.horizon}."
        for name, loop in found.loops.items()
        if loop.horizon < found.horizon
    ]


def _plan_notes(found: Findings) -> list[str]:
    S, H = found.check.replanned.shape
    lost = S - len(found.agreements[EXECUTED].predicted)
    notes = []
    if found.plan_horizon > H:
        notes.append(
            f"All episodes have fewer than {found.plan_horizon} env steps, so plans are cut to {H}."
        )
    if lost:
        notes.append(
            f"{lost} of {S} plans could not be executed: with the same seed and actions, the "
            "simulator did not return to the same state."
        )
    return notes


def show(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 1000 on; NaN as "-"."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
