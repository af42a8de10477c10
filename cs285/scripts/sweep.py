"""Run many trials of one agent: a grid of flag values, or a search over ranges.

Each flag of the agent takes a single value, or VALUE,VALUE,... for a grid. With --search a flag
also takes a range, LOW:HIGH or LOW:HIGH:log. Each trial is an ordinary run. Its log folder is in
the folder of the sweep.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cs285.agents.registry import AGENTS, add_current_folder_to_path, find_agent
from cs285.cli.outputs import FOLDER, writing
from cs285.cli.script import add_trust_flag, run_script
from cs285.config.flags import ABSENT, COUNT, INDEX, Check, OneLineParser
from cs285.config.run import NAME
from cs285.experiments.job import FAILED, words_of
from cs285.experiments.launchers import check_address, open_launcher
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.trials import (
    Trials,
    is_finished,
    known_trials,
    share_of,
    start_search,
)
from cs285.experiments.sweeps.values import Choice, parse, varied_fields
from cs285.infrastructure.errors import InterruptedRunError, UsageError, one_line, printable
from cs285.infrastructure.lock import lock_folder
from cs285.infrastructure.run_folder import MODULE_FLAGS, default_data_dir

SCRIPT = "sweep.py"
OWN = ("exp_name", "data_dir", "num_workers")  # flags of a run that cannot be varied

SHARE = Check(
    lambda value: 0 <= value <= 1 or (value > 1 and float(value).is_integer()),
    "a share from 0 to 1, or an integer",
)


class SweepArguments(NamedTuple):
    """Where trials run, and the cores and GPUs of each trial."""

    address: str | None  # address of a cluster; None: this machine
    jobs: int | None  # maximum number of trials in parallel
    cpus: int
    gpus: float | None  # None: one GPU if there are GPUs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code: 0, 1 (a trial failed), 2 (bad input) or 130."""
    return run_script(SCRIPT, run_or_resume, argv)


def run_or_resume(argv: Sequence[str]) -> int:
    """Run or resume a sweep, or print its commands. Return 1 if a trial failed, else 0.

    Raises UsageError: bad input. Raises InterruptedRunError: Ctrl-C or SIGTERM.
    """
    add_current_folder_to_path()
    given = vars(_parser(_script_in(argv)).parse_args(argv))
    asked = SweepArguments(
        given.get("address"),
        _checked(given, "jobs"),
        _checked(given, "cpus_per_trial") or 1,
        _checked(given, "gpus_per_trial", SHARE),
    )
    if "num_workers" in given:
        raise UsageError("--num_workers: must be left out; use --cpus_per_trial in a sweep")
    resumed = given.get("resume")
    if resumed is None:
        if "trust" in given:
            raise UsageError("--trust: must be given together with --resume")
        sweep = _sweep_of(given)
        sweep.check()
        _check_tasks(sweep)
    else:
        sweep = _resumed(resumed, given)
        _check_repeated(resumed, sweep, given)
    if given.get("dry_run"):
        return _print_commands(sweep)
    start_search(sweep)  # raises an error before anything is written if Optuna is missing
    check_address(asked.address)
    return _run(sweep, asked, resumed, given["data_dir"])


