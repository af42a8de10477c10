"""Tests of loading logs, grouping runs and aggregating seeds."""

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
from cs285.analysis.plots import curves_figure
from cs285.analysis.report.results_table import table
from cs285.analysis.report.swingup import swingup_table
from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Run, find_runs, load_run
from cs285.analysis.statistics import (
    aggregate,
    bootstrap_interval,
    interquartile_mean,
    last_value,
    smooth,
)
from cs285.experiments.suites import Result, read_experiments, select
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import Logger

EXPORT = '{"flags": {}, "run": {}}'  # the smallest JSON file of an exported run
TEN = np.array([3.0, -1, 4, 1.5, -9, 2.6, 5, 3.5, 8.9, 7.9])


def make_run(name: str, steps: list[float], returns: list[float], **flags: object) -> Run:
    columns = {ENV_STEPS: np.array(steps), EVAL_RETURN: np.array(returns)}
    return Run(name, columns, {"flags": flags} if flags else {}, Path(f"{name}_{len(steps)}"))


def test_iqm_and_interval_equal_rliable() -> None:
    """The numbers are from rliable 1.2.0 with 200000 resamples."""
    assert interquartile_mean(TEN) == pytest.approx(3.26666667)
    low, high = bootstrap_interval(TEN)
    assert low == pytest.approx(0.0333, abs=0.4) and high == pytest.approx(5.7167, abs=0.4)
    assert interquartile_mean(TEN[:3]) == pytest.approx(2.0)
    assert bootstrap_interval(TEN[:3]) == (pytest.approx(-1.0), pytest.approx(4.0))


def test_one_seed_has_no_interval() -> None:
    low, high = bootstrap_interval(TEN[None])
    assert low.shape == high.shape == (10,) and np.isnan([low, high]).all()


def test_smooth_is_a_running_mean_without_nan() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 3, 5, 1]), 2), [1, 2, 4, 3])
    np.testing.assert_allclose(smooth(TEN, 1), TEN)
    np.testing.assert_allclose(smooth(TEN, 100)[-1], TEN.mean())
    np.testing.assert_allclose(smooth(np.array([np.nan, 1, np.nan, 3]), 2), [np.nan, 1, 1, 3])


def test_seeds_are_interpolated_to_the_same_env_steps() -> None:
    """The curve covers the range of env steps that all seeds have."""
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
    with pytest.raises(
        UsageError, match=f"column Eval: a does not have it; must be one of {EVAL_RETURN}"
    ):
        aggregate([run], "Eval")
    assert last_value(run, EVAL_RETURN) == 2
    with pytest.raises(UsageError, match="must be a run that has logged Eval_AverageReturn"):
        last_value(make_run("a", [0], [np.nan]), EVAL_RETURN)
    messages: list[str] = []
    other = make_run("b", [0], [np.nan])
    assert with_column("--y", EVAL_RETURN, [run, other], messages.append) == [run]
    assert messages == [
        f"b_1: skipped because it has no values of {EVAL_RETURN}; choose another column, or wait "
        "until the run has logged it"
    ]
    with pytest.raises(UsageError, match="--y Eval: no run has values of it"):
        with_column("--y", "Eval", [run, other])


def test_a_decreasing_axis_is_an_error() -> None:
    with pytest.raises(UsageError, match=f"--x {ENV_STEPS}: .* it decreases in .*a_3"):
        aggregate([make_run("a", [0, 200, 100], [0.0, 1, 2])])


def test_a_thinned_curve_keeps_its_first_and_last_value() -> None:
    steps = list(map(float, range(20000)))
    curve = aggregate([make_run(f"a_seed{seed}", steps, steps) for seed in (1, 2)])
    assert len(curve.x) == 1000 and (curve.x[0], curve.x[-1]) == (0, 19999)
    np.testing.assert_array_equal(curve.center, curve.x)


def test_seeds_without_common_env_steps_or_values() -> None:
    apart = [make_run("a_seed1", [0, 1], [0, 0]), make_run("a_seed2", [2, 3], [0, 0])]
    with pytest.raises(UsageError, match="must be a column with a range that all seeds of a share"):
        aggregate(apart)
    with pytest.raises(UsageError, match=f"a_seed1_2: must be a run that has logged {EVAL_RETURN}"):
        aggregate([make_run("a_seed1", [0, 1], [np.nan, np.nan])])


