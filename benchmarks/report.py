"""The benchmark report, results/benchmarks/README.md.

Run `python -m benchmarks.report`. It writes the report from the JSON files and measures nothing.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.timing import RESULTS

SECTIONS = {  # benchmark -> heading and introduction
    "autograd": (
        "Autograd",
        "SAC updates and fit gradient steps per second with autograd, eager and compiled. The "
        "baseline is commit b0c3007, the last one with hand-written gradients. The last block "
        "shows the seconds of the first compiled round of SAC updates, with an empty and with a "
        "filled compilation cache, and the number of updates until compiling pays off.",
    ),
    "planning": (
        "Planning",
        "Decisions per second on cheetah with random shooting and CEM. The baseline loops over the "
        "members in Python, as the homework does. This repository plans in 1 or 2 worker "
        'processes. mbrl-lib always uses CEM, in the "random" tables with one iteration. It '
        "predicts each candidate with one random member per particle, so it makes a third of the "
        "predictions with 1 particle and the same number with 3 particles. The share of the sgemm "
        "peak is the operations per second of the network predictions divided by the operations "
        "per second of a large float32 matrix product in the same round. The last table collects "
        "one PETS episode on Pendulum on one core and on all cores.",
    ),
    "sac_updates": (
        "SAC updates",
        "SAC updates per second with the observation and action dimensions of cheetah. The "
        "baseline is Stable-Baselines3. SBX is its JAX version. The homework-style learner updates "
        "as the homework does.",
    ),
    "dynamics_fit": (
        "Dynamics fit",
        "Gradient steps per second of an ensemble fit. The baseline fits E separate networks in "
        "sequence, as the homework does. mbrl-lib fits its own ensemble with its own update.",
    ),
    "model_rollouts": (
        "Model rollouts",
        "Imagined transitions per second with the networks of question 6. The baseline rolls out "
        "one start state at a time, as the homework does. This repository rolls out a batch of "
        'start states. With "mean", the next state is the mean prediction of all members. With '
        '"random_member", one random member predicts it.',
    ),
    "replay": (
        "Replay buffer",
        "Transitions per second that are added to the buffer and sampled from it, at three buffer "
        "sizes. The baseline is the smallest buffer. The speed should not depend on the size.",
    ),
    "question6": (
        "Question 6",
        "Run time of question 6 (rlen10), here and in the style of the homework. The speed of a "
        "shared machine changes during long runs. Both run times are therefore computed from "
        "parts that take turns. The homework-style SAC iteration slows down as its replay buffer "
        "grows, so it is measured at four buffer sizes. Evaluation, logging and checkpoints are "
        "not included.",
    ),
    "growth": (
        "Growth",
        "Seconds of planning, collecting and fitting for several values of one setting. The slope "
        "belongs to a line fitted to log time over log setting. A slope of 1 means that the time "
        "is proportional to the setting. A slope of 0 means that the time does not depend on it.",
    ),
    "profile": (
        "Profile",
        "Time of a SAC update, a fit gradient step and a decision by kind of operation. "
        '"Python" is the time outside torch operations. The share of the sgemm peak is defined as '
        "in Planning. The upper bound is the rate at which the matrix products would run at that "
        "peak and everything else would take no time.",
    ),
    "value_expansion": (
        "Double-horizon MBPO",
        "Milliseconds of each phase with --preset dhmbpo and the dimensions of Hopper, as "
        "wall-clock time and as CPU time of all threads.",
    ),
    "pilco": (
        "PILCO",
        "CPU time and peak memory of the sixth trial of the cart-pole: the fit of the Gaussian "
        "processes, and the policy search with its gradients.",
    ),
    "end_to_end": (
        "End-to-end runs",
        "Time of each phase and peak memory of complete runs. Question 6 runs in full. Questions 3 "
        "and 5 run with one short iteration of planning; the seconds of a full iteration are "
        "extrapolated from it. The seconds to the first collected step are the start-up time.",
    ),
    "planners": (
        "Planners",
        "Decisions per second of each planner on two tasks, in 2 worker processes. The baseline is "
        "CEM with 1000 candidates.",
    ),
    "sweeps": (
        "Sweeps",
        'Cost of running experiments as a sweep. "scheduling" shows the time of scheduling trials '
        "that do nothing. The other times are of two seeds of one run: started by hand, as trials "
        "of a sequential sweep, and as trials of a parallel sweep. The seconds of a run or trial "
        "are means without start-up. The seconds of a sweep are its total time.",
    ),
}
NAMES = tuple(SECTIONS)  # what `python -m benchmarks` runs
GPU = ("A machine with a GPU", "Tests, agreement with the CPU, and rates on a GPU.")
RATIO = "ratio_to_baseline"
HEAD = (
    "# Benchmarks",
    "",
    "`python -m benchmarks` runs all benchmarks in sequence and writes this file. To run only some",
    "of them, add their names: `python -m benchmarks planning sweeps`. To write this file without",
    "measuring anything, run `python -m benchmarks.report`. The numbers come from the JSON files",
    "in this folder, which also record package versions, commit and machine.",
    "[docs/performance.md](../../docs/performance.md) explains what limits the speed.",
    "",
    "Contenders take turns, each in its own process, so that a slow period of the machine affects",
    'all of them. "here" is this repository. The columns show the median and the quartiles of the',
    "rounds. The ratio to the baseline is the rate of a contender divided by the rate of the",
    "baseline in the same round; the table shows the median ratio. All contenders use the CPU",
    'settings of `tune_cpu`, except in tables with "default torch settings".',
    "",
    "Shapes: N candidates, horizon H, E members, observation dimension O, action dimension A.",
    "2x250 means two hidden layers of 250 units.",
)
TARGETS_INTRODUCTION = (
    '"A vs. B" is the speed of A divided by the speed of B. The last column shows whether the '
    "measured value meets the bound."
)


class Target(NamedTuple):
    """A measured value and the bound that it should meet."""

    what: str
    benchmark: str
    keys: tuple[str, ...]  # keys of the value in the benchmark's JSON file
    bound: float
    over: tuple[str, ...] = ()  # keys of the value to divide by, or none
    at_most: bool = False


TWO_WORKERS = "here, 2 workers"
AUTOGRAD_TABLES = [
    f"{work}, {threads}"
    for work in ("SAC update", "fit, E 3 batch 512 2x250", "fit, E 7 batch 256 4x200")
    for threads in ("1 thread", "2 threads")
]
TARGETS = (
    *(
        Target(f"{name} {what}", "planning", keys, bound, over)
        for strategy, name in (("random", "Random shooting"), ("cem", "CEM 4"))
        for what, keys, bound, over in (
            ("vs. the homework-style loop", (strategy, TWO_WORKERS, RATIO), 2.0, ()),
            (
                "vs. mbrl-lib with the same number of predictions (3 particles)",
                (strategy, TWO_WORKERS, RATIO),
                2.0,
                (strategy, "mbrl-lib CEM, 3 particles", RATIO),
            ),
            (
                "vs. mbrl-lib with a third of the predictions (1 particle)",
                (strategy, TWO_WORKERS, RATIO),
                2.0,
                (strategy, "mbrl-lib CEM, 1 particle", RATIO),
            ),
            (
                "as a share of the sgemm peak",
                (strategy, TWO_WORKERS, "share_of_sgemm_peak"),
                0.65,
                (),
            ),
        )
    ),
    *(
        Target(f"{work}: {name} vs. hand-written gradients", "autograd", (work, how, RATIO), bound)
        for work in AUTOGRAD_TABLES
        for name, how, bound in (
            ("autograd", "autograd", 0.85),
            ("compiled autograd", "autograd, compiled", 1.15 if work.startswith("SAC") else 1.05),
        )
    ),
    Target(
        "One PETS episode: two cores vs. one",
        "planning",
        ("one PETS episode", "here, 2 cores", RATIO),
        1.6,
    ),
    Target(
        "SAC updates, compiled, vs. Stable-Baselines3",
        "sac_updates",
        ("updates", "here, --compile", RATIO),
        2.0,
    ),
    Target(
        "SAC updates, compiled, vs. SBX",
        "sac_updates",
        ("updates", "here, --compile", RATIO),
        1.0,
        ("updates", "SBX (JAX)", RATIO),
    ),
    *(
        Target(f"Fit, {shape}, vs. separate networks", "dynamics_fit", (shape, "here", RATIO), 1.8)
        for shape in ("E 3 batch 512 2x250", "E 7 batch 256 4x200")
    ),
    *(
        Target(
            f"Model rollouts, {how}, vs. one state at a time",
            "model_rollouts",
            ("rollouts", how, RATIO),
            100,
        )
        for how in ("mean, 5000 starts", "random_member, 5000 starts")
    ),
    Target(
        "Q6 rlen10: run time as a share of the homework-style run time",
        "question6",
        ("share_of_homework_style_time",),
        0.25,
        at_most=True,
    ),
    *(
        Target(
            f"{run}: share of the run time spent on log, checkpoint, figures and loop",
            "end_to_end",
            (run, "share_of_log_checkpoint_figures_and_loop"),
            0.05,
            at_most=True,
        )
        for run in ("q3_cheetah", "q5_cheetah_cem_4", "q6_cheetah_rlen10")
    ),
    Target("PILCO: CPU seconds of a policy search", "pilco", ("policy search",), 180, at_most=True),
    Target("PILCO: peak memory in MB", "pilco", ("peak memory in MB",), 1200, at_most=True),
    Target(
        "Start-up until the first collected env step, in seconds",
        "end_to_end",
        ("seconds_to_first_collected_step",),
        5,
        at_most=True,
    ),
    *(
        Target(
            f"iCEM with 100 candidates vs. CEM with 1000, {env.split('-')[0]}",
            "planners",
            (env, "iCEM, 100 candidates", RATIO),
            5,
        )
        for env in ("cheetah-cs285-v0", "reacher-cs285-v0")
    ),
    Target(
        "Time of a sweep trial divided by the time of the same run started by hand, without "
        "start-up",
        "sweeps",
        ("ratios", "trial / manual run, without start-up", "median"),
        1.03,
        at_most=True,
    ),
    Target(
        "Two seeds in parallel vs. in sequence",
        "sweeps",
        ("ratios", "sequential sweep / parallel sweep", "median"),
        1.6,
    ),
)
ON_GPU = ("run time of Q3 cheetah", "SAC updates per second", "total run time of Q1 to Q6")


def main() -> None:
    (RESULTS / "README.md").write_text(text_of(measured()))
    print("written to results/benchmarks/README.md")


def measured() -> dict[str, Any]:
    """Return the saved measurements: benchmark -> content of its JSON file."""
    files = {name: RESULTS / f"{name}.json" for name in (*NAMES, "gpu")}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def text_of(results: dict[str, Any]) -> str:
    """Return the report on the measurements `results` in Markdown."""
    lines = [
        *HEAD,
        "",
        "## Targets",
        "",
        wrapped(TARGETS_INTRODUCTION),
        "",
        "| Target | Bound | Measured | Result |",
        "| --- | --- | --- | --- |",
        *(row(target, results) for target in TARGETS),
        *(f"| On a GPU: {what} | | not measured | |" for what in ON_GPU if "gpu" not in results),
        "",
    ]
    for name, content in results.items():
        heading, introduction = SECTIONS.get(name, GPU)
        lines += [f"## {heading}", "", wrapped(introduction), ""]
        lines += [*tables(content), provenance(content), ""]
    return "\n".join(lines)


def row(target: Target, results: dict[str, Any]) -> str:
    sign = "≤" if target.at_most else "≥"
    try:
        value = find(results[target.benchmark], target.keys)
    except KeyError:  # the file is missing or older than this value
        return f"| {target.what} | {sign} {target.bound:g} | not measured | |"
    if target.over:
        value /= find(results[target.benchmark], target.over)
    is_met = value <= target.bound if target.at_most else value >= target.bound
    verdict = "met" if is_met else "missed"
    return f"| {target.what} | {sign} {target.bound:g} | {value:.4g} | {verdict} |"


def find(content: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        content = content[key]
    return float(content)


def tables(content: dict[str, Any]) -> Iterator[str]:
    """Yield a table per comparison of contenders, and a list or a line for everything else."""
    for section, rows in content.items():
        if section in ("created", "versions", "git", "machine", "command", "load_average_at_end"):
            continue
        if not isinstance(rows, dict):
            yield wrapped(f"{label(section)}: {rows}") + "\n"
        elif all(isinstance(cells, dict) and RATIO in cells for cells in rows.values()):
            columns = list(next(iter(rows.values())))
            yield f"| {section} | {' | '.join(map(label, columns))} |"
            yield "| --- " * (len(columns) + 1) + "|"
            for contender, cells in rows.items():
                figures = [f"{cells[name]:,.6g}" if name in cells else "" for name in columns]
                yield f"| {contender} | {' | '.join(figures)} |"
            yield ""
        else:
            yield f"{label(section)}:\n"
            for name, value in rows.items():
                text = f"{label(name)}: {value}"
                if isinstance(value, dict):
                    entries = ", ".join(f"{label(key)}: {entry}" for key, entry in value.items())
                    text = f"{label(name)} ({entries})"
                yield wrapped(f"- {text}", indent="  ")
            yield ""


def label(name: str) -> str:
    return name if " " in name else name.replace("_", " ")


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def provenance(content: dict[str, Any]) -> str:
    machine, commit = content["machine"], content["git"]["commit"][:7]
    where = f"{machine['cores']} cores of {machine['processor']}, GPU: {machine['gpu'] or 'none'}"
    return wrapped(
        f"Run again: `{content['command']}`. Measured on {content['created'][:10]} at commit "
        f"{commit}, on {where}."
    )


if __name__ == "__main__":
    main()
