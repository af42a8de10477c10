"""A dynamics model, as everything outside models/ knows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.replay_buffer import Transitions


class Prediction(NamedTuple):
    """One imagined step: per member (E, B, ...), or for the whole ensemble (B, ...)."""

    next_obs: Tensor  # (E, B, O)
    rewards: Tensor  # (E, B), 0 where the model does not learn them
    terminated: Tensor | None  # (E, B) bool; None where the model does not learn it

    def each(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """Return a prediction whose parts are changed alike."""
        terminated = None if self.terminated is None else change(self.terminated)
        return Prediction(change(self.next_obs), change(self.rewards), terminated)


class Step(Protocol):
    """Take one step with every member that predicts.

    state (E, B, S), acs (E, B, A), and `noise` (E, B, noise_dim), standard normal, or None -> the
    next state (E, B, S) and the prediction. With noise, a model that predicts distributions draws
    from them; without it, it returns their means.
    """

    def __call__(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]: ...


class ModelLoss(NamedTuple):
    """The loss of a gradient step."""

    total: Tensor  # (), summed over members: no member's gradient then depends on another's
    metrics: dict[str, Tensor]  # () each, averaged over members


class DynamicsModel(nn.Module):
    """Members that each predict what follows an action.

    A member's state is one tensor (S,) per row: the observation itself for a model without memory,
    and whatever a model with memory makes of it. `Prediction.next_obs` is in the task's units. A
    subclass must have `step`, and `loss` if it has weights; the other defaults suit a model of one
    member without memory.
    """

    members = 1  # E, how many members predict
    noise_dim = 0  # numbers that a step can be drawn with; 0: it is deterministic
    has_memory = False  # states hold more than the observation: policies keep them
    sequence_length: int | None = None  # steps of what it is fitted to; None: single transitions

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def fitted_members(self) -> int:
        """How many members a fit's batches are for; with elites, more than those that predict."""
        return self.members

    @property
    def obs_scale(self) -> Tensor | None:
        """The std (O,) of the observations it was fitted to: the unit of its errors."""
        return None

    def initial_state(self, obs: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the state (E, B, S) of every member where obs (B, O) was observed.

        `previous` (E, B, S) is the state that the episode's last step led to, in the prediction of
        each member; None at an episode's start. A model without memory does not look at it.
        """
        return obs.expand(self.members, *obs.shape)

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """Take one step (see Step), differentiable by states, actions and weights."""
        raise NotImplementedError

    def planning_step(self) -> Step:
        """Return the fastest form of `step`, with the weights as they are now and no gradients."""
        return torch.no_grad()(self.step)

    def fit_statistics(self, data: Transitions) -> None:
        """Take what inputs and targets are normalised by from `data` (B rows), before a fit."""

    def loss(self, batch: Transitions) -> ModelLoss:
        """Return the loss of a batch (E, B, ...), or of sequences (E, B, T, ...)."""
        raise NotImplementedError

    def validation_errors(self, data: Transitions) -> Tensor:
        """Return each fitted member's error (E,) on held-out data: for --holdout_ratio."""
        raise UsageError("--holdout_ratio: must be 0: this model has no errors by member")

    def member_tensors(self) -> list[Tensor]:
        """Return all weights as views (E, ...): a member's are in its rows. For --holdout_ratio."""
        raise UsageError("--holdout_ratio: must be 0: this model has no weights by member")

    def choose_members(self, errors: Tensor) -> Tensor:
        """Have the members with the lowest errors (E,) predict; return their numbers."""
        return errors.argsort()[: self.members]

    def evaluate(self, data: Transitions) -> dict[str, Tensor]:
        """Return metrics (1,) of predicting `data` that the model was not fitted to."""
        return {}