@pytest.mark.parametrize(
    "content", [b"a,b\n1,policy\n", b"a,b\n1\n", b"a,b\n1,2\n1\n", b"\xff\xfe\n"]
)
def test_a_csv_must_be_a_table_of_numbers(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"table.csv: .*; must be a CSV of numbers"):
        load_run(file)


@pytest.mark.parametrize("described", ["[1]", "null", "3", '{"a": 1}'])
def test_a_json_without_flags_is_ignored(described: str, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n3,4")  # without a final newline
    (tmp_path / "curve.json").write_text(described)
    run = load_run(tmp_path / "curve.csv")
    assert (run.name, run.seed) == ("curve", None)
    np.testing.assert_array_equal(run.column("b"), [2, 4])
    log = tmp_path / "progress.csv"
    log.write_text("a,b\n1,2\n3,4")  # the run is writing the last line
    np.testing.assert_array_equal(load_run(log).column("b"), [2])


@pytest.mark.parametrize("described", ['{"flags": null}', "{", '{"flags": {"seed": "x"}}', ""])
def test_a_damaged_description_of_an_export_is_an_error(described: str, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n")
    (tmp_path / "curve.json").write_text(described)
    with pytest.raises(UsageError, match=r"curve.json: .*; must be the description of a run"):
        load_run(tmp_path / "curve.csv")


@pytest.mark.parametrize("missing", [".csv", ".json"])
def test_half_an_export_is_an_error(missing: str, tmp_path: Path) -> None:
    export = tmp_path / "q3" / "q3_reacher_seed1.csv"
    export.parent.mkdir()
    export.write_text(f"{ENV_STEPS},{EVAL_RETURN}\n1,2\n")
    export.with_suffix(".json").write_text(EXPORT)
    experiments = select(read_experiments(), None, ["q3_reacher"])
    assert "| 2 |" in table(experiments, tmp_path)[2]
    export.with_suffix(missing).unlink()
    with pytest.raises(UsageError, match=rf"q3_reacher_seed1\{missing}: .*must be "):
        table(experiments, tmp_path)


def test_an_unreadable_log_is_skipped_and_reported(tmp_path: Path) -> None:
    for name, text in (("one", "a\n1\n"), ("two", "a\nx\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.csv").write_text(text)
    messages: list[str] = []
    assert [run.name for run in find_runs([tmp_path, tmp_path / "one"], messages.append)] == ["one"]
    assert len(messages) == 1 and "two" in messages[0]


def test_runs_are_grouped_by_name_without_seed() -> None:
    names = ["q4_horizon5_seed1", "q4_horizon5_seed2", "q4_horizon15_seed1", "seedless"]
    groups = group_seeds([make_run(name, [0], [0]) for name in names])
    assert {key: [run.seed for run in runs] for key, runs in groups.items()} == {
        "q4_horizon5": [1, 2], "q4_horizon15": [1], "seedless": [None],
    }  # fmt: skip


def test_runs_with_the_same_name_and_different_flags_are_different_settings() -> None:
    """All runs have the default name, todo. If a seed has two runs, the longer run counts."""
    runs = [
        make_run("todo", [0, 1], [0, 0], seed=1, env_name="cheetah", size=8, n_iter=2),
        make_run("todo", [0, 1, 2], [0, 0, 0], seed=2, env_name="cheetah", size=8, n_iter=3),
        make_run("todo", [0, 1], [0, 0], seed=1, env_name="obstacles", size=8),
        make_run("todo", [0], [0], seed=2, env_name="obstacles", size=8),
        make_run("todo", [0, 1, 2], [0, 0, 0], seed=1, env_name="cheetah", size=16),
        make_run("todo", [0], [0], seed=1, env_name="cheetah", size=8),
    ]
    messages: list[str] = []
    groups = group_seeds(runs, messages.append)
    assert {key: [len(run) for run in members] for key, members in groups.items()} == {
        "todo env_name=cheetah size=8": [2, 3],
        "todo env_name=obstacles size=8": [2, 1],
        "todo env_name=cheetah size=16": [3],
    }
    assert messages == [
        "todo_1: skipped because todo_2 has the same seed; pass only one of the two runs"
    ]


def test_runs_of_different_scripts_are_different_settings() -> None:
    runs = [make_run("todo", [0, 1], [0, 0], seed=seed, size=8) for seed in (1, 2, 1)]
    for run, script in zip(runs, ("mb.py", "mb.py", "mbpo.py"), strict=True):
        run.config["script"] = script
    groups = group_seeds(runs)
    assert {key: len(members) for key, members in groups.items()} == {
        "todo script=mb.py": 2,
        "todo script=mbpo.py": 1,
    }


def test_runs_of_different_agents_in_one_module_are_different_settings() -> None:
    runs = [make_run("todo", [0, 1], [0, 0], seed=seed, size=8) for seed in (1, 2, 3)]
    for run, agent in zip(runs, ("mine:one", "mine:two", "mine:two"), strict=True):
        run.config.update(script="mine.py", agent=agent)
    groups = group_seeds(runs)
    assert {key: len(members) for key, members in groups.items()} == {
        "todo agent=mine:one": 1,
        "todo agent=mine:two": 2,
    }


def test_csv_and_event_file_of_a_run_have_equal_columns(tmp_path: Path) -> None:
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
    """They hold one scalar per record, a video and a truncated record, without a config.json.

    The run was restarted at step 2. From there on, the values of the restart count.
    """
    folder = tmp_path / "hw4_q3_reacher_reacher-cs285-v0_05-11-2020_10-20-30"
    for first, end in ((0, 9), (2, 4)):
        writer = SummaryWriter(str(folder), filename_suffix=f".{first}")
        for step in range(first, end):
            writer.add_scalar("Eval_AverageReturn", -100.0 * first - step, step)
            writer.add_scalar("Training Loss", step, step)
        writer.add_video("rollout", np.zeros((1, 2, 3, 8, 8), np.uint8), 3)
        writer.close()
        time.sleep(1.1)  # the file names give the order, in whole seconds
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-3])
    run = load_run(folder)
    assert (run.name, run.config) == ("q3_reacher_reacher-cs285-v0", {})
    np.testing.assert_array_equal(run.column(EVAL_RETURN), [0, -1, -202, -203])
    np.testing.assert_array_equal(run.column("Training Loss"), [0, 1, 2, 3])


def test_scalars_stored_as_tensors_are_read(tmp_path: Path) -> None:
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


def test_find_runs_loads_log_folders(run_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folders = [run_tiny(exp_name=f"tiny_seed{seed}", seed=seed) for seed in (1, 2)]
    runs = find_runs([tmp_path])
    assert [(run.setting, run.seed) for run in runs] == [("tiny", 1), ("tiny", 2)]
    assert [run.name for run in find_runs(folders[::-1])] == [run.name for run in runs]
    assert (runs[0].seconds or 0) > 0


def test_runs_without_scalars_are_skipped(run_tiny: Callable[..., Path], tmp_path: Path) -> None:
    """These are runs of question 1, runs that have just begun, and unrelated CSV files."""
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
def test_a_path_without_runs_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"{name}: no"):
        find_runs([tmp_path / name])


def test_a_result_meets_its_target() -> None:
    assert Result("x", at_least=1.0).is_met(1.0) and not Result("x", at_least=1.0).is_met(0.9)
    assert Result("x", at_most=1.0).is_met(0.9) and not Result("x", at_most=1.0).is_met(1.1)
    assert Result("x").is_met(0.0) is None


def test_a_result_reaches_its_stated_figure_independently_of_the_target() -> None:
    result = Result("x", stated="-300 to -250", stated_at_least=-300, at_least=-260)
    assert result.reaches_stated(-262.8) and not result.is_met(-262.8)
    assert result.reaches_stated(-200)  # better than the stated range
    assert not result.reaches_stated(-301)
    loss = Result("x", stated="below 0.2", stated_at_most=0.2)
    assert loss.reaches_stated(0.1) and not loss.reaches_stated(0.3)
    assert loss.is_met(0.1) is None
    assert Result("x", stated="a trend").reaches_stated(0.0) is None


@pytest.mark.parametrize("name", ["homework", "research"])
def test_stated_bounds_agree_with_the_stated_text(name: str) -> None:
    results = [result for experiment in read_experiments(name) for result in experiment.results]
    bounded = 0
    for result in results:
        for bound in (result.stated_at_least, result.stated_at_most):
            if bound is not None:
                assert f"{bound:g}" in result.stated.split()
                bounded += 1
    assert bounded >= 2


def test_the_table_judges_stated_figure_and_target_separately(tmp_path: Path) -> None:
    (tmp_path / "q3").mkdir()
    rows = "\n".join(f"{step},-262.8" for step in range(3))
    (tmp_path / "q3" / "q3_reacher_seed1.csv").write_text(f"{ENV_STEPS},{EVAL_RETURN}\n{rows}\n")
    (tmp_path / "q3" / "q3_reacher_seed1.json").write_text(EXPORT)
    row = table(select(read_experiments(), None, ["q3_reacher"]), tmp_path)[2]
    assert "| -262.8 | not run | -300 to -250: reached | ≥ -260: missed |" in row
    sharp = "q3_reacher_sharp_seed2.csv"
    (tmp_path / "q3" / sharp).write_text(f"{ENV_STEPS},{EVAL_RETURN}\n1,-250\n")
    (tmp_path / "q3" / sharp).with_suffix(".json").write_text(EXPORT)
    (row,) = table(select(read_experiments(), None, ["q3_reacher"]), tmp_path)[2:]
    assert "| -262.8 | -250 | -300 to -250: reached |" in row


def test_experiments_are_selected_by_question_and_name() -> None:
    experiments = read_experiments()
    chosen = select(experiments, ["q2"], ["q3_reacher"])
    name = "q2_obstacles_singleiteration"
    assert [e.name for e in chosen] == [name, f"{name}_sharp", "q3_reacher"]
    assert chosen[1].flags == (*chosen[0].flags, "--preset", "sharp")
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
def test_an_invalid_list_is_an_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "list.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"--experiments .*list.toml: "):
        read_experiments(file)


def test_swing_ups_are_timed_until_the_first_good_evaluation(tmp_path: Path) -> None:
    """40 env steps are 4 s; a later failure does not count."""
    (tmp_path / "pilco").mkdir()
    shares = {
        1: ["0,0", "0.9,0.8", "0.5,1"],
        2: ["0,0", "0.8,0", "0.8,0"],
        3: ["1,1", "0,0", "1,1"],
    }
    for seed, rows in shares.items():
        file = tmp_path / "pilco" / f"pilco_cartpole_seed{seed}.csv"
        trials = [",,", "0.5,30,20", "1,12,10"]  # the first has no prediction
        lines = [f"{40 * (trial + 1)},{row},{trials[trial]}" for trial, row in enumerate(rows)]
        header = f"{ENV_STEPS},Eval_Success,Eval_StrictSuccess"
        header += ",Trial Coverage,Trial Cost,Trial Predicted Cost"
        file.write_text("\n".join([header, *lines, ""]))
        file.with_suffix(".json").write_text(EXPORT)
    pendulum, cartpole, *_ = swingup_table(tmp_path)[2:]
    target = "10 of 10 seeds within 16 s: 0 of 0 so far"
    assert pendulum == f"| PILCO, pendulum | not run | not run |  |  |  |  | {target} |"
    target = "8 of 10 seeds within 28 s: 2 of 3 so far"
    assert f"| 50%, 80%, 100% | 60% | 75% | 6.0 | {target} |" in cartpole
    assert "| 8, never, 4 (2 of 3 seeds, median 8 s) |" in cartpole
    assert "| 12, never, 4 (2 of 3 seeds, median 12 s) |" in cartpole


def test_last_value_until_an_env_step() -> None:
    run = make_run("a", [0, 100, 200, 300], [1.0, 2, 4, 8])
    assert last_value(run, EVAL_RETURN, 2, 200) == 3
    assert last_value(run, EVAL_RETURN, 2, 250) == 3
    assert last_value(run, EVAL_RETURN, 2) == 6


def test_panels_with_their_own_axis_and_published_values() -> None:
    groups = {"a": [make_run("a", [0, 100], [1.0, 2])]}
    figure = curves_figure(
        {"one": groups, "two": groups, "three": groups, "four": groups},
        x_of={"two": EVAL_RETURN},
        marks={"one": {"other": [[50, 1]], "paper": [[50, 1.5], [100, 3]]}},
    )
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
    one, two = figure.axes[:2]
    assert (one.get_xlabel(), two.get_xlabel()) == ("env steps", "evaluation return")
    crosses = one.get_lines()[-1]
    assert np.asarray(crosses.get_xydata()).tolist() == [[50, 1.5], [100, 3]]
    assert crosses.get_marker() != one.get_lines()[-2].get_marker()
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["a", "other", "paper"]
    assert len(two.get_lines()) == 1
