"""Write results/README.md and results/figures/ from the files that experiments.sh exported.

    python results/make_report.py

Every number reached is read from a CSV or JSON beside it; those stated are the assignment's.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent
PREDICTION_ERROR = "mean prediction error"  # of iteration 0's picture; in the JSON


class Experiment(NamedTuple):
    """One row of the report."""

    name: str
    column: str
    last: int  # how many last values of the column are averaged
    stated: str
    note: str = ""


EXPERIMENTS = (
    Experiment("q1_cheetah_n500_arch1x32", "Training Loss", 1, "loss < 0.2 by step 500"),
    Experiment("q1_cheetah_n5_arch2x250", "Training Loss", 1, "-"),
    Experiment("q1_cheetah_n500_arch2x250", "Training Loss", 1, "-"),
    Experiment("q1_cheetah_n500_arch1x32", PREDICTION_ERROR, 1, "-"),
    Experiment("q1_cheetah_n5_arch2x250", PREDICTION_ERROR, 1, "-"),
    Experiment("q1_cheetah_n500_arch2x250", PREDICTION_ERROR, 1, "smallest"),
    Experiment("q2_obstacles_singleiteration", "Train_AverageReturn", 1, "about -160"),
    Experiment("q2_obstacles_singleiteration", "Eval_AverageReturn", 1, "-70 to -50"),
    Experiment("q3_obstacles", "Eval_AverageReturn", 3, "-25 to -20, 40 min"),
    Experiment(
        "q3_reacher_short", "Eval_AverageReturn", 1, "-300 to -250 (whole)", "4 x 1000 env steps"
    ),
    Experiment(
        "q3_cheetah_short", "Eval_AverageReturn", 1, "250 to 350 (whole)", "4 x 1000 env steps"
    ),
    Experiment(
        "q5_cheetah_random_short", "Eval_AverageReturn", 1, "-", "2 x 400 steps, episodes of 200"
    ),
    Experiment(
        "q5_cheetah_cem_4_short",
        "Eval_AverageReturn",
        1,
        "cem above random; >= 800 (whole)",
        "2 x 400 steps, episodes of 200",
    ),
    Experiment("q6_cheetah_rlenl0", "Eval_AverageReturn", 3, "baseline"),
    Experiment("q6_cheetah_rlen1", "Eval_AverageReturn", 3, "between"),
    Experiment("q6_cheetah_rlen10", "Eval_AverageReturn", 3, ">= 1000, 100 min on a GPU"),
    Experiment(
        "q6_cheetah_rlen10_alone",
        "Eval_AverageReturn",
        3,
        "100 min on a GPU",
        "whole, with the machine to itself",
    ),
    Experiment("sac_pendulum", "Eval_AverageReturn", 3, "-", "SAC alone, 10k env steps"),
    Experiment("sac_halfcheetah", "Eval_AverageReturn", 3, "-", "SAC alone, 20k env steps"),
    Experiment(
        "sb3_halfcheetah", "Eval_AverageReturn", 3, "-", "Stable-Baselines3's, by sb3_sac.py"
    ),
)
PANELS: dict[str, dict[str, str]] = {  # title: {label: experiment}
    "Q3: obstacles": {"random shooting": "q3_obstacles"},
    "Q5: cheetah, episodes of 200 env steps": {
        "CEM, 4 iterations": "q5_cheetah_cem_4_short",
        "random shooting": "q5_cheetah_random_short",
    },
    "Q6: cheetah, MBPO": {
        "rollout length 10": "q6_cheetah_rlen10",
        "rollout length 1": "q6_cheetah_rlen1",
        "no rollouts (SAC)": "q6_cheetah_rlenl0",
    },
    "SAC alone: HalfCheetah-v5": {
        "cs285": "sac_halfcheetah",
        "Stable-Baselines3": "sb3_halfcheetah",
    },
}


def read_column(file: Path, column: str) -> list[float]:
    with file.open(newline="") as stream:
        return [float(row[column]) for row in csv.DictReader(stream)]


def runs_of(name: str) -> list[Path]:
    """Return the CSVs of an experiment, one per seed."""
    return sorted(RESULTS.glob(f"*/{name}_seed*.csv"))


def describe(file: Path) -> dict[str, Any]:
    return json.loads(file.with_suffix(".json").read_text())


def commit_of(source: dict[str, Any]) -> str:
    changed = " (with uncommitted changes)" if source["git"].get("uncommitted_changes") else ""
    return (source["git"]["commit"] or "unknown")[:9] + changed


def reached_in(file: Path, experiment: Experiment) -> float:
    if experiment.column == PREDICTION_ERROR:
        return float(describe(file)["run"]["mean_prediction_error"])
    return float(np.mean(read_column(file, experiment.column)[-experiment.last :]))


def report_row(experiment: Experiment) -> str:
    files = runs_of(experiment.name)
    values = [reached_in(file, experiment) for file in files]
    seconds = [describe(file)["run"]["seconds"] for file in files]
    reached = ", ".join(f"{value:.4g}" for value in values)
    seeds = ", ".join(file.stem.rsplit("seed", 1)[1] for file in files)
    what = experiment.column + (f", last {experiment.last}" if experiment.last > 1 else "")
    cells = (
        experiment.name,
        experiment.note or "whole",
        what,
        experiment.stated,
        reached,
        seeds,
        f"{np.mean(seconds):.0f} s",
    )
    return "| " + " | ".join(cells) + " |"


def draw_curves(file: Path) -> None:
    """Draw returns against env steps, one line per seed."""
    figure = Figure(figsize=(10, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    colors = ("tab:blue", "tab:orange", "tab:green")
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for color, (label, name) in zip(colors, lines.items(), strict=False):
            for index, run in enumerate(runs_of(name)):
                steps = read_column(run, "Train_EnvstepsSoFar")
                returns = read_column(run, "Eval_AverageReturn")
                axes.plot(steps, returns, color=color, label=label if index == 0 else None)
        axes.set(title=title, xlabel="env steps", ylabel="evaluation return, one line per seed")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file)


def main() -> None:
    rows = [report_row(experiment) for experiment in EXPERIMENTS if runs_of(experiment.name)]
    sources = [describe(file) for file in RESULTS.glob("*/*_seed*.csv")]
    commits = sorted({commit_of(source) for source in sources})
    machines = sorted(
        {f"{s['machine']['processor']}, {s['machine']['cores']} cores" for s in sources}
    )
    text = f"""# Results

Written by `python results/make_report.py` from the CSV and JSON files beside it, which
`results/experiments.sh` made, those of Stable-Baselines3 `results/sb3_sac.py`. Every JSON holds its
run's command, flags, commit, versions and machine. Values are one per seed. Seconds are the mean
over seeds, from the first iteration on; the machine also did other work meanwhile, so compare by
benchmarks/ instead.

Commits: {", ".join(commits)}. Machine: {"; ".join(machines)}.

| experiment | form | value | stated by the assignment | reached | seeds | time |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

![Learning curves](figures/curves.png)
"""
    (RESULTS / "README.md").write_text(text)
    draw_curves(RESULTS / "figures" / "curves.png")


if __name__ == "__main__":
    main()
