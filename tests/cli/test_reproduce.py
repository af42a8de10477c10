"""Tests of reproduce.py: lists of experiments, and runs of a small list that are interrupted."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from cs285.experiments.job import iterations_done
from cs285.experiments.suites import BUILT_IN, Experiment, read_experiments
from cs285.scripts.reproduce import main
from tests.cli.processes import children_of, start, wait_until
from tests.conftest import TINY, arguments, exit_code_of, read_curve

SECONDS = 90.0
MANY = {"n_iter": 20, "batch_size": 200}


def write_list(file: Path, names: tuple[str, ...] = ("q1_tiny",), **flags: Any) -> Path:
    """Write a list of tiny experiments to `file`, and return `file`."""
    words = " ".join(arguments(**{**TINY, "exp_name": None, "num_workers": None, **flags}))
    entries = [
        f'[[experiment]]\nname = "{name}"\nscript = "mb"\nflags = "{words}"\n'
        "minutes = 0.1\nresults = []\n"
        for name in names
    ]
    file.write_text("\n".join(entries))
    return file


def run_folder(data: Path, name: str = "q1_tiny") -> Path:
    (folder,) = data.glob(f"hw4_{name}_seed1_*")
    return folder


def words_of(tmp_path: Path, listed: Path) -> list[str]:
    """Return the command line that runs a list of experiments."""
    return ["--experiments", str(listed), "--data_dir", str(tmp_path / "data")]


def test_built_in_list_has_every_experiment_of_the_homework() -> None:
    names = {experiment.name for experiment in read_experiments()}
    assert names >= {
        "q1_cheetah_n500_arch1x32", "q1_cheetah_n5_arch2x250", "q1_cheetah_n500_arch2x250",
        "q2_obstacles_singleiteration", "q3_obstacles", "q3_reacher", "q3_cheetah",
        *(f"q4_reacher_horizon{horizon}" for horizon in (5, 15, 30)),
        *(f"q4_reacher_numseq{number}" for number in (100, 1000)),
        *(f"q4_reacher_ensemble{size}" for size in (1, 3, 5)),
        "q5_cheetah_random", "q5_cheetah_cem_2", "q5_cheetah_cem_4",
        "q6_cheetah_rlenl0", "q6_cheetah_rlen1", "q6_cheetah_rlen10",
    }  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_list_is_found_by_name_and_path(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_experiments(name) == read_experiments(BUILT_IN[name])
    experiment = read_experiments(name)[0]
    words = ["--experiments", name, "--names", experiment.name, "--seeds", "1", "--dry_run"]
    assert main(words) == 0
    assert f"--exp_name {experiment.name}_seed1 " in capsys.readouterr().out


def test_optional_keys_of_an_experiment_have_defaults(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text("[[experiment]]\nname = 'a'\nscript = 'mb'\n")
    (experiment,) = read_experiments(listed)
    assert experiment == Experiment("a", "mb", flags=(), minutes=0.0, results=(), seeds=(1,))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("script = 'mb'", "experiment 1: key name: must be given"),
        ("name = 'a'", "experiment a: key script: must be given"),
        ("name = 'a'\nscript = 'mb'\nresults = [{last = 3}]", "a: key column: must be given"),
        (
            "name = 'a'\nscript = 'mb'\nflag = '--size 3'",
            "experiment a: key flag: must be one of name, ",
        ),
        ("name = 'a'\nscript = 'mb'\ngroup = 'b'", "a: group b: must be in [groups]"),
        ("name = 'a'\nscript = 'mc'", "experiment a: script mc: must be mb, mbpo"),
        ("name = 'a'\nscript = 'mb'\nseeds = []", "experiment a: seeds []: must be one or more"),
        ("name = ''\nscript = 'mb'", "experiment 1: name '': must be 1 to 128 letters"),
        ("name = 'a'\nscript = 'mb'\nminutes = nan", "minutes nan: must be a finite number"),
        ("name = 'a'\nscript = 'mb'\nminutes = inf", "minutes inf: must be a finite number"),
        (f"name = 'a'\nscript = 'mb'\nx = {'[' * 999}", "list.toml is nested too deeply"),
    ],
)
def test_error_names_the_file_the_experiment_and_the_key(
    entry: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(f"[[experiment]]\n{entry}\n")
    assert main(words_of(tmp_path, listed)) == 2
    error = capsys.readouterr().err
    assert f"--experiments {listed}: " in error and message in error and error.count("\n") == 1


def test_dry_run_without_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = write_list(tmp_path / "list.toml", ("q1_tiny", "q2_tiny"))
    text = listed.read_text().replace("minutes = 0.1\n", "", 1)
    listed.write_text(text)
    words = [*words_of(tmp_path, listed), "--dry_run", "--jobs", "1"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# duration unknown" and lines[2] == "# about 6 s on one core"
    assert lines[-1] == "# 2 runs, 1 in parallel: at least 6 s"
    listed.write_text(text.replace("minutes = 0.1\n", ""))
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("# 2 runs, 1 in parallel: duration unknown\n")


def test_dry_run_prints_commands_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry_run", "--questions", "q3", "q5", "--seeds", "1", "2", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == 2 * 6 * 2  # seeds, experiments, each also with --preset sharp
    assert all(line.startswith("python scripts/run_hw4_mb.py ") for line in commands)
    assert "--mpc_horizon 15" in commands[-1] and commands[-1].endswith("--seed 2")
    assert len(lines) == 2 * 24 + 2 and "24 runs" in lines[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--questions", "q9"], "--questions q9: must be one of q1"),
        (["--names", "q3"], "--names q3: must be one of q1"),
        (["--seeds", "one"], "--seeds one: must be an integer of at least 0"),
        (["--jobs", "0"], "--jobs 0: must be an integer of at least 1"),
        (["--experiments", "nowhere.toml"], "--experiments nowhere.toml: No such file"),
        (["--question", "q3"], "did you mean --questions?"),
    ],
)
def test_bad_input_is_a_one_line_error(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code_of(main, [*words, "--dry_run"])
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("flags", ["--sise 3", "--size 0", "--help", "--env_name="])
def test_invalid_flag_in_a_list(
    flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_list(tmp_path / "list.toml")
    listed.write_text(listed.read_text().replace("--size 16", flags))
    code = exit_code_of(main, words_of(tmp_path, listed))
    assert code == 2
    error = capsys.readouterr().err
    assert flags.split()[0].rstrip("=") in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_finished_runs_are_skipped_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_list(tmp_path / "list.toml", ("q1_tiny", "q2_tiny"))
    words = [*words_of(tmp_path, listed), "--export_to", str(tmp_path / "results")]
    assert main(words) == 0
    folders = [run_folder(tmp_path / "data", name) for name in ("q1_tiny", "q2_tiny")]
    before = [(folder / "checkpoint.pt").stat().st_mtime_ns for folder in folders]
    assert main([*words, "--eval_episodes", "2"]) == 0  # no run is left to do
    assert [(folder / "checkpoint.pt").stat().st_mtime_ns for folder in folders] == before
    exported = json.loads((tmp_path / "results" / "q1" / "q1_tiny_seed1.json").read_text())
    assert exported["run"]["iterations"] == TINY["n_iter"]
    assert len(set(exported["run"]["final_evaluation"]["returns"])) == 2
    assert 0 < sum(exported["run"]["seconds_by_phase"].values()) < 2 * exported["run"]["seconds"]
    assert str(tmp_path) not in json.dumps(exported)
    assert main(words) == 0  # keeps the evaluation
    kept = json.loads((tmp_path / "results" / "q1" / "q1_tiny_seed1.json").read_text())
    assert kept["run"]["final_evaluation"] == exported["run"]["final_evaluation"]
    assert capsys.readouterr().out.count("done") == 6
    assert main([*words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert out.count("# done") == 2 and "# 0 runs" in out


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return the curve of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(words_of(folder, write_list(folder / "list.toml", **MANY))) == 0
    return read_curve(run_folder(folder / "data"))


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM, signal.SIGKILL],
)
def test_interrupted_and_restarted_run_has_the_same_curve(
    how: signal.Signals, uninterrupted: list[dict[str, str]], tmp_path: Path
) -> None:
    """The run has a single log folder, and one process at a time executes it."""
    listed, data = write_list(tmp_path / "list.toml", **MANY), tmp_path / "data"
    process = start("scripts/reproduce.py", *words_of(tmp_path, listed))
    wait_until(lambda: bool(list(data.glob("hw4_*/checkpoint.pt"))), SECONDS)
    runs = children_of(process.pid)
    process.send_signal(how)
    process.communicate(timeout=SECONDS)
    if how != signal.SIGKILL:  # after SIGKILL the run continues, and main() waits for it
        assert process.returncode == 130
        wait_until(lambda: not set(runs) & set(children_of(1)))
        assert iterations_done(run_folder(data)) < MANY["n_iter"]
    assert main(words_of(tmp_path, listed)) == 0
    assert read_curve(run_folder(data)) == uninterrupted


def test_run_with_a_preset_is_resumed(tmp_path: Path) -> None:
    """The log folder stores the flags of the preset, and --resume rejects --preset."""
    listed = write_list(tmp_path / "list.toml", preset="probabilistic")
    assert main(words_of(tmp_path, listed)) == 0
    folder = run_folder(tmp_path / "data")
    listed.write_text(listed.read_text().replace("--n_iter 2", "--n_iter 3"))
    assert main(words_of(tmp_path, listed)) == 0
    assert iterations_done(folder) == 3


def test_two_processes_share_the_experiments_of_a_list(tmp_path: Path) -> None:
    listed = write_list(tmp_path / "list.toml", ("q1_tiny", "q2_tiny"))
    both = [start("scripts/reproduce.py", *words_of(tmp_path, listed)) for _ in range(2)]
    outputs = [process.communicate(timeout=SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    for name in ("q1_tiny", "q2_tiny"):
        assert iterations_done(run_folder(tmp_path / "data", name)) == TINY["n_iter"]


def test_other_runs_continue_after_a_failed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_list(tmp_path / "list.toml", ("q1_tiny", "q2_tiny"))
    text = listed.read_text()
    listed.write_text(text.replace("obstacles-cs285-v0", "NoSuchTask-v0", 1))
    assert main(words_of(tmp_path, listed)) == 1
    error = capsys.readouterr().err
    assert "q1_tiny_seed1 failed" in error and "NoSuchTask-v0" in error and error.count("\n") == 1
    assert iterations_done(run_folder(tmp_path / "data", "q2_tiny")) == TINY["n_iter"]
