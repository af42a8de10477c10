"""Write results/README.md and results/figures/ from the CSV and JSON files in results/.

    python results/make_report.py

The stated figures and the targets come from the lists of experiments in cs285/experiments,
homework.toml, quick.toml and research.toml.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.analysis.plots import save
from cs285.analysis.report.figures import CAPTIONS, figures
from cs285.analysis.report.results_table import table
from cs285.analysis.report.study import (
    MODEL_ERROR,
    error_table,
    fit_settings_table,
    model_loss_table,
    planner_table,
)
from cs285.analysis.report.swingup import swingup_table
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.experiments.suites import Experiment, Result, read_experiments
from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.files import read_json, reading
from cs285.infrastructure.recording.stopwatch import describe_phases
from cs285.infrastructure.run_folder import BEST, read_config, read_description

SCRIPT, RESULTS = "make_report.py", Path(__file__).parent
PEER = Experiment(
    name="sb3_halfcheetah",
    script="",
    flags=(),
    minutes=0,
    results=(Result("Eval_AverageReturn", last=3),),
)

PAGE = """# Results

This folder holds the results of this project's experiments. `python results/make_report.py` writes
this page and its figures from the CSV and JSON files in this folder. To change the text, edit that
script.

| path | contents |
|---|---|
| `q1/` to `q6/` | the homework's questions |
| `quick/` | the quick runs of the assignment's page |
| `study/` | question 6 with other rollout lengths and ensemble sizes, and studies of single runs |
| `sac/` | SAC alone, and SAC of Stable-Baselines3 |
| `planners/`, `pets/`, `mbpo/`, `pilco/`, `scaling/`, `dmc/`, `robotics/` | beyond the homework |
| `dhmbpo/` | double-horizon MBPO |
| `agents/` | trained agents for `scripts/evaluate.py` and `cs285.load` |
| `campaigns/` | attacks on runs ([docs/reliability.md](../docs/reliability.md)) |
| [benchmarks/](benchmarks/README.md) | speed measurements |
| `figures/` | the figures of this page |
| [history.md](history.md) | renamed experiments, and results of earlier versions |
| `*.py` | the scripts that write this page and the studies |

A run is one experiment with one seed. Its CSV holds the logged metrics, and its JSON holds the
flags, command, commit, machine and wall-clock time. `scripts/reproduce.py --export_to results
--eval_episodes 5` runs the experiments, evaluates each final policy in five more episodes, and
writes these files; `results/sb3_sac.py` does so for Stable-Baselines3.

## Columns of the tables

- **metric**: the column of the CSV, explained in [docs/metrics.md](../docs/metrics.md). "mean of
  last 3" is the mean of the last three logged values. The mean prediction error is stored in the
  JSON.
- **value by seed**: the value of each run, and the mean over the seeds. The model has its default
  loss and learning rate, unless the flags of the experiment set others.
- **with `--preset sharp`**: the same experiment with this preset, named `NAME_sharp`. The
  experiments `study_*`, `planners_*` and `pets_cheetah_*` have the preset in their own flags.
- **stated figure**: the figure that the assignment states. Beyond the homework it is the figure of
  a paper. "reached" or "not reached" tells whether the mean over the seeds reaches it. A mean that
  is better than a stated range counts as reached.
- **project target**: this project's own goal, which may be the mean of another experiment. "met" or
  "missed" tells whether the mean over the seeds meets it.
- **time here**: the wall-clock time from the first iteration on, averaged over the seeds. Most runs
  shared the machine with other processes, so [benchmarks/](benchmarks/README.md) is the better
  source for speed.
- **stated time**: the time that the assignment or the paper states.

A stated figure that is not a number, such as "a trend", has no verdict. "unfinished" marks
experiments with a run that was exported before its end.

A row "with a perfect model" shows the same planner with the simulator as its model
(`results/perfect_model.py`). The gap to the run is model error. The gap from there to the best
possible return is planner error. The rows of question 3 repeat evaluations of the runs with
`--preset sharp`.

`sac_halfcheetah` and `sb3_halfcheetah` are older runs of 20,000 env steps. Their experiments now
have 100,000.

`q4_reacher_ensemble3` was stopped for 19 minutes, which its time includes.

