"""Check of question 3: one iteration of the trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from cs285.assignment.checks.support import require
from cs285.infrastructure.recording.stopwatch import Stopwatch
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.rl_trainer import RL_Trainer


def iterate() -> None:
    """Check the order of the phases of an iteration, by a diary that fakes write."""
    steps = ["collect 3", "advise", "add", "train", "log", "video 3"]
    diary, scalars = _run(3, is_logged=True)
    require(sorted(diary) == sorted(steps), f"phases: expected {steps}, got {diary}")
    early = "; likely mistake: the model must see the newest data before it is fitted"
    likely = early if diary.index("train") < diary.index("add") else ""
    require(diary == steps, f"order of the phases: expected {steps}, got {diary}{likely}")
    require(scalars == {"logged": 5.0}, f"scalars of a logged iteration: got {scalars}")
    diary, scalars = _run(4, is_logged=False)
    expected = ["collect 4", "advise", "add", "train"]
    require(diary == expected, f"without logging and video: expected {expected}, got {diary}")
    require(
        scalars == {"loss": 1.0}, f"not logged: expected the metrics of training, got {scalars}"
    )


def _run(iteration: int, is_logged: bool) -> tuple[list[str], dict[str, float]]:
    """Run an iteration with fakes, and return the diary and the scalars."""
    diary: list[str] = []
    columns = np.zeros((2, 1), np.float32), np.zeros((3, 1), np.float32)
    paths = [Path(c, c, c[:, 0], c, np.zeros(len(c), bool)) for c in columns]
    trainer: Any = RL_Trainer.__new__(RL_Trainer)
    trainer.config = SimpleNamespace(video_log_freq=3)
    trainer.counters = SimpleNamespace(env_steps=10)
    trainer.stopwatch = Stopwatch()

    def note(word: str, returned: Any = None) -> Any:
        diary.append(word)
        return returned

    def add(given: Any, number: int) -> None:
        require(given is paths and number == iteration, "the agent must get the new paths")
        note("add")

    def train(number: int) -> dict[str, float]:
        counted = trainer.counters.env_steps
        require(
            counted == 15,
            f"env steps at training: expected 10 + 2 + 3 = 15, got {counted}; "
            "count the env steps of the paths, not the paths",
        )
        return note("train", {"loss": 1.0})

    def log(number: int, metrics: dict[str, float]) -> dict[str, float]:
        require(metrics == {"loss": 1.0}, "the log must get the metrics of training")
        return note("log", {"logged": 5.0})

    trainer.agent = SimpleNamespace(add_to_replay_buffer=add)
    trainer.advise = lambda given, number: note("advise")
    trainer._collect = lambda number: note(f"collect {number}", paths)
    trainer._train, trainer._log = train, log
    trainer._log_video = lambda number: note(f"video {number}")
    return diary, trainer._iterate(iteration, is_logged)
