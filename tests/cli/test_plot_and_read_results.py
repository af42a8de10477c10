"""Tests of plot_results.py, read_results.py and the report of the committed results."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from tensorboardX import SummaryWriter

from cs285.analysis.report.figures import figures
from cs285.analysis.report.results_table import table
from cs285.analysis.report.study import read_rows
from cs285.experiments.suites import read_experiments, select
from cs285.scripts import plot_results, read_results
from tests.conftest import error_of, exit_code_of, read_curve

ROOT = Path(__file__).parents[2]
Run = Callable[..., Path]


@pytest.fixture
def sweep(run_tiny: Run, tmp_path: Path) -> Path:
    """Return a folder with runs of two settings and two seeds, and an old event file."""
    folder = tmp_path / "sweep"
    for size in (8, 16):
        for seed in (1, 2):
            run_tiny(exp_name=f"size{size}_seed{seed}", size=size, seed=seed, data_dir=folder)
    writer = SummaryWriter(str(folder / "old"))
    for step in range(3):
        writer.add_scalar("Eval_AverageReturn", -step, step)
        writer.add_scalar("Train_EnvstepsSoFar", 60 + 40 * step, step)
    writer.close()
    return folder


def test_plot_has_a_line_per_setting(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "deeper" / "curves.svg"
    assert plot_results.main([str(sweep), "--output", str(picture)]) == 0
    assert "5 runs, 3 settings" in capsys.readouterr().out
    first = picture.read_bytes()
    assert b"<svg" in first
    assert plot_results.main([str(sweep), "--output", str(picture), "--match", "size8"]) == 0
    assert "2 runs, 1 setting" in capsys.readouterr().out
    assert picture.read_bytes() != first


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_plot_warns_about_curves_that_it_cannot_draw_completely(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed ends early. Some of the project's results have no learning curve."""
    log = next(sweep.glob("hw4_size8_seed2_*")) / "progress.csv"
    log.write_text("\n".join(log.read_text().split("\n")[:2]) + "\n")
    output = ["--output", str(tmp_path / "curves.png")]
    assert plot_results.main([str(sweep), *output]) == 0
    error = capsys.readouterr().err
    assert "size8: the line ends at Train_EnvstepsSoFar" in error and str(log.parent) in error
    assert plot_results.main([str(ROOT / "results"), *output]) == 0
    assert "q1_cheetah_n500_arch1x32_seed1.csv: skipped" in capsys.readouterr().err