An evaluation takes whole episodes until it has `--eval_batch_size` env steps: one episode of the
cheetah, two of the reacher, and at least four of the obstacles.

## Homework

{rows}

## Quick runs

These are the quick runs of [docs/assignment.md](../docs/assignment.md), and the tour of
[README](../README.md). An evaluation has two episodes of the pendulum, or about 14 of the
obstacles, so returns vary strongly between seeds.

{quick_rows}

## Beyond the homework

`python scripts/reproduce.py --experiments research` runs these experiments.

{research_rows}

## Figures

A line is the mean over seeds. Its band spans the lowest to the highest seed, and each thin line is
one seed. From four seeds on, a line is the interquartile mean and its band the 95% bootstrap
interval.

{pictures}

## Swing-ups

The table shows the seconds of interaction before the first evaluation in which at least nine of ten
episodes succeed. An episode succeeds if the tip of the pole stays within a fifth of the pole's
length of its target for a second. The strict criterion asks for an angle within 10 degrees of
upright and a centred cart throughout the last second ([docs/pilco.md](../docs/pilco.md)).

{swingups}

## Model error

The table shows the median error of the ensemble's mean state, with the spread of the members in
brackets. Both are in units of the observations' standard deviation. The ensembles are fitted to the
first env steps of a run of question 6 with `--preset sharp`, and evaluated on episodes of its final
policy and of random actions. The script is `results/model_error_study.py`;
[docs/model_error.md](../docs/model_error.md) explains the results.

{model_error}

## Planners through one model

The table shows the mean return of each planner with the final model of a run, on the same episodes
(`results/planner_study.py`). `q3_reacher_seed1` is the run of question 3 with `--preset sharp`. The
first MPPI row and the first iCEM row use the default flags; the other MPPI and iCEM rows change one
flag each.

{planners}

## Model losses

The table compares ensembles with a run's settings. They are fitted once to its transitions without
the newest fifth (`results/model_loss_study.py`). The newest fifth is the held-out data. An error is
the geometric mean over columns of the mean squared error, in units of the targets' variance,
averaged over the members and three seeds. Coverage is the share of held-out targets inside the
predicted 50%, 80% and 95% intervals. [docs/dynamics_model.md](../docs/dynamics_model.md) explains
the losses.

{model_losses}

## Settings of a fit

The default returns -26.9 on question 3's obstacles, and the stated range begins at -25. This table
compares fits of its model: ensembles are fitted again to the transitions of the run after each
iteration, each time with one setting changed, and predict the transitions of the next iteration
(`results/fit_settings_study.py`; squared error in units of the variance, mean over the last four
fits and three seeds). Columns 0 and 1 are the position. Columns 2 and 3 are the goal, which only
has noise, so 0.5 is the best possible error.

With a learning rate of 0.003 or 0.01, 100 steps, or `--preset sharp`, the error of the position is
25 to 50% lower, with the falling rate alone 21 to 24%. The loss, the initial weights and the batch
size change it by at most 12%. This suggests that 20 gradient steps per iteration at a rate of 0.001
are too few. The effect on returns is not measured (`cause_obstacles_*`).

{fit_settings}

## Trained agents

