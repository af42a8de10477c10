"""A Gymnasium environment that steps a learned model."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.checked_env import CheckedEnv, close_env
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.models.base_model import DynamicsModel
from cs285.models.propagation import advance, draw_split
from cs285.models.task_model import TaskModel

MAX_SEED = 2**31


class ModelEnv(gym.Env):
    """Episodes that start in the real environment and continue in the model.

    `member` is "mean" (the mean prediction of the elites), "random" (a random elite predicts and
    samples each step), or the number of one elite. An episode is truncated after `task.ep_len` env
    steps, or when the model predicts a non-finite state.
    """

    def __init__(
        self,
        model: DynamicsModel,
        task_model: TaskModel,
        task: TaskSpec,
        env: gym.Env,
        member: str | int = "mean",
    ) -> None:
        """Step `model` from states that `env` resets to.

        Raises ValueError: there is no such member.
        """
        if member not in ("mean", "random", *range(model.members)):
            raise ValueError(
                f"member {member!r}: must be 'mean', 'random' or an integer below {model.members}"
            )
        if member == "random" and model.has_memory:
            raise ValueError("member 'random': must be 'mean' or a number for a model with memory")
        self.model, self.task_model, self.task, self.member = model, task_model, task, member
        self.real = CheckedEnv(env)
        self.steps: int | None = None  # of the episode; None: there was no reset
        self.observation_space = Box(-np.inf, np.inf, (task.ob_dim,), np.float32)
        self.action_space = Box(task.ac_low, task.ac_high, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode at the first observation of the real environment."""
        super().reset(seed=seed)
        self.obs = self.real.reset(int(self.np_random.integers(MAX_SEED)))
        self.generator = torch.Generator(self.model.device)
        self.generator.manual_seed(int(self.np_random.integers(MAX_SEED)))
        self.state = self.model.initial_state(from_numpy(self.obs[None], self.model.device))
        self.steps = 0
        return self.obs.copy(), {}

    @torch.no_grad()
    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one imagined step with an action (A,).

        Raises ValueError: the action has another shape, or no episode has started.
        """
        if np.shape(action) != self.action_space.shape:
            shape = self.action_space.shape
            raise ValueError(f"the action has shape {np.shape(action)}; must be {shape}")
        if self.steps is None:
            raise ValueError("step: must be called after reset")
        acs = from_numpy(np.asarray(action, np.float32)[None], self.model.device)
        step = self.model.planning_step()
        if self.member in ("mean", "random"):
            split = None
            if self.member == "random":
                split = draw_split(self.model.members, 1, self.generator, self.model.noise_dim)
            self.state, prediction = advance(self.model, step, self.state, acs, split)
        else:
            elite = int(self.member)
            self.state, predictions = step(self.state, acs.expand(len(self.state), -1, -1))
            prediction = predictions.each(lambda part: part[elite])
        reward, terminated = self.task_model.outcome(prediction, acs)
        obs, value = to_numpy(prediction.next_obs)[0].copy(), float(reward[0])
        self.steps += 1
        if not (np.isfinite(obs).all() and np.isfinite(value)):
            return self.obs.copy(), 0.0, False, True, {"diverged": True}
        self.obs = obs.copy()  # the caller may change the returned array
        is_terminated = terminated is not None and bool(terminated[0])
        return obs, value, is_terminated, self.steps >= self.task.ep_len and not is_terminated, {}

    def close(self) -> None:
        close_env(self.real.env)
