"""Logs become arrays, and arrays of several seeds one curve."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.types_pb2 import DT_FLOAT
from tensorboardX.record_writer import RecordWriter

from cs285.analysis.groups import group_seeds, with_column
from cs285.analysis.plots import last_value
from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Run, find_runs, load_run
from cs285.analysis.statistics import aggregate, bootstrap_interval, interquartile_mean, smooth
from cs285.experiments.suites import Result, read_experiments, select
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import Logger

TEN = np.array([3.0, -1, 4, 1.5, -9, 2.6, 5, 3.5, 8.9, 7.9])


def make_run(name: str, steps: list[float], returns: list[float], **flags: object) -> Run:
    columns = {ENV_STEPS: np.array(steps), EVAL_RETURN: np.array(returns)}
    return Run(name, columns, {"flags": flags} if flags else {}, Path(f"{name}_{len(steps)}"))


def test_numbers_of_rliable() -> None:
    """Of rliable 1.2.0 with 200000 resamples, beside the older pandas that it imports with."""
    assert interquartile_mean(TEN) == pytest.approx(3.26666667)
    low, high = bootstrap_interval(TEN)
    assert low == pytest.approx(0.0333, abs=0.4) and high == pytest.approx(5.7167, abs=0.4)
    assert interquartile_mean(TEN[:3]) == pytest.approx(2.0)
    assert bootstrap_interval(TEN[:3]) == (pytest.approx(-1.0), pytest.approx(4.0))


def test_one_seed_has_no_interval() -> None:
    low, high = bootstrap_interval(TEN[None])
    assert low.shape == high.shape == (10,) and np.isnan([low, high]).all()


def test_smooth_is_the_mean_of_the_values_so_far() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 3, 5, 1]), 2), [1, 2, 4, 3])
    np.testing.assert_allclose(smooth(TEN, 1), TEN)
    np.testing.assert_allclose(smooth(TEN, 100)[-1], TEN.mean())
    np.testing.assert_allclose(smooth(np.array([np.nan, 1, np.nan, 3]), 2), [np.nan, 1, 1, 3])


def test_seeds_meet_at_equal_env_steps() -> None:
    """Where a seed's episodes end elsewhere, its value in between counts, up to the shortest."""
    one = make_run("a_seed1", [0, 100, 200, 300], [0.0, 10, 20, 30])
    two = make_run("a_seed2", [50, 250], [0.0, 20])
    curve = aggregate([one, two])
    np.testing.assert_allclose(curve.x, [100, 200, 250])
    np.testing.assert_allclose(curve.center, [(10 + 5) / 2, (20 + 15) / 2, (25 + 20) / 2])
    np.testing.assert_allclose([curve.low, curve.high], [[5, 15, 20], [10, 20, 25]])
    assert curve.seeds == 2


def test_missing_values_and_columns() -> None:
    run = make_run("a", [0, 100, 200], [1.0, np.nan, 3])
    np.testing.assert_allclose(aggregate([run]).x, [0, 200])
    with pytest.raises(UsageError, match=f"column Eval: a has none; allowed are {EVAL_RETURN}"):
        aggregate([run], "Eval")
    assert last_value(run, EVAL_RETURN) == 2
    with pytest.raises(UsageError, match="no Eval_AverageReturn was logged"):
        last_value(make_run("a", [0], [np.nan]), EVAL_RETURN)
    said: list[str] = []
    other = make_run("b", [0], [np.nan])
    assert with_column("--y", EVAL_RETURN, [run, other], said.append) == [run]
    assert said == [f"b_1: passed over, it has no values of {EVAL_RETURN}"]
    with pytest.raises(UsageError, match="--y Eval: no run has values of it"):
        with_column("--y", "Eval", [run, other])


def test_an_axis_that_goes_back_is_refused() -> None:
    with pytest.raises(UsageError, match=f"its {ENV_STEPS} goes back"):
        aggregate([make_run("a", [0, 200, 100], [0.0, 1, 2])])


def test_a_curve_of_very_many_values_keeps_its_ends() -> None:
    steps = list(map(float, range(20000)))
    curve = aggregate([make_run(f"a_seed{seed}", steps, steps) for seed in (1, 2)])
    assert len(curve.x) == 1000 and (curve.x[0], curve.x[-1]) == (0, 19999)
    np.testing.assert_array_equal(curve.center, curve.x)


def test_seeds_without_a_value_in_common() -> None:
    apart = [make_run("a_seed1", [0, 1], [0, 0]), make_run("a_seed2", [2, 3], [0, 0])]
    with pytest.raises(UsageError, match="a: its seeds have no"):
        aggregate(apart)
    with pytest.raises(UsageError, match="a: a run of it has no"):
        aggregate([make_run("a_seed1", [0, 1], [np.nan, np.nan])])