The folders in `agents/`, for `scripts/evaluate.py` and `cs285.load`. A folder has the weights of
the run's best evaluation, whose mean return is in the table, or else the last weights. Some runs
have old names ([history.md](history.md#names)).

| folder | task | run | env steps | return | commit |
|---|---|---|---|---|---|
{agents}

## Every run

The commands are shown as they were typed, with the flag and experiment names of their commit.
[history.md](history.md#names) lists the names that have changed since. In older runs, the settings
of `--preset sharp` were the default, so their commands do not name it. Older runs did not record
the time by phase.

| run | commit | machine | seconds | time by phase | command |
|---|---|---|---|---|---|
{runs}

## Every study

The commands name scripts and runs as they were called at the commit
([history.md](history.md#names)).

| file | commit | machine | command |
|---|---|---|---|
{studies}
"""


def sources() -> dict[str, dict[str, Any]]:
    """Return the JSON description of each run, by the name of its files."""
    described: dict[str, dict[str, Any]] = {}
    for file in sorted(RESULTS.glob("*/*_seed*.csv")):
        with reading(str(file.with_suffix(".json")), "the JSON file of an exported run"):
            described[file.stem] = read_description(file.with_suffix(".json"))
    return described


def run_row(name: str, source: dict[str, Any]) -> str:
    with reading(f"{name}.json", "the JSON file of an exported run"):
        return _run_row(name, source)


def _run_row(name: str, source: dict[str, Any]) -> str:
    seconds = f"{source['run']['seconds']:.0f}"
    phases = describe_phases(source["run"].get("seconds_by_phase", {}))
    cells = (name, commit_of(source), machine_of(source), seconds, phases, f"`{source['command']}`")
    return f"| {' | '.join(cells)} |"


def study_row(file: Path) -> str:
    with reading(str(file), "the JSON file of a study"):
        source = read_json(file)
        cells = (file.relative_to(RESULTS), commit_of(source), machine_of(source))
        return f"| {' | '.join(map(str, cells))} | `{source['command']}` |"


def agent_row(folder: Path) -> str:
    config = read_config(folder)
    counters = load_checkpoint(folder / BEST, "cpu")["counters"]
    run, task = config["flags"]["exp_name"], config["flags"]["env_name"]
    best = counters.get("best_return")  # older runs lack it
    cells = (
        folder.name,
        task,
        run,
        counters["env_steps"],
        "" if best is None else f"{best:.4g}",
        commit_of(config),
    )
    return f"| {' | '.join(map(str, cells))} |"


def picture_of(name: str) -> str:
    """Return a figure and its caption as Markdown."""
    caption = textwrap.fill(CAPTIONS[name], 100)
    return f"![{name.replace('_', ' ')}](figures/{name}.png)\n\n{caption}"


def commit_of(source: dict[str, Any]) -> str:
    """Return the commits that the run was started and resumed with."""
    parts = [source, *source.get("resumed", [])]
    return ", ".join(dict.fromkeys(commit_name(part["git"]) for part in parts))


def commit_name(git: dict[str, Any]) -> str:
    changed = " (with uncommitted changes)" if git.get("uncommitted_changes") else ""
    return (git["commit"] or "unknown")[:9] + changed


def machine_of(source: dict[str, Any]) -> str:
    """Return the machines that the run was started and resumed on."""
    machines = [part["machine"] for part in [source, *source.get("resumed", [])]]
    names = [f"{machine['processor']}, {machine['cores']} cores" for machine in machines]
    return "; ".join(dict.fromkeys(names))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, report, argv)


def report(argv: Sequence[str]) -> int:
    OneLineParser(prog=SCRIPT, description=__doc__).parse_args(argv)
    rows = table([*read_experiments(), PEER], RESULTS)
    quick_rows = table(read_experiments("quick"), RESULTS)
    research_rows = table(read_experiments("research"), RESULTS)
    drawn = figures(RESULTS)
    for name, figure in drawn.items():
        save(figure, RESULTS / "figures" / f"{name}.png")
    for old in (RESULTS / "figures").glob("*.png"):  # of removed or renamed figures
        if old.stem not in drawn:
            old.unlink()
    runs = sources()
    studies = [
        file
        for file in sorted(RESULTS.glob("*/*.json"))
        if file.stem not in runs and file.parent.name != "benchmarks"
    ]
    model_error = RESULTS / "study" / "model_error.csv"
    with reading(str(model_error), MODEL_ERROR):
        error_rows = error_table(model_error)
    parts = {
        "rows": rows,
        "quick_rows": quick_rows,
        "research_rows": research_rows,
        "pictures": ["\n\n".join(map(picture_of, drawn))],
        "swingups": swingup_table(RESULTS),
        "model_error": error_rows,
        "planners": planner_table(RESULTS / "study"),
        "fit_settings": fit_settings_table(RESULTS / "study"),
        "model_losses": model_loss_table(RESULTS / "study"),
        "agents": map(agent_row, sorted((RESULTS / "agents").iterdir())),
        "runs": [run_row(name, source) for name, source in runs.items()],
        "studies": map(study_row, studies),
    }
    page = PAGE.format(**{name: "\n".join(lines) for name, lines in parts.items()})
    (RESULTS / "README.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
