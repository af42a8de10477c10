"""The model-based agent: fit the ensemble to all real data, act by planning through it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs285.envs.registration import TaskSpec
from cs285.infrastructure.compilation import compile_if
from cs285.infrastructure.episodes import MAX_ENV_SEED, EnvFactory
from cs285.infrastructure.figures import save_losses, save_predictions
from cs285.infrastructure.model_config import ModelConfig
from cs285.infrastructure.planner_config import PlannerConfig
from cs285.infrastructure.pytorch_util import derive_seed, make_generator, send, to_numpy
from cs285.infrastructure.replay_buffer import REPLAY_CAPACITY, Path, ReplayBuffer, stack_paths
from cs285.infrastructure.stopwatch import Stopwatch
from cs285.infrastructure.utils import (
    add_noise,
    mean_prediction_error,
    perform_actions,
    predict_open_loop,
)
from cs285.models.ff_model import FFModel
from cs285.models.fitting import fit_ensemble, fit_gradient, fit_until_converged
from cs285.models.held_out import coverage, error_on_unseen
from cs285.models.imagined_task import ImaginedTask
from cs285.policies.base_policy import Memory, Policy, RandomPolicy
from cs285.policies.MPC_policy import MPCPolicy

FIGURE_HORIZON = 10  # env steps of question 1's prediction picture, as in the homework


class MBAgent:
    """An ensemble dynamics model and the MPC policy that plans through it."""

    def __init__(
        self,
        task: TaskSpec,
        model: ModelConfig,
        planner: PlannerConfig,
        seed: int,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        self.task, self.config, self.seed, self.device = task, model, seed, device
        self.imagined_task = ImaginedTask.of(task, model)
        self.model = FFModel(
            task.ob_dim,
            task.ac_dim,
            model,
            learns_reward=self.imagined_task.learns_reward,
            generator=make_generator(seed, "model init"),
        ).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), model.learning_rate, fused=True)
        self.replay_buffer = ReplayBuffer(REPLAY_CAPACITY, task.ob_dim, task.ac_dim, device)
        self.stopwatch = Stopwatch()
        self.unseen = 0  # transitions collected since the last fit
        self.misses_ends = self.imagined_task.knows_no_end  # and nobody has been told yet
        # On a CPU a compiled fit is slower (results/benchmarks), and a compiled plan cannot be sent
        # to the worker processes that run episodes.
        compile = compile and device.type == "cuda"
        self.fit_gradient = compile_if(compile, fit_gradient)
        self.actor = MPCPolicy(
            self.model, self.imagined_task, task.ac_low, task.ac_high, planner, device, compile
        )
        self.eval_policies: dict[str, Policy] = {"Eval": self.actor}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store the paths, with observation noise where the run asks for it."""
        data = stack_paths(paths)
        if self.misses_ends and data.terminated.any():
            print(
                "  episodes of this task end, and where is not known: imagined ones go on for "
                "ever; --termination learned learns it",
                flush=True,
            )
            self.misses_ends = False
        if self.config.add_sl_noise:
            data = add_noise(data, make_generator(self.seed, "observation noise", iteration))
        self.replay_buffer.add(data)
        self.unseen += len(data.rewards)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the ensemble to the whole replay.

        The "Holdout Loss" and a probabilistic model's "Coverage" are those of the model before this
        fit, on what was collected since the last one.
        """
        held_out = {}
        with self.stopwatch.phase("fit"):
            if self.unseen < len(self.replay_buffer):  # not the first fit
                data = self.replay_buffer.newest(self.unseen)
                held_out["Holdout Loss"] = error_on_unseen(self.model, data)[None]
                held_out |= coverage(self.model, data)
            self.unseen = 0
            return self._fit(make_generator(self.seed, "fit batches", iteration)) | held_out

    def _fit(self, generator: torch.Generator) -> dict[str, Tensor]:
        config, data = self.config, self.replay_buffer.all()
        if config.holdout_ratio > 0:
            return fit_until_converged(
                self.model, self.optimizer, data, generator, self.fit_gradient
            )
        shape = (
            config.num_agent_train_steps_per_iter,
            config.ensemble_size,
            config.train_batch_size,
        )
        indices = send(torch.randint(len(data.rewards), shape, generator=generator), self.device)
        return fit_ensemble(self.model, self.optimizer, data, indices, self.fit_gradient)

    def save_figures(
        self, folder: FilePath, losses: dict[str, Tensor], env_factory: EnvFactory
    ) -> None:
        """Write question 1's losses and its open-loop prediction of random actions."""
        curve = to_numpy(losses["Training Loss"])
        buffer = io.BytesIO()  # np.save into a file reports a full disk without its errno
        np.save(buffer, curve)
        (folder / "itr_0_losses.npy").write_bytes(buffer.getvalue())
        save_losses(folder / "itr_0_losses.png", curve)
        random = RandomPolicy(self.task.ac_low, self.task.ac_high)
        generator = make_generator(self.seed, "figure actions")
        actions = random.get_action(np.empty(0, np.float32), [Memory(generator)] * FIGURE_HORIZON)
        env = env_factory()
        true = perform_actions(env, actions, derive_seed(self.seed, "figure env") % MAX_ENV_SEED)
        env.close()
        predicted = predict_open_loop(self.model, true[0], actions[: len(true) - 1]).mean(0)
        error = mean_prediction_error(true, predicted)
        print(f"  mean prediction error over {len(true) - 1} steps: {error:.4g}", flush=True)
        buffer = io.BytesIO()
        np.savez(buffer, true=true, predicted=predicted, error=error)
        (folder / "itr_0_predictions.npz").write_bytes(buffer.getvalue())
        save_predictions(folder / "itr_0_predictions.png", true, predicted, error)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, statistics, optimiser and replay.

        There is no generator among them: every draw comes from one made anew of (seed, purpose,
        iteration), and the trainer keeps the iteration.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay_buffer": self.replay_buffer.state_dict(),
            "unseen": self.unseen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self.unseen = state["unseen"]

    def parameters_dict(self) -> dict[str, Any]:
        """Return the model's weights and statistics."""
        return {"model": self.model.state_dict()}
