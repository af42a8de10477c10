"""The training loop for any agent: collect, train, evaluate, log, and save checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch

from cs285.agents.base_agent import BaseAgent
from cs285.collection.collector import Collector
from cs285.collection.continuing_collector import ContinuingCollector
from cs285.collection.episodes import MAX_ENV_SEED, EnvFactory, EpisodeKey, film
from cs285.config.run import RunConfig
from cs285.envs.checked_env import close_env
from cs285.envs.registration import SuccessFunction
from cs285.infrastructure.checkpoint import read_checkpoint, save_checkpoint
from cs285.infrastructure.errors import (
    DivergedError,
    RunError,
    UsageError,
    VideoError,
    message_of,
)
from cs285.infrastructure.interrupts import Interrupts
from cs285.infrastructure.logger import Logger, read_rows, to_floats
from cs285.infrastructure.pytorch_util import derive_seed, make_generator, to_numpy
from cs285.infrastructure.recording.figures import save_forecast, save_losses, save_predictions
from cs285.infrastructure.recording.progress import CollectionProgress, describe_iteration
from cs285.infrastructure.recording.stopwatch import describe_phases
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.run_folder import (
    BEST,
    CHECKPOINT,
    CONFIG,
    PREVIOUS,
    PROGRESS,
    has_checkpoint,
    run_id,
)
from cs285.infrastructure.unfinished import Unfinished
from cs285.infrastructure.utils import perform_actions, return_statistics, success_rates
from cs285.models.base_model import DynamicsModel
from cs285.models.open_loop import imagine, mean_prediction_error
from cs285.policies.base_policy import Memory, Policy

SHORT_SECONDS = 1.0  # an interrupt waits for the end of an iteration that is shorter than this
FIGURE_HORIZON = 10  # env steps in question 1's prediction figure, as in the homework


@dataclass
class Counters:
    """The progress of a run; every checkpoint has it."""

    next_iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0  # over all sessions: the first start and every resume
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    initial_return: float | None = None  # mean over the episodes that finished in iteration 0
    best_return: float | None = None  # the highest mean return of an evaluation
    # Statistics of the last iteration in which an episode finished.
    train_statistics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError if a checkpoint holds impossible values."""
        counts = (self.next_iteration, self.env_steps)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"counters {counts}")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"seconds {self.seconds}")


