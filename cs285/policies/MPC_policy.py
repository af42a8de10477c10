"""Model-predictive control: search for the best action sequence, act its first step, replan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.envs.registration import RewardFunction
from cs285.infrastructure.compilation import compile_if
from cs285.infrastructure.config import PlannerConfig
from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.models.ff_model import FFModel
from cs285.policies.samplers import SAMPLERS, Search


class MPCPolicy:
    """Plans through the ensemble for B environments, E members and N candidates at once."""

    def __init__(
        self,
        model: FFModel,
        get_reward: RewardFunction | None,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        config: PlannerConfig,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        """Plan with `get_reward`, or with the model's reward head where it is None."""
        self.model, self.get_reward, self.config, self.device = model, get_reward, config, device
        self.ac_low, self.ac_high = from_numpy(ac_low, device), from_numpy(ac_high, device)
        # On a CPU episodes run in worker processes, to which nothing compiled can be sent.
        self.evaluate = compile_if(compile and device.type == "cuda", self.evaluate_sequences)

    def get_action(
        self, obs: NDArray[np.float32], generators: Sequence[torch.Generator]
    ) -> NDArray[np.float32]:
        """obs (B, O) -> first actions (B, A) of the best plans; NaN where every plan diverges."""
        return to_numpy(self.plan(obs, generators)[:, 0])

    @torch.inference_mode()
    def plan(self, obs: NDArray[np.float32], generators: Sequence[torch.Generator]) -> Tensor:
        """obs (B, O) -> the best plans (B, H, A); NaN where every plan diverges."""
        search = Search(self.ac_low, self.ac_high, self.config, generators)
        returns_of = partial(self.evaluate, from_numpy(obs, self.device))
        return SAMPLERS[self.config.mpc_action_sampling_strategy](returns_of, search)

    def evaluate_sequences(self, obs: Tensor, sequences: Tensor) -> Tensor:
        """Imagine every sequence with every member.

        obs (B, O), sequences (B, N, H, A) -> returns (B, N): the summed rewards of the H post-step
        observations, averaged over the members, each of which follows its own states.
        """
        B, N, H, A = sequences.shape
        E = self.model.ensemble_size
        states = obs.repeat_interleave(N, 0).expand(E, B * N, -1)
        returns = torch.zeros(E, B * N, device=obs.device)
        predict = self.model.predictor()
        for step in range(H):
            acs = sequences[:, :, step].reshape(B * N, A).expand(E, -1, -1)
            states, learned_rewards = predict(states, acs)
            returns += self.get_reward(states, acs)[0] if self.get_reward else learned_rewards
        return returns.mean(0).view(B, N)
