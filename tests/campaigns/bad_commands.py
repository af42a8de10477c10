"""Run every script with bad commands and damaged files: `python -m tests.campaigns.bad_commands`.

Each case must end with its exit code, one line on stderr that begins with the script's name, no
traceback, and unchanged files. `--times N` adds N - 1 rounds of other random damage to the files.
The exit code is 1 if a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cs285.config.flags import groups, typed_fields
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.definition import Sweep
from cs285.infrastructure.run_folder import config_text
from cs285.scripts import (
    diagnose,
    evaluate,
    export_run,
    filter_events,
    grade,
    make_autograder,
    make_starter,
    make_submission,
    plot_results,
    read_results,
    reproduce,
    run_hw4_mb,
    run_hw4_mbpo,
    sweep,
)
from results import make_report
from tests.conftest import TINY, arguments, exit_code_of

SECONDS = 60  # for one case; a reader that blocks takes longer
RUN, SWEEP, LIST, EXPORT = "run", "sweep", "list.toml", "results/q3/q3_obstacles_seed1"
SUBMISSION = "data/hw4_q1_cheetah_cheetah-cs285-v0_24-11-2026_21-59-31"
EVENTS = "events.out.tfevents.1.cs285"
ESCAPE = "\x1b[31mred"
HUGE = "9" * 5000
ENTRY = "[[experiment]]\nname = 'q3_a'\nscript = 'mb'\nflags = '--env_name obstacles-cs285-v0'\n"
EVIL = "from pathlib import Path\nPath('ran').write_text('')\n"
Damage = Callable[[Path], None]


class Case(NamedTuple):
    """A command line, and the damage to the files that it reads."""

    main: Callable[..., int]
    words: str  # separated by spaces; ~ stands for a space inside a word
    damage: Damage = lambda world: None
    must_say: str = ""  # part of the error
    codes: tuple[int, ...] = (2,)
    may_change: bool = False  # the run made progress before the error

    @property
    def name(self) -> str:
        return f"{self.main.__module__.rsplit('.', 1)[-1]} {self.words[:80]!r} {self.must_say!r}"


# Damage to the files of a world.


def write(file: str, text: str | bytes) -> Damage:
    def damage(world: Path) -> None:
        (world / file).parent.mkdir(parents=True, exist_ok=True)
        remove(file)(world)
        (world / file).write_bytes(text.encode() if isinstance(text, str) else text)

    return damage


def remove(file: str) -> Damage:
    def damage(world: Path) -> None:
        path = world / file
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return damage


def cut(file: str, share: float = 0.5) -> Damage:
    def damage(world: Path) -> None:
        content = (world / file).read_bytes()
        (world / file).write_bytes(content[: int(share * len(content))])

    return damage


def put(file: str, make: Callable[[Path], Any]) -> Damage:
    """Replace a file by what `make` creates at its path."""

    def damage(world: Path) -> None:
        remove(file)(world)
        make(world / file)

    return damage


def as_folder(file: str) -> Damage:
    return put(file, Path.mkdir)


def as_fifo(file: str) -> Damage:
    return put(file, os.mkfifo)


def as_loop(file: str) -> Damage:
    return put(file, lambda path: path.symlink_to(path))


def as_link(file: str, target: str) -> Damage:
    return put(file, lambda path: path.symlink_to(target))


def as_sparse(file: str, size: int) -> Damage:
    """Make the file huge; it takes no space on the disk."""

    def damage(world: Path) -> None:
        with (world / file).open("ab") as stream:
            stream.truncate(size)

    return damage


def edit(file: str, *keys: str, value: Any) -> Damage:
    """Set a value in a JSON file."""

    def damage(world: Path) -> None:
        content = table = json.loads((world / file).read_text())
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        signed = file.endswith("config.json")  # otherwise the checksum is the error
        (world / file).write_text(config_text(content) if signed else json.dumps(content))

    return damage


def both(*damages: Damage) -> Damage:
    def damage(world: Path) -> None:
        for each in damages:
            each(world)

    return damage


def deep(levels: int) -> Any:
    content: Any = 1
    for _ in range(levels):
        content = [content]
    return content


# The table of cases.


def flag_cases() -> Iterator[Case]:
    """Yield two bad values of each flag of both agents."""
    bad = {int: ("1.5", HUGE), float: ("nan", "x"), str: (ESCAPE, "")}
    for script, config_class in ((run_hw4_mb, MBConfig), (run_hw4_mbpo, MBPOConfig)):
        for group in groups(config_class).values():
            for field, kind in typed_fields(group):
                for value in bad.get(kind, ()):
                    if kind is not str or not field.metadata["check"].holds(value):
                        yield Case(script.main, f"--{field.name}={value}", must_say=field.name)


def command_cases() -> Iterator[Case]:
    """Yield bad command lines that need no damaged file."""
    env = "--env_name obstacles-cs285-v0"
    for script in (run_hw4_mb, run_hw4_mbpo):
        for words, must_say in (
            ("", "--env_name"), ("--env_name", "--env_name: must have a value"),
            ("--env_name NoSuchTask-v0", "NoSuchTask-v0"), ("--env_name a:b:c", "a:b:c"),
            ("--env_name no.such.module:Task-v0", "no.such.module"), ("--env_name :", "--env_name"),
            (f"--env_name {ESCAPE}", r"\x1b[31mred"), ("--env_name CartPole-v1", "CartPole-v1"),
            ("stray", "stray"), ("--no-such", "--no-such"), (f"--{ESCAPE}", r"\x1b[31mred"),
            (f"{env} --preset x", "--preset x"), ("--preset", "--preset: must have a value"),
            (f"{env} --exp_name ../up", "--exp_name ../up"),
            (f"{env} --checkpoint last", "--resume"),
            (f"{env} --data_dir list.toml", "--data_dir list.toml"),
            (f"{env} --data_dir {'x' * 5000}", "--data_dir"), (f"{env} --seed -1", "--seed -1"),
            ("--resume", "--resume: must have a value"), ("--resume nowhere", "nowhere"),
            ("--resume list.toml", "list.toml"), (f"--resume {'x' * 5000}", "--resume"),
            ("--resume run --size 3", ""), ("--resume run --preset sharp", "--preset"),
            ("--resume run --checkpoint first", "--checkpoint first"), ("--resume empty", "config"),
            (f"{env} --trust", "--trust"),
        ):  # fmt: skip
            yield Case(script.main, words, as_folder("empty"), must_say)
    for script in (evaluate, diagnose):
        for words, must_say in (
            ("", "LOGDIR"), ("nowhere", "nowhere"), ("list.toml", "list.toml"), ("empty", "config"),
            ("run --episodes 0", "--episodes 0"), ("run --episodes nan", "--episodes nan"),
            (f"run --episodes {HUGE}", "--episodes"), ("run --seed -1", "--seed -1"),
            ("run --seed 1.5", "--seed 1.5"), (f"{'x' * 5000}", "LOGDIR"), (f"{ESCAPE}", r"\x1b"),
            ("run run2", "run2"), ("run --episodes", "--episodes: must have a value"),
        ):  # fmt: skip
            yield Case(script.main, words, as_folder("empty"), must_say)
    for script, words, must_say in (
        (evaluate, "run --episodes 99999999", "--episodes 99999999"),
        (evaluate, "run --policy best", "--policy best"), (evaluate, "run --csv run", "--csv run"),
        (evaluate, "run --policy policy", "--policy policy"),
        (evaluate, "run --csv nowhere/x.csv", "--csv nowhere/x.csv"),
        (evaluate, "run --num_workers 0", "--num_workers 0"),
        (diagnose, "run --horizon 0", "--horizon 0"), (diagnose, "run --output x.pdf", "--output"),
        (diagnose, "run --output nowhere/x.html", "--output nowhere/x.html"),
        (export_run, "", "LOGDIR"), (export_run, "run", "TARGET"), (export_run, "nowhere x", "now"),
        (export_run, "run list.toml/x", "TARGET"), (export_run, "empty x", "empty"),
        (export_run, "run x --eval_episodes -1", "--eval_episodes -1"),
        (export_run, "run x --agent list.toml", "--agent list.toml"),
        (export_run, f"run x --eval_episodes {HUGE}", "--eval_episodes"),
        (reproduce, "--questions q9", "--questions q9"), (reproduce, "--names q3", "--names q3"),
        (reproduce, "--seeds x", "--seeds x"), (reproduce, f"--seeds {HUGE}", "--seeds"),
        (reproduce, "--jobs 0", "--jobs 0"), (reproduce, f"--jobs {HUGE}", "--jobs"),
        (reproduce, "--experiments nowhere.toml", "nowhere.toml"),
        (reproduce, "--experiments run", "--experiments run"),
        (reproduce, f"--experiments {'x' * 5000}", "--experiments"),
        (reproduce, "--data_dir list.toml --names q3_obstacles", "--data_dir"),
        (reproduce, "--export_to list.toml --names q3_obstacles", "--export_to list.toml"),
        (reproduce, f"--dry_run --seeds {' '.join(map(str, range(500)))}", "runs: must be at most"),
        (reproduce, f"--questions {ESCAPE}", r"\x1b[31mred"),
        (sweep, "", "--script"), (sweep, "--script mc", "--script mc"),
        (sweep, "--script :", "--script :"), (sweep, "--script .:mb", "--script .:mb"),
        (sweep, f"--script {ESCAPE}", r"\x1b[31mred"), (sweep, "--script no.mod:mb", "no.mod"),
        (sweep, "--script mb", "--env_name"), (sweep, f"--script mb {env} --size 16,x", "--size x"),
        (sweep, f"--script mb {env} --size 16,16", "--size 16,16"),
        (sweep, f"--script mb {env} --size ,", "--size"),
        (sweep, f"--script mb {env} --size 8:16", "--size"),
        (sweep, f"--script mb {env} --size 8:16:32:64 --search 2", "--size"),
        (sweep, f"--script mb {env} --size 16:8 --search 2", "--size 16:8"),
        (sweep, f"--script mb {env} --learning_rate nan,1 --search 2", "--learning_rate nan"),
        (sweep, f"--script mb {env} --learning_rate 1e-3:inf --search 2", "--learning_rate"),
        (sweep, f"--script mb {env} --search 3", "--search 3"),
        (sweep, f"--script mb {env} --size 1:{10**9} --search {10**7}", f"--search {10**7}"),
        (sweep, f"--script mb {env} --size 1:{10**9} --search {HUGE}", "--search"),
        (sweep, f"--script mb {env} --size {_numbers(15000)}", "--size"),
        (sweep, f"--script mb {env} --size {_numbers(15000)},1", "--size"),
        (sweep, f"--script mb {env} --size {_numbers(2000)} --seed {_numbers(2000)}", "--s"),
        (sweep, f"--script mb {env} --size {_numbers(2000)} --seed {_numbers(2000)} --search 2 "
         "--sampler optuna", "--s"),
        (sweep, f"--script mb {env} --sampler optuna", "--sampler optuna"),
        (sweep, f"--script mb {env} --sampler best --search 2", "--sampler best"),
        (sweep, f"--script mb {env} --mode up", "--mode up"),
        (sweep, f"--script mb {env} --exp_name ../up", "--exp_name ../up"),
        (sweep, f"--script mb {env} --jobs -1", "--jobs -1"),
        (sweep, f"--script mb {env} --gpus_per_trial nan", "--gpus_per_trial nan"),
        (sweep, f"--script mb {env} --cpus_per_trial 100000", "--cpus_per_trial 100000"),
        (sweep, f"--script mb {env} --data_dir list.toml", "--data_dir list.toml"),
        (sweep, f"--script mb {env} --num_workers 2", "--num_workers"),
        (sweep, "--resume nowhere", "nowhere"), (sweep, "--resume run", "--resume run"),
        (sweep, "--resume sweep --size 3", "--size 3"), (sweep, "--resume list.toml", "list.toml"),
        (sweep, "--resume sweep --script mbpo", "mbpo"),
        (sweep, f"--script mb {env} --trust", "--trust"),
        (read_results, "", "PATH"), (read_results, "nowhere", "nowhere"),
        (read_results, "empty", "empty"), (read_results, "list.toml", "list.toml"),
        (read_results, "run --columns x", "--columns x"),
        (read_results, f"run --columns {ESCAPE}", r"\x1b[31mred"),
        (read_results, "x" * 5000, "File name too long"),
        (plot_results, "", "PATH"), (plot_results, "nowhere", "nowhere"),
        (plot_results, "run --y x", "--y x"), (plot_results, "run --x x", "--x x"),
        (plot_results, "run --smooth 0", "--smooth 0"),
        (plot_results, "run --match (", "--match ("), (plot_results, "run --match z", "--match"),
        (plot_results, f"run --smooth {HUGE}", "--smooth"),
        (plot_results, "run --output x.txt", "--output x.txt"),
        (plot_results, "run --output list.toml/x.png", "--output"),
        (plot_results, f"run --output {'x' * 5000}.png", "--output"),
        (filter_events, "", "SOURCE"), (filter_events, "run", "--output"),
        (filter_events, "nowhere --in_place", "nowhere"),
        (filter_events, "empty --in_place", "empty"),
        (filter_events, "list.toml --in_place", "list.toml"),
        (filter_events, "run --output run/copy", "--output run/copy"),
        (filter_events, "run --output list.toml", "--output list.toml"),
        (filter_events, "run --output list.toml/x", "--output list.toml/x"),
        (filter_events, "run data --output x", "SOURCE data"),
        (filter_events, f"{'x' * 5000} --in_place", "File name too long"),
        (make_submission, "--data_dir nowhere", "--data_dir nowhere"),
        (make_submission, "--data_dir empty", "--data_dir empty"),
        (make_submission, "--data_dir data --runs x", "--runs x"),
        (make_submission, "--data_dir data --questions q9", "--questions q9"),
        (make_submission, "--data_dir data --limit_mb nan", "--limit_mb nan"),
        (make_submission, "--data_dir data --limit_mb 1e-6", "--limit_mb 1e-06"),
        (make_submission, "--data_dir data --output list.toml", "--output list.toml"),
        (make_submission, "--data_dir data --output nowhere/x", "--output nowhere/x"),
        (make_submission, "--data_dir data --output run", "--output run"),
        (grade, "q9", "q9"),
        (grade, "q1 --hint 3", "--hint"),
        (grade, "--results x", "--results x"),
        (grade, "--submission nowhere", "--submission nowhere"),
        (grade, "--submission list.toml", "--submission list.toml"),
        (grade, "--submission empty", "--submission empty"),
        (grade, "--submission data --results nowhere/x", "--results nowhere/x"),
        (make_starter, "--output run", "--output run"),
        (make_starter, "--output list.toml", "--output list.toml"),
        (make_starter, "--output nowhere/x", "--output nowhere/x"),
        (make_starter, "--output x --questions q9", "--questions q9"),
        (make_starter, "--output x --bugs 99", "--bugs 99"),
        (make_autograder, "--output list.toml", "--output list.toml"),
        (make_autograder, "--output run --overwrite", "--output run"),
        (make_autograder, "--output nowhere/x", "--output nowhere/x"),
        (make_report, "stray", "stray"),
    ):  # fmt: skip
        yield Case(script.main, words, as_folder("empty"), must_say)


def _numbers(count: int) -> str:
    return ",".join(map(str, range(1, count + 1)))


def config_cases() -> Iterator[Case]:
    """Yield damages of config.json, for every script that reads it."""
    file = f"{RUN}/config.json"
    damages: list[tuple[Damage, str]] = [
        (remove(file), "config.json"), (write(file, ""), "config.json"),
        (cut(file), "config.json"), (write(file, b"\xff\xfe\x00"), "config.json"),
        (write(file, "[1]"), "config.json"), (write(file, "null"), "config.json"),
        (write(file, "[" * 100_000), "config.json"), (write(file, '{"a":' * 5000), "config.json"),
        (write(file, json.dumps({"flags": {"size": deep(500)}})), "config.json"),
        (write(file, "{}"), "config.json"), (write(file, '{"script": "x"}'), "config.json"),
        (as_folder(file), "config.json"), (as_fifo(file), "config.json"),
        (as_loop(file), "config.json"), (as_link(file, "/dev/zero"), "config.json"),
        (as_sparse(file, 10**11), "config.json"), (edit(file, "flags", value=None), "flags"),
        (edit(file, "flags", value=[1]), "flags"), (edit(file, "script", value=3), "script"),
        (edit(file, "script", value="../x.py"), "x.py"),
        (edit(file, "agent", value=["mb"]), "agent"),
        (edit(file, "flags", "env_name", value=None), "env_name"),
        (edit(file, "flags", "env_name", value=""), "env_name"),
        (edit(file, "flags", "env_name", value=ESCAPE), r"\x1b[31mred"),
        (edit(file, "flags", "env_name", value="evil:Task-v0"), "--trust"),
    ]  # fmt: skip
    for value in ("16", 1.5, [16], None, True, {}, -1, 10**30, deep(10), "x" * 10**6):
        damages.append((edit(file, "flags", "size", value=value), "--size"))
    for value in ("x", float("nan"), float("inf"), [], True):
        damages.append((edit(file, "flags", "learning_rate", value=value), "--learning_rate"))
    for value in ("yes", 1, None):
        damages.append((edit(file, "flags", "no_gpu", value=value), "--no_gpu"))
    readers = ((run_hw4_mb, "--resume run"), (evaluate, "run"), (diagnose, "run"))
    for number, (damage, must_say) in enumerate(damages):
        for script, words in readers:
            if must_say == ("agent" if script is run_hw4_mb else "x.py"):
                continue  # the script does not use it
            yield Case(script.main, words, damage, must_say)
        if number < 18:  # export_run does not use the flags
            yield Case(export_run.main, "run x", damage, must_say)
            yield Case(read_results.main, "run", damage, must_say, codes=(0, 2))
    for script, words in (
        (evaluate, "run"),
        (diagnose, "run"),
        (export_run, "run x --eval_episodes 1"),
    ):
        damage = edit(file, "agent", value="evil:agent")
        yield Case(script.main, words, damage, "--trust")
    yield Case(run_hw4_mbpo.main, "--resume run", must_say="run_hw4_mb.py")
    for command in ("x", [], [1], None, {}):
        yield Case(export_run.main, "run x", edit(file, "command", value=command), "command")
    yield Case(run_hw4_mb.main, "--resume run", edit(file, "resumed", value="x"), "resumed")


def log_cases() -> Iterator[Case]:
    """Yield damages of the other files of a run."""
    resume, export = (run_hw4_mb, "--resume run --n_iter 3"), (export_run, "run x")
    for name, readers in (
        ("progress.csv", (resume, export, (read_results, "run"), (plot_results, "run"))),
        ("checkpoint.pt", (resume, export, (evaluate, "run"), (diagnose, "run"))),
        (EVENTS, (resume,)),
        (".lock", (resume,)),
    ):  # fmt: skip
        file = f"{RUN}/{name}"
        for damage in (as_folder(file), as_fifo(file), as_link(file, "/dev/zero"), as_loop(file)):
            for script, words in readers:
                harmless = name in (EVENTS, ".lock")  # a lock may be a FIFO
                codes = (0, 2) if harmless else (2,)
                yield Case(script.main, words, damage, "" if harmless else name, codes)
    for content in (b"", b"\0" * 100, b"PK\x03\x04", b"x" * 10**5):
        for script, words in (resume, (evaluate, "run"), (export_run, "run x")):
            damage = both(
                write(f"{RUN}/checkpoint.pt", content), remove(f"{RUN}/checkpoint_previous.pt")
            )
            yield Case(script.main, words, damage, "checkpoint.pt")
    huge = as_sparse(f"{RUN}/progress.csv", 10**11)
    for script, words in (resume, (read_results, "run"), (export_run, "run x")):
        yield Case(script.main, words, huge, "progress.csv")
    for content, must_say in (("a,b\n1\n", "line 2"), ("a\nx\n", "'x'"), (f"a\n{ESCAPE}\n", "x1b")):
        yield Case(read_results.main, "run", write(f"{RUN}/progress.csv", content), must_say)
    wide = write(f"{RUN}/progress.csv", f"{'x' * 200_000}\n1\n")
    yield Case(read_results.main, "run", wide, "progress.csv")
    yield Case(read_results.main, f"run/{EVENTS}", as_fifo(f"{RUN}/{EVENTS}"), EVENTS)
    for name in (".config.json.tmp", ".progress.csv.tmp"):
        damage = as_link(f"{RUN}/{name}", "../list.toml")
        yield Case(resume[0].main, resume[1], damage, name)
    for name in ("diagnosis.html", "diagnosis.npz"):
        yield Case(diagnose.main, "run", as_link(f"{RUN}/{name}", "../list.toml"), "--output")
    for name in (".config.json.tmp", ".events.tmp", ".checkpoint.pt.tmp"):
        damage = as_folder(f"{RUN}/{name}")
        yield Case(resume[0].main, resume[1], damage, name, may_change=True)
    predictions = both(
        remove(f"{RUN}/progress.csv"), write(f"{RUN}/itr_0_losses.npy", b"\x93NUMPY\x01\0v\0{")
    )
    yield Case(export_run.main, "run x", predictions, "itr_0_losses.npy")
    yield Case(export_run.main, "run x", cut(f"{RUN}/itr_0_predictions.npz"), "predictions.npz")
    pickled = write(f"{RUN}/itr_0_predictions.npz", b"\x80\x04cos\nsystem\n.")
    yield Case(export_run.main, "run x", pickled, "predictions.npz")


def list_cases() -> Iterator[Case]:
    """Yield damages of a list of experiments."""
    words = f"--dry_run --experiments {LIST}"
    for text, must_say in (
        ("", "entries"), ("x", "damaged"), ("experiment = 3", "experiment"), (b"\xff", "UTF-8"),
        ("experiment = [[1]]", "experiment"), ("experiment = [1]", "experiment"),
        (f"x = {'[' * 5000}", LIST), (f"{'a.' * 5000}a = 1", LIST), (f"a = {HUGE}", LIST),
        (f"x = {deep(100)}\n{ENTRY}", "deep"), (f"{ENTRY}x = 1", "key x"),
        (f"#{' ' * 10**6}", LIST),
        (f"groups = 3\n{ENTRY}", "groups"), (f"{ENTRY}group = 'g'", "group g"),
        (f"groups = {{g = 1}}\n{ENTRY}", "groups"), (ENTRY + ENTRY, "twice"),
        (ENTRY.replace("'q3_a'", "''"), "name"), (ENTRY.replace("'q3_a'", "3"), "name"),
        (ENTRY.replace("'q3_a'", "'../x'"), "name"),
        (ENTRY.replace("'q3_a'", f"'{'x' * 130}'"), "name"),
        (ENTRY.replace("'q3_a'", '"\\u001b[31m"'), r"\x1b"), (ENTRY.replace("'mb'", "3"), "script"),
        (ENTRY.replace("'mb'", "'no.mod:x'"), "no.mod"), (ENTRY.replace("'mb'", "':'"), "script"),
        (f"{ENTRY}minutes = nan", "minutes"), (f"{ENTRY}minutes = inf", "minutes"),
        (f"{ENTRY}minutes = -1", "minutes"), (f"{ENTRY}minutes = true", "minutes"),
        (f"{ENTRY}minutes = '1'", "minutes"), (f"{ENTRY}seeds = []", "seeds"),
        (f"{ENTRY}seeds = [-1]", "seeds"), (f"{ENTRY}seeds = [true]", "seeds"),
        (f"{ENTRY}seeds = [1.5]", "seeds"), (f"{ENTRY}seeds = 'x'", "seeds"),
        (f"{ENTRY}seeds = {list(range(20_000))}", "runs"), (f"{ENTRY}presets = 'x'", "presets"),
        (f"{ENTRY}presets = ['x']", "--preset x"), (f"{ENTRY}results = 3", "results"),
        (f"{ENTRY}results = [{{column = 3}}]", "column"), (f"{ENTRY}results = [{{}}]", "column"),
        (f"{ENTRY}results = [{{column = 'a', at_least = nan}}]", "at_least"),
        (f"{ENTRY}results = [{{column = 'a', last = 'x'}}]", "last"),
        (f"{ENTRY}stated_time = 3", "stated_time"),
        *(
            (ENTRY.replace("--env_name obstacles-cs285-v0", flags), must_say)
            for flags, must_say in (
                ("", "--env_name"), ("--help", "--help"), ("-h", "-h"), ("--resume x", "--resume"),
                ("--env_name x --size", "--size"), ("--env_name x --size nan", "--size nan"),
                ("--env_name x --preset list", "--preset list"), ("stray", "stray"),
                ("--env_name x --learning_rate inf", "--learning_rate inf"),
                ('\\"', "unknown argument"),
            )
        ),
    ):  # fmt: skip
        yield Case(reproduce.main, words, write(LIST, text), must_say)
    unclosed = write(LIST, ENTRY.replace("--env_name", '--env_name "'))
    yield Case(reproduce.main, words, unclosed, "q3_a")
    for damage in (as_folder(LIST), as_fifo(LIST), as_loop(LIST), as_link(LIST, "/dev/zero")):
        yield Case(reproduce.main, words, damage, LIST)
    loop = both(write(LIST, ENTRY), as_loop("loop"))
    yield Case(reproduce.main, f"--experiments {LIST} --data_dir loop/x", loop, "--data_dir")


def sweep_cases() -> Iterator[Case]:
    """Yield damages of the files of a sweep."""
    file = f"{SWEEP}/sweep.json"
    damages: list[tuple[Damage, str]] = [
        (remove(file), "sweep.json"), (write(file, ""), "sweep.json"), (cut(file), "sweep.json"),
        (write(file, "[1]"), "sweep.json"), (write(file, "{}"), "sweep"),
        (write(file, "[" * 100_000), "sweep.json"), (as_folder(file), "sweep.json"),
        (as_fifo(file), "sweep.json"), (as_loop(file), "sweep.json"),
        (as_sparse(file, 10**11), "sweep.json"), (edit(file, "sweep", value=[]), "sweep"),
        (edit(file, "sweep", "choices", "x", value=[1]), "--x"),
        (edit(file, "sweep", "choices", value=[]), "choices"),
        (edit(file, "sweep", "script", value="evil:agent"), "--trust"),
        (edit(file, "sweep", "script", value=3), "script"),
        (edit(file, "sweep", "script", value="mc"), "mc"),
        (edit(file, "sweep", "choices", "env_name", value=["evil:Task-v0"]), "--trust"),
        (edit(file, "sweep", "unknown", value=1), "unknown"),
        (edit(file, "sweep", "search", value=10**9), "--search"),
        (edit(file, "sweep", "choices", "size", value=list(range(1, 20_001))), "--size"),
    ]  # fmt: skip
    for value in ("../up", "", "a/b", ESCAPE, "x" * 200, 3, None):
        damages.append((edit(file, "sweep", "name", value=value), "name"))
    for value in ("16", 16, None, [], ["x"], [1.5], [None], [[16]], [16, 16], [0], {}, {"low": 1},
                  {"low": 1, "high": "x", "log": False, "whole": True},
                  {"low": float("nan"), "high": 2, "log": False, "whole": True}):  # fmt: skip
        damages.append((edit(file, "sweep", "choices", "size", value=value), "size"))
    for name, value in (
        ("search", -1), ("search", "x"), ("search", 1.5), ("sampler", "x"), ("sampler_seed", -1),
        ("sampler_seed", None), ("metric", 3), ("mode", "x"), ("asha", "x"), ("asha", 1),
    ):  # fmt: skip
        damages.append((edit(file, "sweep", name, value=value), name))
    for damage, must_say in damages:
        yield Case(sweep.main, "--resume sweep --dry_run", damage, must_say)
    table = f"{SWEEP}/sweep.csv"
    for damage, must_say in (
        (as_folder(table), "sweep.csv"), (as_fifo(table), "sweep.csv"),
        (cut(table, 0.9), "sweep.csv"),
        (write(table, "trial\nx\n"), "sweep.csv"), (write(table, b"\xff\xfe"), "sweep.csv"),
        (write(table, "trial,size,state,iterations,metric,folder,error\nx,y,z,,,,\n"), "--size y"),
        (write(table, "trial,size,state,iterations,metric,folder,error\nx,16,z,u,,,\n"), "'u'"),
        (as_folder(f"{SWEEP}/.lock"), ".lock"),
    ):  # fmt: skip
        yield Case(sweep.main, "--resume sweep", damage, must_say)


def export_cases() -> Iterator[Case]:
    """Yield halves and damages of exported runs."""
    described = f"{EXPORT}.json"
    for damage, must_say in (
        (remove(described), ".json"), (cut(described), ".json"), (write(described, ""), ".json"),
        (write(described, "{}"), ".json"), (as_fifo(described), ".json"),
        (remove(f"{EXPORT}.csv"), ".csv"), (write(f"{EXPORT}.csv", ""), ".csv"),
        (write(f"{EXPORT}.csv", "a,b\n1"), ".csv"), (as_folder(f"{EXPORT}.csv"), ".csv"),
        (edit(described, "run", value=3), "run"), (edit(described, "flags", value=3), "flags"),
        (edit(described, "run", "seconds", value="x"), "seconds"),
        (edit(described, "git", value=3), "git"),
        (edit(described, "machine", value={}), "processor"),
        (edit(described, "run", "final_evaluation", value={"returns": "x"}), "returns"),
        (write("results/study/planners_x.json", "{"), "planners_x.json"),
        (write("results/study/planners_x.json", '{"returns": {"a": ["x"]}}'), "returns"),
        (write("results/study/model_loss_x.json", "{}"), "model_loss_x.json"),
        (write("results/study/model_loss_x.json", '{"fits": {"a": []}}'), "model_loss_x.json"),
        (write("results/study/model_error.csv", "a\n1\n"), "model_error.csv"),
        (write("results/study/model_error.csv", "a\n1,2\n"), "model_error.csv"),
    ):  # fmt: skip
        yield Case(make_report.main, "", damage, must_say)


def media_cases() -> Iterator[Case]:
    """Yield links, FIFOs and hostile names that must do no harm; the commands may succeed."""
    names = (f"{SUBMISSION}/{EVENTS}", f"{SUBMISSION}/config.json", f"{SUBMISSION}/progress.csv")
    for file in names:
        for damage in (as_fifo(file), as_loop(file), as_link(file, "/dev/zero"), as_folder(file)):
            yield Case(make_submission.main, "--data_dir data", damage, codes=(0, 2))
            yield Case(filter_events.main, "data --output x", damage, codes=(0, 2))
            yield Case(filter_events.main, "data --in_place", damage, codes=(0, 1, 2))
            yield Case(plot_results.main, "data", damage, codes=(0, 2))
    circle = as_link(f"{SUBMISSION}/round", "..")
    for words in ("data --output x", "data --in_place"):
        yield Case(filter_events.main, words, circle, codes=(0,))
    yield Case(read_results.main, "data", circle, codes=(0,))
    for name in ("$\\foo$", "a_$x", ESCAPE, "_hidden"):
        damage = edit(f"{RUN}/config.json", "flags", "exp_name", value=name)
        yield Case(plot_results.main, "run --output x.png", damage, codes=(0, 2))
        yield Case(read_results.main, "run", damage, codes=(0,))


def random_cases(seed: str) -> Iterator[Case]:
    """Yield random damage; a command may survive it, but must not end with a traceback."""
    generator = random.Random(seed)
    readers: dict[str, Sequence[tuple[Any, str]]] = {
        f"{RUN}/config.json": ((run_hw4_mb, "--resume run"), (evaluate, "run --episodes 1")),
        f"{RUN}/progress.csv": ((run_hw4_mb, "--resume run"), (read_results, "run")),
        f"{RUN}/{EVENTS}": ((run_hw4_mb, "--resume run"), (filter_events, "run --in_place")),
        f"{RUN}/checkpoint.pt": ((run_hw4_mb, "--resume run"), (export_run, "run x")),
        f"{SWEEP}/sweep.json": ((sweep, "--resume sweep --dry_run"),),
        LIST: ((reproduce, f"--dry_run --experiments {LIST}"),),
        f"{EXPORT}.json": ((make_report, ""), (plot_results, "results")),
        f"{EXPORT}.csv": ((make_report, ""), (read_results, "results")),
    }
    for file, pairs in readers.items():
        for script, words in pairs:
            for _ in range(3):
                where, how = generator.random(), generator.randrange(4)
                junk = generator.randbytes(generator.randrange(1, 9))

                def damage(
                    world: Path, file: str = file, where: float = where, how: int = how,
                    junk: bytes = junk,
                ) -> None:  # fmt: skip
                    content = (world / file).read_bytes()
                    at = int(where * len(content))
                    end = (at + len(junk), len(content), at, at + 1)[how]
                    inserted = (junk, b"", junk, b"[{}]")[how]
                    (world / file).write_bytes(content[:at] + inserted + content[end:])

                yield Case(script.main, words, damage, codes=(0, 1, 2))


def cases() -> list[Case]:
    """Return the whole table."""
    return [
        *flag_cases(),
        *command_cases(),
        *config_cases(),
        *log_cases(),
        *list_cases(),
        *sweep_cases(),
        *export_cases(),
        *media_cases(),
    ]


# Running the cases.


def make_world(world: Path) -> None:
    """Create a run, a sweep, a list of experiments and an exported run."""
    flags = {**TINY, "n_iter": 2, "batch_size_initial": 20, "batch_size": 20, "data_dir": world}
    assert run_hw4_mb.main(arguments(**flags)) == 0
    (folder,) = world.glob("hw4_*")
    folder.rename(world / RUN)
    (events,) = (world / RUN).glob("events*")
    events.rename(world / RUN / EVENTS)
    shutil.copytree(world / RUN, world / SUBMISSION)
    (world / "evil.py").write_text(EVIL)
    (world / LIST).write_text(ENTRY)
    export_run.export_run(world / RUN, world / EXPORT)
    choices = {"env_name": ["obstacles-cs285-v0"], "size": [16, 24]}
    plan = Sweep("tiny", "mb", choices)
    sweep_folder.create(plan, world, "sweep.py").rename(world / SWEEP)
    trials = [sweep_folder.Trial(plan, values) for values in plan.values()]
    sweep_folder.write_table(world / SWEEP, plan.varied, trials)


def problem_of(case: Case, template: Path, world: Path) -> str:
    """Run a case in a copy of the template, and return what is wrong with its outcome, or ""."""
    shutil.copytree(template, world, symlinks=True)
    case.damage(world)
    before, out, err = _snapshot(world), io.StringIO(), io.StringIO()
    make_report.RESULTS = world / "results"
    words = [word.replace("~", " ") for word in case.words.split()]
    os.chdir(world)

    def too_slow(number: int, frame: Any) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = exit_code_of(case.main, words)
    except BaseException as error:
        return "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.alarm(0)
    text = err.getvalue()
    errors = [line for line in text.splitlines() if not line.startswith("warning: ")]
    if code not in case.codes:
        return f"exit code {code}: {text[-500:]}"
    if code and len(errors) != 1:
        return f"{len(errors)} lines: {text[-1000:]}"
    if code and not (": error: " in errors[0] and case.must_say in errors[0]):
        return f"does not say {case.must_say!r}: {errors[0][:500]}"
    if not all(c.isprintable() or c == "\n" for c in text + out.getvalue()):
        return f"control characters: {text + out.getvalue()!r}"[:500]
    after = _snapshot(world)
    if code == 2 and before != after and not case.may_change:
        changed = {name for name in before.keys() | after if before.get(name) != after.get(name)}
        return f"changed files: {sorted(changed)} ({errors[0][:300]})"
    if (world / "ran").exists():
        return "ran a module of the folder"
    return ""


def _snapshot(world: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(world.rglob("*")):
        name = str(path.relative_to(world))
        if (path.name == ".lock" and path.is_file()) or "__pycache__" in name:
            continue
        kind = path.lstat().st_mode
        is_small = path.is_file() and not path.is_symlink() and path.stat().st_size < 10**8
        found[name] = (kind, path.read_bytes() if is_small else None)
    return found


def run_cases(table: Sequence[Case], show: Callable[[str], None] = lambda line: None) -> list[str]:
    """Run the cases and return one text per failure."""
    here, failures = Path.cwd(), []
    results = make_report.RESULTS
    with tempfile.TemporaryDirectory() as name:
        template = Path(name) / "template"
        template.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            make_world(template)
        try:
            for number, case in enumerate(table):
                world = Path(name) / f"world{number}"
                start = time.monotonic()
                if problem := problem_of(case, template, world):
                    failures.append(f"{case.name}: {problem}")
                    show(failures[-1])
                if (seconds := time.monotonic() - start) > 5:
                    show(f"{case.name}: {seconds:.1f} s")
                os.chdir(here)
                shutil.rmtree(world, ignore_errors=True)
        finally:
            os.chdir(here)
            make_report.RESULTS = results
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign, print a summary and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, metavar="N")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only cases with TEXT in the name"
    )
    given = parser.parse_args(argv)
    total, failures = 0, 0
    for number in range(given.times):
        table = [*(cases() if number == 0 else []), *random_cases(f"{number}")]
        table = [case for case in table if given.only in case.name]
        found = run_cases(table, lambda line: print(line, flush=True))
        total, failures = total + len(table), failures + len(found)
        print(f"round {number + 1}: {len(table)} cases, {len(found)} failed", flush=True)
    print(f"{total} cases, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
