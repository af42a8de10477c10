"""Write an HTML report about the dynamics model of a run, which may still be running."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs285.agents.registry import add_current_folder_to_path
from cs285.analysis.rebuild import read_run, rebuild
from cs285.cli.outputs import FILE, writing
from cs285.cli.script import add_trust_flag, run_script
from cs285.config import flags as flag_tools
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.rendering import disable_renderer

SCRIPT = "diagnose.py"
STARTS_AT_MOST, PLANS_AT_MOST = 200, 40  # open-loop predictions per policy; checked plans


@dataclass(frozen=True)
class DiagnosisConfig:
    """the diagnosis"""

    episodes: int = flag_tools.flag(
        2,
        "new episodes to collect with the policy, and again with random actions",
        check=flag_tools.COUNT,
    )
    seed: int = flag_tools.flag(1, "seed of these episodes", check=flag_tools.INDEX)
    horizon: int | None = flag_tools.flag(
        None,
        "horizon of the open-loop predictions, in env steps (default: twice the run's "
        "--mpc_horizon; 50 for MBPO, 20 for PILCO)",
        check=flag_tools.COUNT,
    )
    output: str | None = flag_tools.flag(
        None,
        "HTML report to write; the arrays are written next to it, as .npz (default: "
        "diagnosis.html in LOGDIR)",
        check=flag_tools.Check(lambda value: value.endswith(".html"), "a path that ends in .html"),
    )


@dataclass(frozen=True)
class Options:
    """All flags of the script."""

    diagnosis: DiagnosisConfig


def diagnose(folder: Path, options: DiagnosisConfig, trusted: bool = False) -> None:
    """Write the report and the arrays for the run in `folder`, and print a summary.

    No other file in the folder changes. Raises UsageError: the folder has no run with a model, it
    needs to be `trusted`, or the output is not writable.
    """
    _, config = read_run(folder, trusted)
    if flag_tools.to_flat(config).get("num_agent_train_steps_per_iter") == 0:
        raise UsageError(
            f"LOGDIR {folder}: its run has no model; must be the log folder of a run with "
            "--num_agent_train_steps_per_iter 1 or more"
        )
    report = Path(options.output or folder / "diagnosis.html")
    if not (report.parent.is_dir() and os.access(report.parent, os.W_OK)):
        raise UsageError(f"--output {report}: must be a file in a writable folder")
    if report.is_symlink() or report.with_suffix(".npz").is_symlink():
        raise UsageError(f"--output {report}: must not be a link, nor its .npz file")
    users_renderer = disable_renderer()
    from cs285.analysis.diagnosis import html_report
    from cs285.analysis.diagnosis.figures import picture_of
    from cs285.envs.env_watch import THIS_PROCESS
    from cs285.policies.base_policy import is_planner

    run = rebuild(folder, trusted=trusted)
    env_name, counters = run.config.run.env_name, run.counters
    subject = run.agent.diagnosed()
    if subject is None:
        raise UsageError(f"LOGDIR {folder}: must be the log folder of a run with a dynamics model")
    if subject.model.has_memory:
        raise UsageError(
            f"LOGDIR {folder}: its model has memory, which is not supported yet; must be the log "
            "folder of a run with a model without memory"
        )
    with THIS_PROCESS.watched(run.config.run.env_timeout):
        found = measure(subject, run.task, run.env, options)
    facts = [
        ("task", env_name),
        ("run", f"{counters['next_iteration']} iterations, {counters['env_steps']} env steps"),
        *html_report.facts(found),
    ]
    picture = picture_of(run.config.run.task, users_renderer, subject.model, found)
    sections = html_report.sections(found, is_planner(subject.policy), picture)
    title = f"Diagnosis of {folder.resolve().name}"
    page = html_report.page(title, facts, sections, flag_tools.to_flat(run.config))
    for file, content in ((report, page.encode()), (report.with_suffix(".npz"), found.npz())):
        with writing(f"--output {file}", FILE):
            file.write_bytes(content)
    lines = [f"{name}: {value}" for name, value in facts]
    lines += [note for section in sections for note in section.notes]
    print("\n".join([*lines, f"report: {report}"]))


def measure(subject: Any, task: Any, env: Any, options: DiagnosisConfig) -> Any:
    """Collect episodes in `env`, and return the Findings about `subject` (a Diagnosed)."""
    from cs285.analysis.diagnosis.model_error import open_loop_errors
    from cs285.analysis.diagnosis.plan_check import Findings, check_plans, plans_of
    from cs285.collection.episodes import EpisodeKey
    from cs285.envs.checked_env import close_env
    from cs285.policies.base_policy import RandomPolicy

    keys = [EpisodeKey(options.seed, "diagnose", 0, number) for number in range(options.episodes)]
    policy, make_plans = plans_of(subject, options.seed)
    policies = {"policy": policy, "random actions": RandomPolicy(task.ac_low, task.ac_high)}
    paths = {name: _collect(name, policy, env, keys) for name, policy in policies.items()}
    horizon = options.horizon or subject.error_horizon
    loops = {}
    for name, each in paths.items():
        stride = -(-sum(path.length for path in each) // STARTS_AT_MOST)
        loops[name] = open_loop_errors(subject.model, each, horizon, stride)
    check = check_plans(make_plans, subject.plan_horizon, env, keys, paths["policy"], PLANS_AT_MOST)
    close_env(env)
    return Findings(paths, loops, check, horizon, subject.plan_horizon)


def _collect(name: str, policy: Any, env: Any, keys: Sequence[Any]) -> list[Any]:
    """Return the paths of episodes that run one after another.

    No episode then depends on the number of episodes.
    """
    from cs285.collection.episodes import run_episodes
    from cs285.infrastructure.recording.progress import CollectionProgress

    paths: list[Any] = []
    taken = itertools.count(1)
    with CollectionProgress(f"collecting, {name}", len(keys) * env.spec.max_episode_steps) as show:
        for key in keys:
            paths += run_episodes([env], policy, [key], lambda _: show(next(taken)))
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    add_current_folder_to_path()
    parser = flag_tools.OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", metavar="LOGDIR", type=Path, help="log folder of the run")
    add_trust_flag(parser)
    flag_tools.add_flags(parser, Options)
    values = flag_tools.parse_values(parser, argv)
    folder, trusted = values.pop("folder"), values.pop("trust", False)
    diagnose(folder, flag_tools.from_flat(Options, values).diagnosis, trusted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
