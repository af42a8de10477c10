"""Write results/README.md and results/figures/ from the files beside them.

    python results/make_report.py

Every number reached is read from a CSV or JSON; what is stated or wanted is in the list of
experiments (cs285/experiments/homework.toml and research.toml).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.analysis.plots import save
from cs285.analysis.report.figures import figures
from cs285.analysis.report.results_table import table
from cs285.analysis.report.study import error_table, model_loss_table, planner_table
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.experiments.suites import (
    RESEARCH_FILE,
    Experiment,
    Result,
    read_experiments,
)
from cs285.infrastructure.recording.stopwatch import describe_phases

SCRIPT, RESULTS = "make_report.py", Path(__file__).parent
PEER = Experiment(
    name="sb3_halfcheetah",
    script="",
    flags=(),
    minutes=0,
    results=(Result("Eval_AverageReturn", last=3),),
)

PAGE = """# Results

Written by `python results/make_report.py` from the files beside it; nothing here is typed. A run is
a CSV and a JSON, exported from its log folder (`scripts/reproduce.py --export_to results` runs them
all; those of Stable-Baselines3 are by `results/sb3_sac.py`). "Stated" is the assignment's, "wanted"
this project's, held against the mean over seeds; "not done" is what was exported before its end.
"Planned through the simulator" is what the same
search reaches with a perfect model (`results/perfect_model.py`): the rest to it is the model's.
Times are from the first iteration on, the mean over seeds; other processes ran beside most of them,
so [benchmarks/](benchmarks/README.md) says more of speed. An evaluation is `--eval_batch_size` env
steps, in whole episodes: one of the cheetah, two of the reacher, four or more
of the obstacles.

{rows}

Beyond the homework (`scripts/reproduce.py --experiments research`):

{research_rows}

Lines are means over seeds, bands from the lowest to the highest, thin lines the seeds (of four
seeds and more: interquartile means and their 95% bootstrap intervals). Question 6's runs with
rollouts take 5000 updates per iteration and its baseline, as the assignment has it, 1000; the
other line without rollouts takes 5000, too.

{pictures}

## Model error

Median error of the ensemble's mean state (and spread of its members), in stds of the observations,
for ensembles fitted to the first so many env steps of a run of question 6, on episodes of its final
policy and of random actions: `results/model_error_study.py`, explained in
[docs/model_error.md](../docs/model_error.md).

{model_error}

## Planners through one model

Mean return of fresh episodes, the same for each planner, through the last model of a run:
`results/planner_study.py`. Of MPPI and iCEM the first line is with the defaults, each other line
with one of them changed.

{planners}

## What the means of an ensemble are fitted by

Ensembles of a run's settings, fitted once to all but the newest fifth of its transitions and judged
on that fifth: `results/model_loss_study.py`. An error is the geometric mean over columns of the
mean squared errors, in units of the targets' variance, the mean over members and three seeds;
coverage is the share of targets in the intervals of so many per cent.
[docs/algorithms.md](../docs/algorithms.md) says what came of it.

{model_losses}

## Every run

Older runs did not count phases.

| run | commit | machine | seconds | by phase | command |
|---|---|---|---|---|---|
{runs}

## Every study of such runs

| file | commit | machine | command |
|---|---|---|---|
{studies}
"""


def sources() -> dict[str, dict[str, Any]]:
    """Return what is known of each run, by its name."""
    files = sorted(RESULTS.glob("*/*_seed*.csv"))
    return {file.stem: json.loads(file.with_suffix(".json").read_text()) for file in files}


def run_row(name: str, source: dict[str, Any]) -> str:
    seconds = f"{source['run']['seconds']:.0f}"
    phases = describe_phases(source["run"].get("seconds_by_phase", {}))
    cells = (name, commit_of(source), machine_of(source), seconds, phases, f"`{source['command']}`")
    return f"| {' | '.join(cells)} |"


def study_row(file: Path) -> str:
    source = json.loads(file.read_text())
    name, command = file.relative_to(RESULTS), source["command"]
    return f"| {name} | {commit_of(source)} | {machine_of(source)} | `{command}` |"


def commit_of(source: dict[str, Any]) -> str:
    """Return the commits of a run's sittings."""
    sittings = [source, *source.get("resumed", [])]
    return ", ".join(dict.fromkeys(commit_name(sitting["git"]) for sitting in sittings))


def commit_name(git: dict[str, Any]) -> str:
    changed = " (with uncommitted changes)" if git.get("uncommitted_changes") else ""
    return (git["commit"] or "unknown")[:9] + changed


def machine_of(source: dict[str, Any]) -> str:
    """Return the machines of a run's sittings."""
    machines = [sitting["machine"] for sitting in [source, *source.get("resumed", [])]]
    names = [f"{machine['processor']}, {machine['cores']} cores" for machine in machines]
    return "; ".join(dict.fromkeys(names))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_script(SCRIPT, report, argv)


def report(argv: Sequence[str]) -> int:
    OneLineParser(prog=SCRIPT, description=__doc__).parse_args(argv)
    rows = table([*read_experiments(), PEER], RESULTS)
    research_rows = table(read_experiments(RESEARCH_FILE), RESULTS)
    drawn = figures(RESULTS)
    for name, figure in drawn.items():
        save(figure, RESULTS / "figures" / f"{name}.png")
    for old in (RESULTS / "figures").glob("*.png"):
        if old.stem not in drawn:
            old.unlink()
    runs = sources()
    studies = [
        file
        for file in sorted(RESULTS.glob("*/*.json"))
        if file.stem not in runs and file.parent.name != "benchmarks"
    ]
    parts = {
        "rows": rows,
        "research_rows": research_rows,
        "pictures": [f"![{name.replace('_', ' ')}](figures/{name}.png)" for name in drawn],
        "model_error": error_table(RESULTS / "study" / "model_error.csv"),
        "planners": planner_table(RESULTS / "study"),
        "model_losses": model_loss_table(RESULTS / "study"),
        "runs": [run_row(name, source) for name, source in runs.items()],
        "studies": map(study_row, studies),
    }
    page = PAGE.format(**{name: "\n".join(lines) for name, lines in parts.items()})
    (RESULTS / "README.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