@pytest.mark.parametrize(
    "content", [b"a,b\n1,policy\n", b"a,b\n1\n", b"a,b\n1,2\n1\n", b"\xff\xfe\n"]
)
def test_csv_that_is_no_table_of_numbers(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"table.csv: .*; allowed: a CSV of numbers"):
        load_run(file)


@pytest.mark.parametrize(
    "described", ["[1]", "null", "3", '{"flags": null}', "{", '{"flags": {"seed": "x"}}']
)
def test_what_describes_a_run_may_be_of_something_else(described: str, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n3,4")  # by an editor that ends no last line
    (tmp_path / "curve.json").write_text(described)
    run = load_run(tmp_path / "curve.csv")
    assert (run.name, run.seed) == ("curve", None)
    np.testing.assert_array_equal(run.column("b"), [2, 4])
    begun = tmp_path / "progress.csv"
    begun.write_text("a,b\n1,2\n3,4")  # that a run is writing
    np.testing.assert_array_equal(load_run(begun).column("b"), [2])


def test_what_cannot_be_read_does_not_hide_the_rest(tmp_path: Path) -> None:
    for name, text in (("one", "a\n1\n"), ("two", "a\nx\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.csv").write_text(text)
    said: list[str] = []
    assert [run.name for run in find_runs([tmp_path, tmp_path / "one"], said.append)] == ["one"]
    assert len(said) == 1 and "two" in said[0]


def test_groups_are_settings() -> None:
    names = ["q4_horizon5_seed1", "q4_horizon5_seed2", "q4_horizon15_seed1", "seedless"]
    groups = group_seeds([make_run(name, [0], [0]) for name in names])
    assert {key: [run.seed for run in runs] for key, runs in groups.items()} == {
        "q4_horizon5": [1, 2], "q4_horizon15": [1], "seedless": [None],
    }  # fmt: skip


def test_runs_of_one_name_with_other_flags_are_other_settings() -> None:
    """As under the default name, todo. A run begun twice counts once, the longer one."""
    runs = [
        make_run("todo", [0, 1], [0, 0], seed=1, env_name="cheetah", size=8, n_iter=2),
        make_run("todo", [0, 1, 2], [0, 0, 0], seed=2, env_name="cheetah", size=8, n_iter=3),
        make_run("todo", [0, 1], [0, 0], seed=1, env_name="obstacles", size=8),
        make_run("todo", [0], [0], seed=2, env_name="obstacles", size=8),
        make_run("todo", [0, 1, 2], [0, 0, 0], seed=1, env_name="cheetah", size=16),
        make_run("todo", [0], [0], seed=1, env_name="cheetah", size=8),
    ]
    said: list[str] = []
    groups = group_seeds(runs, said.append)
    assert {key: [len(run) for run in members] for key, members in groups.items()} == {
        "todo env_name=cheetah size=8": [2, 3],
        "todo env_name=obstacles size=8": [2, 1],
        "todo env_name=cheetah size=16": [3],
    }
    assert said == ["todo_1: passed over for another run of its seed, todo_2"]


def test_runs_of_the_two_programs_are_never_one_setting() -> None:
    runs = [make_run("todo", [0, 1], [0, 0], seed=seed, size=8) for seed in (1, 2, 1)]
    for run, script in zip(runs, ("mb.py", "mb.py", "mbpo.py"), strict=True):
        run.config["script"] = script
    groups = group_seeds(runs)
    assert {key: len(members) for key, members in groups.items()} == {
        "todo script=mb.py": 2,
        "todo script=mbpo.py": 1,
    }


def test_csv_and_event_file_of_a_run_say_the_same(tmp_path: Path) -> None:
    logger = Logger(tmp_path)
    logger.record({EVAL_RETURN: 1.5, ENV_STEPS: 100.0}, 0)
    logger.record_video("eval", [np.zeros((16, 16, 3), np.uint8)] * 4, 30, 0)
    logger.record({EVAL_RETURN: 2.5, ENV_STEPS: 200.0, "New Data Loss": 0.25}, 1)
    logger.close()
    (events,) = tmp_path.glob("events*")
    from_csv, from_events = load_run(tmp_path).columns, load_run(events).columns
    assert set(from_csv) == set(from_events)
    for name in from_csv:
        np.testing.assert_array_equal(from_csv[name], from_events[name])
    np.testing.assert_array_equal(from_csv["New Data Loss"], [np.nan, 0.25])


def test_event_files_of_the_original_homework(tmp_path: Path) -> None:
    """One scalar a record, a folder without config.json, a run begun twice, a video, a cut end.

    The first start had got further: of it nothing counts from where the second one begins.
    """
    folder = tmp_path / "hw4_q3_reacher_reacher-cs285-v0_05-11-2020_10-20-30"
    for first, end in ((0, 9), (2, 4)):
        writer = SummaryWriter(str(folder), filename_suffix=f".{first}")
        for step in range(first, end):
            writer.add_scalar("Eval_AverageReturn", -100.0 * first - step, step)
            writer.add_scalar("Training Loss", step, step)
        writer.add_video("rollout", np.zeros((1, 2, 3, 8, 8), np.uint8), 3)
        writer.close()
        time.sleep(1.1)  # the files' names tell their order, by seconds
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-3])
    run = load_run(folder)
    assert (run.name, run.config) == ("q3_reacher_reacher-cs285-v0", {})
    np.testing.assert_array_equal(run.column(EVAL_RETURN), [0, -1, -202, -203])
    np.testing.assert_array_equal(run.column("Training Loss"), [0, 1, 2, 3])


