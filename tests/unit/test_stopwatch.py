"""Tests of the stopwatch and of the line of an iteration."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cs285.infrastructure import rl_trainer
from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.recording import stopwatch
from cs285.infrastructure.recording.progress import describe_iteration
from cs285.scripts import run_hw4_mb


def test_nested_phases_do_not_count_for_outer_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    watch = stopwatch.Stopwatch()
    with watch.phase("other"):
        now[0] += 1
        with watch.phase("SAC"):
            now[0] += 2
            for _ in range(2):
                with watch.phase("rollouts"):
                    now[0] += 3
        with pytest.raises(ZeroDivisionError), watch.phase("log"):
            now[0] += 0.05
            raise ZeroDivisionError
    assert watch.seconds == pytest.approx({"other": 1, "SAC": 2, "rollouts": 6, "log": 0.05})
    assert stopwatch.describe_phases(watch.seconds) == "rollouts 66%, SAC 22%, other 11%"


def test_run_prints_its_time_by_phase(
    run_tiny: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def phases() -> dict[str, float]:
        return load_checkpoint(folder / "checkpoint.pt", "cpu")["counters"]["seconds_by_phase"]

    folder = run_tiny(n_iter=2)
    before = phases()
    assert set(before) >= {"collect at random", "collect", "fit", "evaluate", "log", "figures"}
    assert run_hw4_mb.main(["--resume", str(folder), "--n_iter", "3"]) == 0
    assert all(phases()[name] >= seconds for name, seconds in before.items())
    assert phases()["collect at random"] == before["collect at random"]  # from the first session
    assert "time: " in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["Training Loss", "Predicted Cost"])
def test_line_of_an_iteration_has_at_most_100_columns(loss: str) -> None:
    scalars = {"Eval_AverageReturn": -3123.456, loss: 0.00594321}
    short = describe_iteration(3, 20, scalars, 3000, 52.31, 42)
    assert short == (
        f"iteration 3 of 20: return -3123.5, 3000 env steps, {loss} 0.00594, 52.3 steps/s, "
        "42 s left"
    )
    long = describe_iteration(120001, 145001, scalars, 1_125_000, 12.91, 36_600)
    assert long == (
        "iteration 120001 of 145001: return -3123.5, 1125000 env steps, 12.9 steps/s, "
        "10 h 10 min left"
    )
    assert max(map(len, (short, long))) <= 100


@pytest.mark.parametrize(("continue_episodes", "first"), [(True, "3 min 20 s"), (False, "27 h 46")])
def test_remaining_time_allows_for_the_size_of_iteration_0(
    continue_episodes: bool,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = SimpleNamespace(
        n_iter=1001, batch_size=1, batch_size_initial=500, continue_episodes=continue_episodes
    )
    counters = SimpleNamespace(env_steps=500)
    trainer: Any = SimpleNamespace(config=config, counters=counters, _timed_from=(0.0, 0, 0))
    now = [100.0]
    monkeypatch.setattr(rl_trainer.time, "monotonic", lambda: now[0])
    rl_trainer.RL_Trainer._report(trainer, 0, {})  # 500 env steps in 100 s
    now[0], counters.env_steps = 120.0, 510
    rl_trainer.RL_Trainer._report(trainer, 10, {})  # 10 more in 20 s
    lines = capsys.readouterr().out.splitlines()
    assert "500 env steps, 5 steps/s" in lines[0] and first in lines[0]
    assert "510 env steps, 0.5 steps/s, 33 min 00 s left" in lines[1]