def _run(sweep: Sweep, asked: SweepArguments, resumed: Path | None, data_dir: Path) -> int:
    if resumed is not None and is_finished(sweep, known_trials(sweep, resumed)):
        print(f"{resumed} is finished")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_launcher(asked.address, end_with_parent=True) as launcher:
        share = share_of(sweep, launcher, asked.cpus, asked.gpus)
        folder = (resumed or sweep_folder.create(sweep, data_dir, SCRIPT)).absolute()
        with lock_folder(folder):
            print(f"sweep in {folder}", flush=True)
            trials = Trials(sweep, folder)
            needs_trust = ":" in sweep.script or bool(sweep_folder.modules_of(sweep.choices))
            hint = f"continue with --resume {folder}{' --trust' * needs_trust}"
            try:
                with writing(f"--data_dir {folder}", f"{FOLDER}; {hint}"):
                    trials.run(launcher, share, asked.jobs)
            except KeyboardInterrupt as error:
                raise InterruptedRunError(f"interrupted; {hint}") from error
    failed = [job for job in trials.jobs if job.state == FAILED]
    for job in failed:
        why = one_line(job.error)
        print(f"{SCRIPT}: {job.name} failed: {why} (see {job.name}.log)", file=sys.stderr)
    if trials.is_exhausted:
        print(f"ran {len(trials.jobs)} of {sweep.size} trials: the search found no further values")
    return 1 if failed else 0


def _sweep_of(given: dict[str, Any]) -> Sweep:
    """Return the sweep that the flags describe. Raises UsageError: a flag is invalid."""
    own = {name: given[name] for name in ("sampler", "metric", "mode", "asha") if name in given}
    search, seed = _checked(given, "search"), _checked(given, "sampler_seed", INDEX)
    for name in ("sampler", "sampler_seed"):
        if search is None and name in given:
            raise UsageError(f"--{name} {given[name]}: must be given together with --search")
    return Sweep(
        given.get("exp_name", "todo"),
        given["script"],
        _choices(given["script"], given),
        search=search or 0,
        sampler_seed=1 if seed is None else seed,
        **own,
    )


def _choices(script: str, given: dict[str, Any]) -> dict[str, Choice]:
    """Return the values of the agent's flags. Raises UsageError: a value is invalid."""
    fields = varied_fields(find_agent(script).config_class)
    names = [name for name in given if name in fields and name not in OWN]
    return {name: parse(*fields[name], given[name]) for name in names}


def _check_repeated(folder: Path, sweep: Sweep, given: dict[str, Any]) -> None:
    """Raise UsageError if a flag given with --resume differs from the sweep in `folder`."""
    own = {**vars(sweep), "exp_name": sweep.name}  # fields that have the names of flags
    for name in own:
        if name in given:
            sweep_folder.check_same(folder, name, own[name], given[name])
    for name, choice in _choices(sweep.script, given).items():
        sweep_folder.check_same(folder, name, sweep.choices.get(name), choice)


def _check_tasks(sweep: Sweep) -> None:
    """Raise UsageError if --env_name is missing, or one of the tasks cannot be run."""
    from cs285.envs import inspect_task

    found = [sweep.job(values).settings for values in sweep.values()]
    names = ("env_name", "env_kwargs", "env_wrappers")
    flags = [  # an agent without a model lacks the last two
        (
            tuple(one[name] for name in names),
            one.get("learned_reward", False),
            one.get("termination"),
        )
        for one in found
    ]
    for task, learned_reward, termination in dict.fromkeys(flags):
        inspect_task(task, learned_reward=learned_reward, termination=termination)


def _print_commands(sweep: Sweep) -> int:
    if sweep.is_adaptive:
        print(f"# {sweep.search} trials whose values depend on the results of earlier trials")
        return 0
    for values in sweep.values():
        words = words_of({**sweep.fixed, **values, "exp_name": sweep.name_of(values)})
        print(printable(shlex.join([*find_agent(sweep.script).words, *words])))
    return 0


def _resumed(folder: Path, given: dict[str, Any]) -> Sweep:
    """Return the sweep in `folder`. The modules in the `given` flags need no trust."""
    words = [given.get("script", "")]
    words += [given.get(name, "") for name in MODULE_FLAGS]
    named = {word for value in words for word in re.split("[, ;]", value)}
    return sweep_folder.read(folder, "trust" in given, named)