def test_scalars_that_newer_writers_store_as_tensors(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.host"
    writer = RecordWriter(str(file))
    content = np.array([2.5], "<f4").tobytes()
    for tensor in (
        TensorProto(dtype=DT_FLOAT, float_val=[1.5]),
        TensorProto(dtype=DT_FLOAT, tensor_content=content),
        TensorProto(dtype=DT_FLOAT, float_val=[1.0, 2.0]),
    ):
        summary = Summary(value=[Summary.Value(tag="loss", tensor=tensor)])
        writer.write(Event(step=1, summary=summary).SerializeToString())
    writer.close()
    np.testing.assert_array_equal(load_run(file).column("loss"), [2.5])


def test_finds_runs_of_the_program(run_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folders = [run_tiny(exp_name=f"tiny_seed{seed}", seed=seed) for seed in (1, 2)]
    runs = find_runs([tmp_path])
    assert [(run.setting, run.seed) for run in runs] == [("tiny", 1), ("tiny", 2)]
    assert [run.name for run in find_runs(folders[::-1])] == [run.name for run in runs]
    assert (runs[0].seconds or 0) > 0


def test_what_has_no_scalars_is_passed_over(run_tiny: Callable[..., Path], tmp_path: Path) -> None:
    """A run of question 1, one that has just begun, a CSV of something else."""
    run_tiny(exp_name="q1", scalar_log_freq=-1, data_dir=tmp_path / "data")
    begun = tmp_path / "data" / "hw4_begun"
    begun.mkdir()
    (begun / "progress.csv").write_text("Iteration,Eval_AverageReturn\n")
    (tmp_path / "data" / "study.csv").write_text("data,error\npolicy,1\n")
    (tmp_path / "data" / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="data: no run is at or below it"):
        find_runs([tmp_path / "data"])
    run_tiny(exp_name="q2", data_dir=tmp_path / "data")
    assert [run.name for run in find_runs([tmp_path / "data"])] == ["q2"]
    with pytest.raises(UsageError, match="hw4_begun"):
        load_run(begun)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_where_there_is_no_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"{name}: no"):
        find_runs([tmp_path / name])


def test_what_is_wanted_of_an_experiment() -> None:
    assert Result("x", at_least=1.0).is_met(1.0) and not Result("x", at_least=1.0).is_met(0.9)
    assert Result("x", at_most=1.0).is_met(0.9) and not Result("x", at_most=1.0).is_met(1.1)
    assert Result("x").is_met(0.0) is None


def test_experiments_can_be_chosen() -> None:
    experiments = read_experiments()
    chosen = select(experiments, ["q2"], ["q3_reacher"])
    assert [e.name for e in chosen] == ["q2_obstacles_singleiteration", "q3_reacher"]
    assert select(experiments, None, None) == experiments


@pytest.mark.parametrize(
    "text",
    [
        "[[experiment]]\nname = 'a'",
        "experiment = 3",
        "experiment = []",
        "[[experiment]\n",
        json.dumps({"a": 1}),
        *(
            f"[[experiment]]\nscript = 'mb'\nflags = ''\nresults = []\n{words}"
            for words in (
                "name = 'a'\nminutes = 1\nseeds = []",
                "name = 3\nminutes = 1",
                "name = 'a'\nminutes = 1\nseeds = ['x']",
            )
        ),
    ],
)
def test_list_that_is_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "list.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"--experiments .*list.toml: "):
        read_experiments(file)
