"""The report's figures: one for each question, from exported runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cs285.analysis.plots import Groups, curves_figure, draw_curves, draw_last_values
from cs285.analysis.report.study import error_figure
from cs285.analysis.runs import exported_runs
from cs285.infrastructure.recording.figures import draw_predictions, new_figure

LOSS = "Training Loss"

# Figure -> panel's title -> line's label -> experiment
CURVES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "q3": {
        "Q3: obstacles": {"random shooting": "q3_obstacles"},
        "Q3: reacher": {"random shooting": "q3_reacher"},
        "Q3: cheetah": {"random shooting": "q3_cheetah"},
    },
    "q4": {
        "Q4: horizon": {
            "5": "q4_reacher_horizon5",
            "10": "q4_reacher_ensemble3",
            "15": "q4_reacher_horizon15",
            "30": "q4_reacher_horizon30",
        },
        "Q4: candidate sequences": {
            "100": "q4_reacher_numseq100",
            "1000": "q4_reacher_numseq1000",
        },
        "Q4: ensemble size": {
            "1": "q4_reacher_ensemble1",
            "3": "q4_reacher_ensemble3",
            "5": "q4_reacher_ensemble5",
        },
    },
    "q5": {
        "Q5: cheetah": {
            "random shooting": "q5_cheetah_random",
            "CEM, 2 iterations": "q5_cheetah_cem_2",
            "CEM, 4 iterations": "q5_cheetah_cem_4",
        }
    },
    "q6": {
        "Q6: cheetah": {
            "no rollouts (SAC), a fifth of the updates": "q6_cheetah_rlenl0",
            "no rollouts (SAC), as many updates": "study_rlen0",
            "rollout length 1 (Dyna)": "q6_cheetah_rlen1",
            "rollout length 10 (MBPO)": "q6_cheetah_rlen10",
        }
    },
    "sac": {
        "SAC alone: Pendulum-v1": {"cs285": "sac_pendulum"},
        "SAC alone: HalfCheetah-v5": {
            "cs285": "sac_halfcheetah",
            "Stable-Baselines3": "sb3_halfcheetah",
        },
    },
}
RESEARCH: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "planners": {
        "Planners: cheetah": {
            "CEM, 1000 candidates": "q5_cheetah_cem_4",
            "iCEM, 100 candidates": "planners_cheetah_icem",
            "MPPI, 1000 candidates": "planners_cheetah_mppi",
        },
        "Planners: reacher": {
            "CEM, 1000 candidates": "planners_reacher_cem",
            "iCEM, 100 candidates": "planners_reacher_icem",
        },
    },
    "pets": {
        "PETS: Pendulum-v1": {"cs285": "pets_pendulum"},
        "PETS: cheetah, iCEM": {
            "deterministic": "planners_cheetah_icem",
            "probabilistic, TS-inf": "pets_cheetah_tsinf",
            "the same, --mean_loss mse": "pets_cheetah_tsinf_mse",
        },
        "PETS: cheetah, iCEM, a fit every 1000 env steps": {
            "deterministic": "pets_cheetah_points_refit",
            "probabilistic, TS-inf, --mean_loss mse": "pets_cheetah_tsinf_refit",
        },
    },
    "mbpo": {
        "MBPO: InvertedPendulum-v5": {"MBPO": "mbpo_inverted_pendulum"},
        "MBPO: Hopper-v5": {"MBPO": "mbpo_hopper", "10 updates": "mbpo_hopper_10_updates"},
        "MBPO: HalfCheetah-v5": {"MBPO": "mbpo_halfcheetah", "SAC": "mbpo_halfcheetah_sac"},
    },
}
Q1 = {
    "5 steps, 2x250": "q1_cheetah_n5_arch2x250",
    "500 steps, 2x250": "q1_cheetah_n500_arch2x250",
    "500 steps, 1x32": "q1_cheetah_n500_arch1x32",
}
STUDY: Mapping[str, Mapping[str, str]] = {
    "Rollout length": {
        "0": "study_rlen0",
        "1": "q6_cheetah_rlen1",
        "5": "study_rlen5",
        "10": "q6_cheetah_rlen10",
        "20": "study_rlen20",
        "50": "study_rlen50",
        "200": "study_rlen200",
    },
    "Members, rollout length 10": {
        "1": "study_rlen10_ensemble1",
        "3": "q6_cheetah_rlen10",
        "7": "study_rlen10_ensemble7",
    },
}


def figures(results: Path) -> dict[str, Figure]:
    """Return the report's figures by name; what has not been run is left out."""
    drawn = {"q1_losses": q1_losses(results), "q1_predictions": q1_predictions(results)}
    for name, panels in {**CURVES, **RESEARCH}.items():
        groups = {title: _groups(results, lines) for title, lines in panels.items()}
        groups = {title: lines for title, lines in groups.items() if lines}
        if groups:
            drawn[name] = curves_figure(groups)
    drawn["study"] = study(results)
    drawn["model_error"] = error_figure(results / "study" / "model_error.csv")
    return {name: figure for name, figure in drawn.items() if figure.axes}


def q1_losses(results: Path) -> Figure:
    """Return question 1's training losses against gradient steps."""
    figure = new_figure(6, 4)
    groups = _groups(results, Q1)
    if groups:
        axes = figure.subplots()
        draw_curves(axes, groups, LOSS, "Gradient step", title="Q1: dynamics model of the cheetah")
        axes.set(yscale="log", ylabel="training loss (normalised MSE)", xlabel="gradient step")
    return figure


def q1_predictions(results: Path) -> Figure:
    """Return question 1's open-loop predictions of four observations, an experiment a row."""
    files = {
        label: file
        for label, name in Q1.items()
        if (file := results / "q1" / f"{name}_seed1_predictions.npz").exists()
    }
    figure = new_figure(11, 0.5 + 2.2 * len(files))
    if files:
        rows = figure.subplots(len(files), 4, squeeze=False)
        for axes, (label, file) in zip(rows, files.items(), strict=True):
            with np.load(file) as arrays:
                dims = np.linspace(0, arrays["true"].shape[1] - 1, 4).astype(int)
                draw_predictions(axes, arrays["true"], arrays["predicted"], dims)
            axes[0].set_title(label, loc="left", fontsize="medium")
    return figure


def study(results: Path) -> Figure:
    """Return what docs/model_error.md says of rollout length and ensemble size.

    From above: returns as they come, what SAC believes them to be, and the last ones.
    """
    groups = {title: _groups(results, runs) for title, runs in STUDY.items()}
    groups = {title: runs for title, runs in groups.items() if runs}
    figure = new_figure(5 * max(len(groups), 1), 11)
    for place, (title, runs) in enumerate(groups.items(), start=1):
        returns, values, last = (
            figure.add_subplot(3, len(groups), row * len(groups) + place) for row in range(3)
        )
        draw_curves(returns, runs, title=f"MBPO on the cheetah: {title[0].lower()}{title[1:]}")
        draw_curves(values, runs, "Q Mean")
        draw_last_values(last, runs)
        last.set_xlabel(title)
    return figure


def _groups(results: Path, lines: Mapping[str, str]) -> Groups:
    found = {label: exported_runs(results, name) for label, name in lines.items()}
    return {label: runs for label, runs in found.items() if runs}
