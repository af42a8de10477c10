"""The diagnosis as one HTML file that needs nothing else: no script, no other file, no network."""

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
from cs285.analysis.diagnosis.plan_check import ACTED_OUT, Findings

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


_HOW_FAR = """From {} states of fresh episodes each member of the ensemble imagines the actions
that were really taken there, without a look at the simulator in between. An error is in units of
each dimension's standard deviation in the data that the model was fitted to: at 1 a prediction is
no better than always saying the mean of the data.

Blue: the error of the members' mean, and thin those of single members (root mean square over
starts and dimensions); four of five starts lie in the band. Dotted: the error of saying that
nothing changes; a model above it is worse than none. Dashed: the spread, that is the standard
deviation over members; where it is far below the error, the members agree on something wrong. The
vertical line is the horizon of the plans."""
_WHICH_PART = """The same error by observation dimension, over members and starts. Bright rows are
dimensions that the model cannot follow that far. White rows are constant in the model's data, and
have no unit."""
_SPREAD = """Above: Spearman's rank correlation of spread and error over the starts, by horizon.
At 1 the members disagree most just where they are most wrong, and their spread can be used as a
warning; at 0 it says nothing. Below: the starts themselves, at the horizon of the plans."""
_PROMISES = """At {} states of the policy's episodes: the return over {} steps that the model
predicts for {}, against what came of it when these very actions were acted out in the simulator
from there (left), and against what the agent really got in these steps, deciding anew at each
(right).

On the line the model keeps its word; below it, it promised too much (a positive bias: predicted
less realised). A planner looks for the plans that the model thinks most of, and so finds its
errors. The correlation says whether the better promise is the better plan."""


class Section(NamedTuple):
    """A part of the page, from top to bottom."""

    title: str
    text: str  # paragraphs between empty lines
    table: Rows = ()  # the first row is its head
    medium: Figure | bytes | None = None  # bytes: an mp4
    notes: Sequence[str] = ()  # what was left out or cut, and why


def page(
    title: str, facts: Rows, sections: Sequence[Section], settings: Mapping[str, object]
) -> str:
    """Return the whole file: key figures, the sections, and every flag of the run."""
    flags = [(f"--{name}", str(value)) for name, value in settings.items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        _pairs(facts),
        *map(_section, sections),
        f"<details><summary>All settings of the run</summary>{_pairs(flags)}</details>",
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
    """Return a table of names and what they stand for."""
    lines = (f"<tr>{_cells('th', row[:1])}{_cells('td', row[1:])}</tr>" for row in rows)
    return f'<table class="pairs">{"".join(lines)}</table>'


def _table(rows: Rows) -> str:
    """Return a table of rows under a head."""
    cells = [_cells("th", rows[0]), *(_cells("td", row) for row in rows[1:])]
    lines = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table>{lines}</table></div>'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def facts(found: Findings) -> list[tuple[str, str]]:
    """Return the key figures by name, for the page and the terminal alike."""
    rows = []
    for name, paths in found.paths.items():
        returns = np.array([path.total_reward for path in paths])
        spelled = f"{show(returns.mean())} ± {show(returns.std())} ({len(paths)} episodes)"
        rows.append((f"return, {name}", spelled))
    for name, *cells in error_table(found)[1:]:
        text = "{1} (spread {2}, no change {3}, rank correlation {4})".format(*cells)
        rows.append((f"error after {cells[0]} step{'s' * (cells[0] != '1')}, {name}", text))
    for name, each in found.agreements.items():
        text = f"{show(_mean(each.predicted))} against {show(_mean(each.realised))}"
        text += f", bias {show(each.bias)}, correlation {show(each.correlation)}"
        rows.append((f"predicted return, {name}", text))
    return rows


def error_table(found: Findings) -> list[Sequence[str]]:
    """Return the errors after some numbers of steps, by the kind of data; a head comes first."""
    rows: list[Sequence[str]] = []
    for name, loop in found.loops.items():
        sizes = (loop.errors_of_mean(), loop.spreads(), loop.errors_of_no_change())
        curves = [*(rms(each, 0) for each in sizes), loop.rank_correlation()]
        for step in sorted({1, min(found.plan_horizon, loop.horizon), loop.horizon}):
            rows.append((name, str(step), *(show(float(curve[step - 1])) for curve in curves)))
    return [("data", "steps", "error", "spread", "no change", "rank correlation"), *rows]


def sections(found: Findings, is_planned: bool, picture: Picture) -> list[Section]:
    """Return the page's sections, of a policy that plans or of one that just acts."""
    plans_are = "the policy acting in the model (next states are the members' mean)"
    if is_planned:
        plans_are = "the plan whose first action the planner took there"
    loops = found.loops
    starts = " and ".join(f"{len(each.starts)} ({name})" for name, each in loops.items())
    promises = _PROMISES.format(*found.check.replanned.shape, plans_are)
    return [
        Section(
            "How far can the model look ahead?",
            _HOW_FAR.format(starts),
            error_table(found),
            draw_errors(loops, found.plan_horizon),
            _error_notes(found),
        ),
        Section("Which part goes wrong?", _WHICH_PART, medium=draw_dimensions(loops)),
        _spread_section(found),
        Section(
            "Does the model keep its promises?",
            promises,
            _returns_table(found),
            draw_returns(found.agreements),
            _plan_notes(found),
        ),
        Section("Imagined and real", picture.text, medium=picture.medium, notes=picture.notes),
    ]


def _spread_section(found: Findings) -> Section:
    title, loops = "Does the spread tell where the model is wrong?", found.loops
    if all(len(loop.imagined) == 1 for loop in loops.values()):
        return Section(title, "", notes=["A model of one member has no spread."])
    return Section(title, _SPREAD, medium=draw_spread(loops, found.plan_horizon))


def _returns_table(found: Findings) -> Rows:
    rows = [["outcome", "plans", "predicted", "realised", "bias", "correlation"]]
    for name, each in found.agreements.items():
        numbers = (_mean(each.predicted), _mean(each.realised), each.bias, each.correlation)
        rows.append([name, str(len(each.predicted)), *map(show, numbers)])
    return rows


def _error_notes(found: Findings) -> list[str]:
    return [
        f"No episode ({name}) has {found.horizon} steps: its errors go up to {loop.horizon}."
        for name, loop in found.loops.items()
        if loop.horizon < found.horizon
    ]


def _plan_notes(found: Findings) -> list[str]:
    S, H = found.check.replanned.shape
    lost = S - len(found.agreements[ACTED_OUT].predicted)
    notes = []
    if found.plan_horizon > H:
        notes.append(f"No episode has {found.plan_horizon} steps: plans are cut to {H}.")
    if lost:
        notes.append(
            f"{lost} of {S} plans could not be acted out: by the same seed and actions the "
            "simulator did not come back to the same state."
        )
    return notes


def show(value: float) -> str:
    """Return a number as people read it, a dash where there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
