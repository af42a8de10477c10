"""Write results/benchmarks/README.md: the targets, and what was measured, from the JSON files.

python -m benchmarks.report
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.timing import RESULTS

NAMES = (
    "autograd",
    "planning",
    "sac_updates",
    "dynamics_fit",
    "model_rollouts",
    "replay",
    "question6",
    "growth",
    "profile",
    "end_to_end",
    "planners",
    "sweeps",
)
RATIO = "ratio_to_baseline"


class Target(NamedTuple):
    """One figure that is to be at least, or at most, so much."""

    what: str
    benchmark: str
    keys: tuple[str, ...]  # where the figure stands in the benchmark's JSON
    bound: float
    over: tuple[str, ...] = ()  # where the figure that it is divided by stands
    at_most: bool = False


TWO = "here, 2 workers"
AUTOGRAD_WORKS = [
    f"{work}, {threads} threads"
    for work in ("SAC update", "fit, E 3 batch 512 2x250", "fit, E 7 batch 256 4x200")
    for threads in (1, 2)
]
TARGETS = (
    *(
        Target(f"{name}, {what}", "planning", keys, bound, over)
        for strategy, name in (("random", "Random shooting"), ("cem", "CEM 4"))
        for what, keys, bound, over in (
            ("against the homework-style loop", (strategy, TWO, RATIO), 2.0, ()),
            (
                "against mbrl-lib with as many predictions (3 particles)",
                (strategy, TWO, RATIO),
                2.0,
                (strategy, "mbrl-lib CEM, 3 particles", RATIO),
            ),
            (
                "against mbrl-lib with a third of the predictions (1 particle)",
                (strategy, TWO, RATIO),
                2.0,
                (strategy, "mbrl-lib CEM, 1 particle", RATIO),
            ),
            ("share of the sgemm peak", (strategy, TWO, "share_of_sgemm_peak"), 0.65, ()),
        )
    ),
    *(
        Target(
            f"{work}, {how}, against gradients written out", "autograd", (work, how, RATIO), bound
        )
        for work in AUTOGRAD_WORKS
        for how, bound in (
            ("autograd", 0.85),
            ("autograd, compiled", 1.15 if work.startswith("SAC") else 1.05),
        )
    ),
    Target(
        "One PETS episode on two cores, against one",
        "planning",
        ("one PETS episode", "here, 2 cores", RATIO),
        1.6,
    ),
    Target(
        "SAC updates, compiled, against Stable-Baselines3",
        "sac_updates",
        ("updates", "here, --compile", RATIO),
        2.0,
    ),
    Target(
        "SAC updates, compiled, against SBX",
        "sac_updates",
        ("updates", "here, --compile", RATIO),
        1.0,
        ("updates", "SBX (JAX)", RATIO),
    ),
    *(
        Target(
            f"Fit, {shape}, against separate networks", "dynamics_fit", (shape, "here", RATIO), 1.8
        )
        for shape in ("E 3 batch 512 2x250", "E 7 batch 256 4x200")
    ),
    *(
        Target(
            f"Model rollouts, {how}, against one state at a time",
            "model_rollouts",
            ("rollouts", how, RATIO),
            100,
        )
        for how in ("mean, 5000 starts", "random_member, 5000 starts")
    ),
    Target(
        "Q6 rlen10 whole, share of the homework-style loop's time",
        "question6",
        ("share_of_homework_style_time",),
        0.25,
        at_most=True,
    ),
    *(
        Target(
            f"{run}: log, checkpoint, figures and loop, share of the run",
            "end_to_end",
            (run, "share_of_log_checkpoint_figures_and_loop"),
            0.05,
            at_most=True,
        )
        for run in ("q3_cheetah", "q5_cheetah_cem_4", "q6_cheetah_rlen10")
    ),
    Target(
        "Start-up to the first collected env step, seconds",
        "end_to_end",
        ("seconds_to_first_collected_step",),
        5,
        at_most=True,
    ),
    *(
        Target(
            f"iCEM with 100 candidates, against CEM with 1000, {env.split('-')[0]}",
            "planners",
            (env, "iCEM, 100 candidates", RATIO),
            5,
        )
        for env in ("cheetah-cs285-v0", "reacher-cs285-v0")
    ),
    Target(
        "A trial of a sweep, against the run by hand, after start-up",
        "sweeps",
        ("ratios", "a trial against the run by hand, after start-up", "median"),
        1.03,
        at_most=True,
    ),
    Target(
        "Two seeds side by side, against one after the other",
        "sweeps",
        ("ratios", "one after the other against side by side", "median"),
        1.6,
    ),
)
ON_GPU = ("Q3 cheetah whole", "SAC updates per second", "the time for all of Q1 to Q6")


def main() -> None:
    (RESULTS / "README.md").write_text(text_of(measured()))
    print("written to results/benchmarks/README.md")


def measured() -> dict[str, Any]:
    """Return what was measured, by benchmark."""
    files = {name: RESULTS / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def text_of(results: dict[str, Any]) -> str:
    """Return the report on these benchmarks' contents."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`, which runs them one after the other; numbers are read",
        "from the JSON files beside this one, which have shapes, versions, commit and machine.",
        "Contenders take turns in one process tree, each in a process of its own; figures are",
        "medians of rounds, ratios medians of the ratios of each round. What bounds each:",
        "docs/performance.md.",
        "",
        "| Target | wanted | measured | |",
        "| --- | --- | --- | --- |",
        *(row(target, results) for target in TARGETS),
        *(f"| On a GPU: {what} | | not measured | |" for what in ON_GPU),
        "",
    ]
    for name, content in results.items():
        lines += [f"## {name}", "", *tables(content), provenance(content), ""]
    return "\n".join(lines)


