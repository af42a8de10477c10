"""Tasks that are unusual but legal, or wrong in a common way."""

import multiprocessing
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box

from tests.toys import LinearReach


class SetsDoubles(LinearReach):
    """Computes in float64 with torch."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_default_dtype(torch.float64)

    def step(self, action: Any) -> Any:
        assert torch.zeros(1).dtype == torch.float64
        return super().step(action)


class StopsGradients(LinearReach):
    """Computes without gradients with torch."""

    def step(self, action: Any) -> Any:
        torch.set_grad_enabled(False)
        return super().step(action)


class HasBounds(LinearReach):
    """Accepts only actions inside the bounds, which float32 cannot hold exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(np.array([0.3, 0.1]), np.array([0.3, 0.7]), dtype=np.float64)

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return super().step(action)


class StandsStill(LinearReach):
    def step(self, action: Any) -> Any:
        return super().step(np.zeros(2))


class FailsToClose(LinearReach):
    def close(self) -> None:
        raise ConnectionError("the simulator is gone")


class ExitsInClose(LinearReach):
    def close(self) -> None:
        raise SystemExit(0)


class ArrayReward(LinearReach):
    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, np.array([reward]), *rest


class TensorReward(LinearReach):
    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, torch.tensor(reward, requires_grad=True), *rest


class TwoRewards(LinearReach):
    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, np.array([reward, 0]), *rest


class NoReward(LinearReach):
    def step(self, action: Any) -> Any:
        obs, _, *rest = super().step(action)
        return obs, None, *rest


class OldReset(LinearReach):
    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0]


class OldStep(LinearReach):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class NeedsLicence(LinearReach):
    def __init__(self) -> None:
        raise gym.error.Error("no licence")


class NeedsPackage(LinearReach):
    def __init__(self) -> None:
        import package_that_is_missing  # noqa: F401


class NeedsArgument(LinearReach):
    def __init__(self, size: int) -> None:
        super().__init__()


class RewardOfNumPy(LinearReach):
    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        distances = np.linalg.norm(observations, axis=-1)  # an array, also for a tensor
        return -distances, distances > 1e9


class ExitsInReward(LinearReach):
    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        if isinstance(observations, torch.Tensor):
            raise SystemExit(0)
        return LinearReach.get_reward(observations, actions)


class ExitsInPlans(LinearReach):
    """Exits in the first imagined step; the check before the run has 6 rows."""

    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        if observations.ndim == 3 and observations[..., 0].numel() != 6:
            raise SystemExit(0)
        return LinearReach.get_reward(observations, actions)


class TakesAName(LinearReach):
    def get_success(self, observations: Any) -> Any:
        return {"AverageReturn": True}


class ChangesNames(LinearReach):
    def get_success(self, observations: Any) -> Any:
        return {f"digit {int(1e6 * abs(observations[0, 0])) % 10}": True}


class HugeReward(LinearReach):
    def step(self, action: Any) -> Any:
        obs, _, *rest = super().step(action)
        return obs, 10**400, *rest


class TextReward(LinearReach):
    def step(self, action: Any) -> Any:
        obs, _, *rest = super().step(action)
        return obs, "1.5", *rest


class NanBound(LinearReach):
    def __init__(self) -> None:
        super().__init__()
        self.action_space.low[0] = np.nan


class FailsToTell(LinearReach):
    @property
    def get_reward(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no reward")


class Forks(LinearReach):
    """Asks a child process for each step; `daemon` is an argument of its Process."""

    daemon = True

    def __init__(self) -> None:
        super().__init__()
        self.pipe, remote = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        context.Process(target=echo, args=(remote,), daemon=self.daemon).start()

    def step(self, action: Any) -> Any:
        self.pipe.send(action)
        return super().step(self.pipe.recv())


class ForksAndForgets(Forks):
    daemon = False


def echo(pipe: Any) -> None:
    while True:
        pipe.send(pipe.recv())


for task in (
    *(SetsDoubles, HasBounds, StandsStill, FailsToClose, ArrayReward, TensorReward, TwoRewards),
    *(NoReward, OldReset, OldStep, NeedsLicence, NeedsPackage, NeedsArgument),
    *(Forks, ForksAndForgets, StopsGradients, ExitsInClose, RewardOfNumPy, ExitsInReward),
    *(ExitsInPlans, TakesAName, ChangesNames, HugeReward, TextReward, NanBound, FailsToTell),
):
    gym.register(f"{task.__name__}-v0", entry_point=task, max_episode_steps=20)