class RL_Trainer:
    """Trains an agent for `n_iter` iterations, from the start or from a checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        folder: FilePath,
        agent: BaseAgent,
        random_policy: Policy,
        collector: Collector | ContinuingCollector,
        evaluator: Collector,
        env_factory: EnvFactory,
        render_env_factory: EnvFactory,
        device: torch.device,
        advise: Callable[[list[Path], int], None],
        which_checkpoint: str,
        interrupts: Interrupts,
        callback: Callable[[int, Mapping[str, float]], None] | None,
        get_success: SuccessFunction | None,
    ) -> None:
        """Restore the last or the previous checkpoint in `folder`, if there is one.

        `advise(paths, iteration)` runs after each collection, and `callback(iteration, scalars)`
        after each logged iteration, after its checkpoint. `get_success` judges the episodes of an
        evaluation, if the task has success criteria. Raises UsageError: the checkpoint is
        missing although progress.csv has rows, or it belongs to another run.
        """
        if config.save_params and not agent.parameters_dict():
            raise UsageError(
                "--save_params: must be omitted, because this agent's `parts` name no weights"
            )
        self.config, self.folder, self.agent = config, folder, agent
        self.random_policy, self.collector, self.evaluator = random_policy, collector, evaluator
        self.env_factory, self.render_env_factory = env_factory, render_env_factory
        self.advise, self.callback = advise, callback
        self.get_success = get_success
        self.interrupts = interrupts
        self.counters = Counters()
        log_state: dict[str, int] | None = None
        if has_checkpoint(folder):
            state = read_checkpoint(folder, device, which=which_checkpoint)
            log_state = self._restore(state)
        elif len(read_rows(folder / PROGRESS)) > 1:  # iteration 0 is logged before its checkpoint
            raise UsageError(
                f"--resume {folder}: its {CHECKPOINT} is missing, so the run would start again "
                f"from iteration 0; must be a log folder with its {CHECKPOINT}"
            )
        agent.unfinished = self._unfinished = Unfinished(folder, device)
        self.stopwatch = agent.stopwatch
        self.stopwatch.seconds |= self.counters.seconds_by_phase
        self._started = time.monotonic() - self.counters.seconds  # includes earlier sessions
        self._saved = self.counters.next_iteration  # iterations in the checkpoint
        self._run_id = run_id(folder)
        self.logger = Logger(folder, self.counters.next_iteration, log_state, config.track)
        if which_checkpoint == "previous":  # it is the last one from now on
            (folder / PREVIOUS).replace(folder / CHECKPOINT)

    def run_training_loop(self) -> None:
        """Run the remaining iterations.

        Raises DivergedError: a training metric is non-finite. The policy does not act after that.
        Raises KeyboardInterrupt: Ctrl-C or SIGTERM.
        """
        config, counters = self.config, self.counters
        self._timed_from = time.monotonic(), counters.next_iteration, counters.env_steps
        if counters.next_iteration >= config.n_iter:
            print(
                f"nothing to do: {counters.next_iteration} iterations are complete; pass a higher "
                "--n_iter to continue"
            )
        with self.logger:
            for iteration in range(counters.next_iteration, config.n_iter):
                is_logged = _due(config.scalar_log_freq, iteration)
                begun = time.monotonic()
                with self.stopwatch.phase("other"):
                    scalars = self._iterate(iteration, is_logged)
                self.interrupts.waits = time.monotonic() - begun < SHORT_SECONDS
                counters.seconds = time.monotonic() - self._started
                counters.next_iteration = iteration + 1
                is_last = iteration + 1 == config.n_iter or self.interrupts.asked
                if (config.checkpoint_freq > 0 and is_last) or _due(
                    config.checkpoint_freq, iteration
                ):
                    with self.stopwatch.phase("checkpoint"):
                        self._save()
                if is_logged or not config.continue_episodes:  # avoid one line per env step
                    self._report(iteration, scalars)
                if self.callback and is_logged:
                    self.callback(iteration, scalars)
                if self.interrupts.asked:
                    raise KeyboardInterrupt
        self.interrupts.waits = False
        print(f"wall-clock time: {describe_phases(self.stopwatch.seconds)}")

    @property
    def unsaved_iterations(self) -> int:
        """The number of complete iterations that no checkpoint has."""
        return self.counters.next_iteration - self._saved

    def _iterate(self, iteration: int, is_logged: bool) -> dict[str, float]:
        """Collect, train, evaluate and log. Return the scalars of the iteration."""
        paths = self._collect(iteration)
        self.advise(paths, iteration)
        self.agent.add_to_replay_buffer(paths, iteration)
        self.counters.env_steps += sum(path.length for path in paths)
        metrics = self._train(iteration)
        scalars = self._log(iteration, metrics) if is_logged else metrics
        if _due(self.config.video_log_freq, iteration):
            with self.stopwatch.phase("videos"):
                self._log_video(iteration)
        return scalars

    def _restore(self, state: dict[str, Any]) -> dict[str, int]:
        """Restore a checkpoint, and return the state of the log files."""
        try:
            self.agent.load_state_dict(state["agent"])
            self.counters = Counters(**state["counters"])
            collected, logged = state["collector"], state["log"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--resume {self.folder}: its {CHECKPOINT} does not match its {CONFIG}; must be a "
                "log folder with the checkpoint of the same run"
            ) from error
        # Outside the try block, because it steps the user's environment, which may raise, too.
        self.collector.load_state_dict(collected)
        return logged

    def _collect(self, iteration: int) -> list[Path]:
        config = self.config
        initial = iteration == 0
        policy = self.random_policy if initial else self.agent.actor
        steps = config.batch_size_initial if initial else config.batch_size
        phase = self.stopwatch.phase("collect at random" if initial else "collect")
        with phase, CollectionProgress("collecting", steps) as progress:
            paths, finished = self.collector.collect(policy, steps, "train", iteration, progress)
        if finished:
            self.counters.train_statistics = return_statistics("Train", finished)
        if finished and initial:
            self.counters.initial_return = self.counters.train_statistics["Train_AverageReturn"]
        return paths

    def _train(self, iteration: int) -> dict[str, float]:
        losses = self.agent.train(iteration)
        metrics = to_floats(losses)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} is {value} in iteration {iteration}: learning diverged; a new run "
                    "needs other flags, for example a smaller learning rate"
                )
        if iteration == 0 and self.agent.model is not None and "Training Loss" in losses:
            with self.stopwatch.phase("figures"):
                save_losses(self.folder, to_numpy(losses["Training Loss"]))
                self._save_predictions(self.agent.model)
        return metrics

    def _save_predictions(self, model: DynamicsModel) -> None:
        """Write question 1's figure: open-loop predictions for random actions.

        As in the homework, the figure and the mean prediction error are of the first member (with
        fewer elites than members, of the best one). The error of the ensemble's mean prediction is
        reported next to it.
        """
        generator = make_generator(self.config.seed, "figure actions")
        memories = [Memory(generator)] * FIGURE_HORIZON
        actions = self.random_policy.get_action(np.empty(0, np.float32), memories)
        env = self.env_factory()
        env_seed = derive_seed(self.config.seed, "figure env") % MAX_ENV_SEED
        true = perform_actions(env, actions, env_seed)
        close_env(env)
        imagined = imagine(model, true[:1], actions[None, : len(true) - 1])
        members = imagined.observations[:, 0]
        error = mean_prediction_error(true, members[0])
        ensemble_error = mean_prediction_error(true, members.mean(0))
        print(
            f"  mean prediction error over {len(true) - 1} env steps: {error:.4g} (first member), "
            f"{ensemble_error:.4g} (ensemble)",
            flush=True,
        )
        save_predictions(self.folder, true, members[0], error, ensemble_error)

    def _log(self, iteration: int, metrics: dict[str, float]) -> dict[str, float]:
        """Evaluate, and log the `metrics` of training with the statistics of all episodes."""
        steps, counters = self.config.eval_batch_size, self.counters
        evaluated: dict[str, float] = {}
        for prefix, policy in self.agent.eval_policies.items():
            phase = self.stopwatch.phase("evaluate")
            with phase, CollectionProgress("evaluating", steps) as progress:
                paths, _ = self.evaluator.collect(policy, steps, "eval", iteration, progress)
            evaluated |= return_statistics(prefix, paths)
            if self.get_success is not None:
                evaluated |= success_rates(prefix, paths, self.get_success)
        scalars = {
            **evaluated,
            **counters.train_statistics,
            "Train_EnvstepsSoFar": float(counters.env_steps),
            "TimeSinceStart": time.monotonic() - self._started,
        }
        if counters.initial_return is not None:
            scalars["Initial_DataCollection_AverageReturn"] = counters.initial_return
        if taken := scalars.keys() & metrics.keys():
            raise RunError(
                f"the agent returned the metric {min(taken)}; must have another name, because the "
                "trainer logs this one"
            )
        scalars |= metrics
        with self.stopwatch.phase("log"):
            self.logger.record(scalars, iteration, self.config.verbose)
        if self.agent.forecast is not None:
            with self.stopwatch.phase("figures"):
                save_forecast(self.folder, iteration, *self.agent.forecast)
        if self.config.save_params:
            self._save_parameters(f"agent_itr_{iteration}.pt", self.agent.parameters_dict())
        best = counters.best_return
        if self.agent.acting_parts and (best is None or evaluated["Eval_AverageReturn"] > best):
            counters.best_return = evaluated["Eval_AverageReturn"]
            self._save_parameters(BEST, self.agent.acting_parameters())
        return scalars

    def _log_video(self, iteration: int) -> None:
        """Write a video of an episode. If that fails, print a warning: the run does not need it."""
        key = EpisodeKey(self.config.seed, "video", iteration, 0)
        try:
            env = self.render_env_factory()
            try:
                frames, fps = film(env, self.agent.eval_policies["Eval"], key)
            finally:
                close_env(env)
            file = self.logger.record_video("eval_rollouts", frames, fps, iteration)
            print(f"  saved {file}", flush=True)
        except (OSError, UsageError, VideoError) as error:  # the encoder's, or the environment's
            reason = message_of(error)[:200]
            print(
                f"warning: cannot write the video of iteration {iteration} ({reason}); the "
                "run continues; check render, the disk and ffmpeg, or pass --video_log_freq -1",
                file=sys.stderr,
            )

    def _save(self) -> None:
        self.counters.seconds_by_phase = dict(self.stopwatch.seconds)
        state: dict[str, Any] = {
            "agent": self.agent.state_dict(),
            "collector": self.collector.state_dict(),
            "counters": vars(self.counters),
            "log": self.logger.state_dict(),
        }
        folder = self.folder
        save_checkpoint(folder / CHECKPOINT, state, self._run_id, folder / PREVIOUS)
        self._saved = self.counters.next_iteration
        self._unfinished.remove()

    def _save_parameters(self, name: str, parameters: dict[str, Any]) -> None:
        state = {"agent": parameters, "counters": vars(self.counters)}
        save_checkpoint(self.folder / name, state, self._run_id)

    def _report(self, iteration: int, scalars: dict[str, float]) -> None:
        """Print one line about a complete iteration, with speed and remaining time.

        The times of this session count, without iteration 0 as soon as there are others: it
        collects another number of env steps, at random, and compiles.
        """
        config, env_steps = self.config, self.counters.env_steps
        start, first_iteration, first_env_steps = self._timed_from
        seconds, left = time.monotonic() - start, config.n_iter - iteration - 1
        if iteration == 0 and config.continue_episodes:  # its work is in proportion to env steps
            seconds_left = seconds * config.batch_size / config.batch_size_initial * left
        else:
            seconds_left = seconds / (iteration + 1 - first_iteration) * left
        rate = (env_steps - first_env_steps) / seconds
        print(
            describe_iteration(
                iteration + 1, config.n_iter, scalars, env_steps, rate, seconds_left
            ),
            flush=True,
        )
        if iteration == 0:
            self._timed_from = time.monotonic(), 1, env_steps


def _due(frequency: int, iteration: int) -> bool:
    return frequency > 0 and iteration % frequency == 0
