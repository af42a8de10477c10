"""The figures of results/README.md, drawn from exported runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cs285.analysis.plots import Groups, curves_figure, draw_curves, draw_last_values
from cs285.analysis.report.study import MODEL_ERROR, error_figure
from cs285.analysis.runs import exported_runs
from cs285.infrastructure.files import read_arrays, read_toml, reading
from cs285.infrastructure.recording.figures import draw_predictions, new_figure

LOSS = "Training Loss"
CONTENTS = read_toml(Path(__file__).with_name("figures.toml"))
CAPTIONS = {figure: " ".join(text.split()) for figure, text in CONTENTS["captions"].items()}
Q1: Mapping[str, str] = CONTENTS["q1"]


def figures(results: Path) -> dict[str, Figure]:
    """Return the figures by name, without the figures whose experiments have not been run."""
    drawn = {"q1_losses": q1_losses(results), "q1_predictions": q1_predictions(results)}
    for name, panels in CONTENTS["curves"].items():
        if groups := _panels(results, panels):
            drawn[name] = curves_figure(groups, x_of=CONTENTS["x"], marks=CONTENTS["published"])
    drawn["study"] = study(results)
    file = results / "study" / "model_error.csv"
    with reading(str(file), MODEL_ERROR):
        drawn["model_error"] = error_figure(file)
    return {name: figure for name, figure in drawn.items() if figure.axes}


def q1_losses(results: Path) -> Figure:
    """Draw question 1's training losses against gradient steps."""
    figure = new_figure(6, 4)
    groups = _groups(results, Q1)
    if groups:
        axes = figure.subplots()
        draw_curves(axes, groups, LOSS, "Gradient step", title="Q1: dynamics model of the cheetah")
        axes.set(yscale="log", ylabel="training loss (normalised MSE)", xlabel="gradient step")
    return figure


def q1_predictions(results: Path) -> Figure:
    """Draw question 1's open-loop predictions of four observations, one row per experiment."""
    files = {
        label: file
        for label, name in Q1.items()
        if (file := results / "q1" / f"{name}_seed1_predictions.npz").exists()
    }
    figure = new_figure(11, 0.5 + 2.2 * len(files))
    if files:
        rows = figure.subplots(len(files), 4, squeeze=False)
        for axes, (label, file) in zip(rows, files.items(), strict=True):
            with reading(str(file), "the predictions of a run of question 1"):
                arrays = read_arrays(file)
                dims = np.linspace(0, arrays["true"].shape[1] - 1, 4).astype(int)
                draw_predictions(axes, arrays["true"], arrays["predicted"], dims)
            axes[0].set_title(label, loc="left", fontsize="medium")
    return figure


def study(results: Path) -> Figure:
    """Draw the study of rollout length and ensemble size, see docs/model_error.md.

    From top to bottom: learning curves, the mean Q value, and the mean of the last three
    evaluations.
    """
    groups = _panels(results, CONTENTS["study"])
    figure = new_figure(5 * max(len(groups), 1), 11)
    for place, (title, runs) in enumerate(groups.items(), start=1):
        returns, values, last = (
            figure.add_subplot(3, len(groups), row * len(groups) + place) for row in range(3)
        )
        draw_curves(returns, runs, title=f"MBPO, cheetah: {title[0].lower()}{title[1:]}")
        draw_curves(values, runs, "Q Mean")
        draw_last_values(last, runs)
        last.set_xlabel(title)
    return figure


def _panels(results: Path, panels: Mapping[str, Mapping[str, str]]) -> dict[str, Groups]:
    """Return the panels that have at least one run, by title."""
    found = {title: _groups(results, lines) for title, lines in panels.items()}
    return {title: groups for title, groups in found.items() if groups}


def _groups(results: Path, lines: Mapping[str, str]) -> Groups:
    found = {label: exported_runs(results, name) for label, name in lines.items()}
    return {label: runs for label, runs in found.items() if runs}