def _script_in(argv: Sequence[str]) -> str:
    """Return the agent that a command line names. Raises UsageError: no or an unknown agent."""
    parser = OneLineParser(prog=SCRIPT, add_help=False)
    parser.add_argument("--script", default=ABSENT)
    parser.add_argument("--resume", type=Path, default=ABSENT)
    for name in MODULE_FLAGS:
        parser.add_argument(f"--{name}", default="")
    add_trust_flag(parser)
    found = vars(parser.parse_known_args(argv)[0])
    if "resume" in found:
        return _resumed(found["resume"], found).script
    script = found.get("script", "mb" if {"-h", "--help"} & set(argv) else None)
    if script is None:
        raise UsageError(f"--script: must be {', '.join(AGENTS)} or MODULE:NAME")
    try:
        find_agent(script)
    except UsageError as error:
        raise UsageError(f"--script {str(error).removeprefix('agent ')}") from error
    return str(script)


def _parser(script: str) -> OneLineParser:
    parser = OneLineParser(prog=SCRIPT, description=__doc__, argument_default=ABSENT)
    add = parser.add_argument_group("the sweep").add_argument
    whole: dict[str, Any] = {"type": int, "metavar": "N"}
    add("--script", metavar="NAME", help=f"the agent: {', '.join(AGENTS)}, or MODULE:NAME for "
        "your own agent")  # fmt: skip
    add("--exp_name", metavar="NAME", type=_name, help="name of the sweep and prefix of the names "
        "of its trials (default: todo)")  # fmt: skip
    add("--search", **whole, help="run N trials with values drawn from lists and ranges")
    add("--sampler", choices=("random", "optuna"), help="how to draw the values (default: random; "
        "optuna needs pip install -e '.[search]')")  # fmt: skip
    add("--sampler_seed", **whole, help="seed of the sampler (default: 1)")
    add("--metric", metavar="NAME", help="column to compare trials by (default: "
        "Eval_AverageReturn)")  # fmt: skip
    add("--mode", choices=("max", "min"), help="maximise or minimise the metric (default: max)")
    add("--asha", action="store_true", help="stop unpromising trials early: after a ninth and a "
        "third of the iterations only the best third continues (needs pip install -e "
        "'.[search]')")  # fmt: skip
    add("--resume", type=Path, metavar="SWEEP", help="continue the sweep in this folder")
    add("--data_dir", type=Path, default=default_data_dir(), help="parent of the sweep's folder "
        "(default: cs285/data)")  # fmt: skip
    add_trust_flag(parser)
    add("--dry_run", action="store_true", help="print the commands of the trials and exit")
    add("--jobs", **whole, help="maximum number of trials in parallel (default: as many as fit on "
        "the cores and GPUs)")  # fmt: skip
    add("--cpus_per_trial", **whole, help="cores and threads per trial (default: 1)")
    add("--gpus_per_trial", type=float, metavar="SHARE", help="GPUs per trial; with 0.5 two trials "
        "share a GPU (default: 1 if there are GPUs)")  # fmt: skip
    add("--address", help="run on a Ray cluster: auto, or HOST:PORT (docs/cluster.md)")
    parser.add_argument("--num_workers", help=ABSENT)
    section = parser.add_argument_group(f"flags of {find_agent(script).script} (see its --help)")
    for name, (field, kind) in varied_fields(find_agent(script).config_class).items():
        if name not in OWN:
            words: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
            aliases = field.metadata["aliases"]
            section.add_argument(f"--{name}", *aliases, metavar="VALUES", dest=name, **words)
    return parser


def _name(text: str) -> str:
    if not NAME.holds(text):
        raise UsageError(f"--exp_name {text}: must be {NAME.must_be}")
    return text


def _checked(given: dict[str, Any], name: str, check: Check = COUNT) -> Any:
    """Return the value of a flag, or None if it was not given. Raises UsageError: it is invalid."""
    if name in given and not check.holds(given[name]):
        raise UsageError(f"--{name} {given[name]}: must be {check.must_be}")
    return given.get(name)


if __name__ == "__main__":
    sys.exit(main())