def row(target: Target, results: dict[str, Any]) -> str:
    sign = "≤" if target.at_most else "≥"
    try:
        value = find(results[target.benchmark], target.keys)
    except KeyError:  # an older file, or none
        return f"| {target.what} | {sign} {target.bound:g} | not measured | |"
    if target.over:
        value /= find(results[target.benchmark], target.over)
    is_met = value <= target.bound if target.at_most else value >= target.bound
    verdict = "met" if is_met else "missed"
    return f"| {target.what} | {sign} {target.bound:g} | {value:.3g} | {verdict} |"


def find(content: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        content = content[key]
    return float(content)


def tables(content: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each section of contenders, and a line for each other entry."""
    for section, rows in content.items():
        if section in ("created", "versions", "git", "machine", "command", "load_average_at_end"):
            continue
        if not isinstance(rows, dict):
            yield f"{section.replace('_', ' ')}: {rows}\n"
        elif all(isinstance(cells, dict) and RATIO in cells for cells in rows.values()):
            columns = list(next(iter(rows.values())))
            yield f"| {section} | {' | '.join(name.replace('_', ' ') for name in columns)} |"
            yield "| --- " * (len(columns) + 1) + "|"
            for contender, cells in rows.items():
                figures = [f"{cells[name]:,.6g}" if name in cells else "" for name in columns]
                yield f"| {contender} | {' | '.join(figures)} |"
            yield ""
        else:
            yield f"{section.replace('_', ' ')}:\n"
            for name, value in rows.items():
                text = value
                if isinstance(value, dict):
                    text = ", ".join(f"{key}: {entry}" for key, entry in value.items())
                yield f"- {name.replace('_', ' ')}: {text}"
            yield ""


def provenance(content: dict[str, Any]) -> str:
    machine, commit = content["machine"], content["git"]["commit"][:7]
    where = f"{machine['cores']} cores of {machine['processor']}, GPU: {machine['gpu'] or 'none'}"
    return f"`{content['command']}`, {content['created'][:10]}, commit {commit}, {where}"


if __name__ == "__main__":
    main()