def test_read_results_prints_the_logged_values(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_results.main([str(sweep), "--csv", "--columns", "Eval_AverageReturn"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    (folder,) = sweep.glob("hw4_size8_seed2_*")
    expected = [float(row["Eval_AverageReturn"]) for row in read_curve(folder)]
    printed = [float(r["Eval_AverageReturn"]) for r in rows if r["run"] == "size8_seed2"]
    assert printed == expected
    assert [float(r["Eval_AverageReturn"]) for r in rows if r["run"] == "old"] == [0, -1, -2]
    assert read_results.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == f"size8_seed2  {folder}"
        and "Eval_AverageReturn" in lines[1]
        and len(lines) == 4
    )


def test_read_results_prints_the_mean_of_the_last_evaluations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = ROOT / "results" / "q3" / "q3_reacher_seed1.csv"
    assert read_results.main([str(file)]) == 0
    rows = list(csv.DictReader(file.open()))
    mean = fmean(float(row["Eval_AverageReturn"]) for row in rows[-3:])
    assert capsys.readouterr().out.endswith(f"Eval_AverageReturn, mean of the last 3: {mean:.6g}\n")


def test_csv_of_runs_with_different_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed results include SAC runs with only returns, and question 1 with only losses."""
    assert read_results.main([str(ROOT / "results"), "--csv"]) == 0
    printed = capsys.readouterr()
    assert "q1_cheetah_n500_arch1x32_seed1.csv: skipped" in printed.err
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    names = {row["run"] for row in rows}
    assert {"q3_obstacles_seed1", "sb3_halfcheetah_seed3"} <= names
    assert {row["Train_AverageReturn"] for row in rows if row["run"].startswith("sb3")} == {""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PATH", "--y", "Eval"], "--y Eval: "),
        (["PATH", "--smooth", "0"], "--smooth 0: must be an integer of at least 1"),
        (["PATH", "--smooth", "x"], "--smooth x: must be an integer of at least 1"),
        (["PATH", "--output", "x.txt"], "--output x.txt: must end in one of .png"),
        (["PATH", "--match", "zzz"], "--match zzz: "),
        (["PATH", "--match", "("], "--match (: "),
        (["nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_bad_input_is_a_one_line_error(
    words: list[str], message: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(sweep.rglob("*"))
    code = exit_code_of(plot_results.main, [word.replace("PATH", str(sweep)) for word in words])
    assert code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(sweep.rglob("*")) == before


def test_curve_without_rows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "progress.csv").touch()
    error = error_of(read_results.main, [tmp_path], capsys)
    assert f"{tmp_path}/progress.csv: no rows yet; must be a CSV with at least one row" in error


def test_report_of_the_committed_results() -> None:
    """Every figure can be drawn, and every experiment has a row."""
    results = ROOT / "results"
    experiments = [*read_experiments(), *read_experiments("research")]
    rows = table(experiments, results)
    assert all(any(e.name.removesuffix("_sharp") in row for row in rows) for e in experiments)
    assert {"q1_losses", "q3", "q6", "sac"} <= set(figures(results))
    written = (results / "README.md").read_text()
    assert [row for row in rows if row not in written] == []  # else: run make_report.py
    others = {result.at_least_that_of for e in experiments for result in e.results}
    assert others - {""} <= {e.name for e in experiments}


def test_report_with_another_experiment_as_the_target(tmp_path: Path) -> None:
    """The target is the other experiment's mean over seeds, once all of its runs are finished."""
    experiments = select(read_experiments("research"), None, ["mbpo_halfcheetah"])
    shutil.copytree(ROOT / "results" / "mbpo", tmp_path / "mbpo")
    others = sorted((tmp_path / "mbpo").glob("mbpo_halfcheetah_sac_seed*.csv"))
    curves = [[float(row["Eval_AverageReturn"]) for row in read_rows(file)] for file in others]
    bound = fmean(fmean(curve[-3:]) for curve in curves)
    met = table(experiments, tmp_path)[3]
    assert f"| ≥ {bound:.4g} (mean of mbpo_halfcheetah_sac): met |" in met
    last = read_rows(others[0])[-1]
    with others[0].open("a", newline="") as file:
        csv.DictWriter(file, last).writerow({**last, "Eval_AverageReturn": "1e6"})
    assert "(mean of mbpo_halfcheetah_sac): missed |" in table(experiments, tmp_path)[3]
    for other in others:
        other.unlink()
        other.with_suffix(".json").unlink()
    row = table(experiments, tmp_path)[3]
    assert "| ≥ mean of mbpo_halfcheetah_sac |" in row  # without a verdict


def test_report_names_the_flags_that_have_changed_since_a_run(tmp_path: Path) -> None:
    name = "mbpo_inverted_pendulum"
    (experiment,) = select(read_experiments("research"), None, [name])
    shutil.copytree(ROOT / "results" / "mbpo", tmp_path / "mbpo")
    assert "other values" not in table([experiment], tmp_path)[2]
    flags = (*experiment.flags, "--sac_discount", "0.9", "--mpc_horizon", "3")  # no planner
    changed = replace(experiment, flags=flags)
    assert "; run with other values of `--sac_discount` |" in table([changed], tmp_path)[2]


def test_report_of_a_run_exported_before_its_end(tmp_path: Path) -> None:
    """The row shows the progress of the run, and gives no verdict on the target."""
    name = "mbpo_inverted_pendulum"
    experiments = select(read_experiments("research"), None, [name])
    shutil.copytree(ROOT / "results" / "mbpo", tmp_path / "mbpo")
    assert "| ≥ 1000: met |" in table(experiments, tmp_path)[2]
    file = tmp_path / "mbpo" / f"{name}_seed2.json"
    source = json.loads(file.read_text())
    source["run"]["iterations"] = 1500
    file.write_text(json.dumps(source))
    row = table(experiments, tmp_path)[2]
    assert f"; seed 2 at iteration 1500 of {source['flags']['n_iter']} |" in row
    assert "| ≥ 1000: unfinished |" in row
