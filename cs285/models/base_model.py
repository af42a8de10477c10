"""The dynamics model interface that the rest of cs285 uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.replay_buffer import Transitions
from cs285.networks.ensemble_mlp import Masks


class Prediction(NamedTuple):
    """One imagined step: per elite (M, B, ...) or for the whole ensemble (B, ...)."""

    next_obs: Tensor  # (M, B, O)
    rewards: Tensor  # (M, B); 0 if the model does not learn rewards
    terminated: Tensor | None  # (M, B) bool; None if the model does not learn terminations

    def each(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """Return a prediction with `change` applied to each tensor."""
        terminated = None if self.terminated is None else change(self.terminated)
        return Prediction(change(self.next_obs), change(self.rewards), terminated)


class Step(Protocol):
    """Take one imagined step with each of M elites.

    state (M, B, S), acs (M, B, A) and `noise` (M, B, noise_dim), standard normal or None -> the
    next state (M, B, S) and the prediction. A model that predicts distributions uses the noise to
    sample from them. Without noise, it returns their means.
    """

    def __call__(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]: ...


class ModelLoss(NamedTuple):
    """The loss of one gradient step."""

    total: Tensor  # (), summed over members: their gradients are then independent
    metrics: dict[str, Tensor]  # () each, averaged over members


class DynamicsModel(nn.Module):
    """An ensemble whose members each predict the result of an action.

    A member's state is one tensor (S,) per row. In a model without memory, the state is the
    observation. In a model with memory, the state also holds what the member remembers.
    `Prediction.next_obs` is in the task's units. A subclass must implement `step`, and `loss` if it
    has weights. The other defaults suit a model with one member and no memory.
    """

    members = 1  # M, the number of elites, the members that predict
    noise_dim = 0  # noise values per sampled step; 0: the model is deterministic
    has_memory = False  # True: states hold more than the observation, and policies store them
    sequence_length: int | None = None  # steps per training sequence; None: single transitions

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def fitted_members(self) -> int:
        """E, the number of all members. A fit also trains members that are not elites."""
        return self.members

    @property
    def obs_scale(self) -> Tensor | None:
        """The std (O,) of the observations in the last fit, the unit of the model's errors."""
        return None

    def initial_state(self, obs: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return each elite's state (M, B, S) after it has observed obs (B, O).

        `previous` (M, B, S) is the state that each elite predicted for this step, or None at the
        start of an episode. A model without memory ignores it.
        """
        return obs.expand(self.members, *obs.shape)

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """Take one step (see Step), differentiable in states, actions and weights."""
        raise NotImplementedError

    def planning_step(self) -> Step:
        """Return the fastest form of `step`, with the current weights and without gradients."""
        return torch.no_grad()(self.step)

    def frozen_step(self) -> Step:
        """Return `step` for gradients with respect to states and actions.

        A model with weights overrides it to leave them out of the graph. The default is `step`.
        """
        return self.step

    def fit_statistics(self, data: Transitions) -> None:
        """Fit the normalisation of inputs and targets to `data` (B rows), before a fit."""

    def draw_masks(self, rows: int, generator: torch.Generator) -> Masks:
        """Draw the dropout masks of a loss on `rows` rows per member, or () without dropout."""
        return ()

    def loss(self, batch: Transitions, masks: Masks = ()) -> ModelLoss:
        """Return the loss of a batch (E, B, ...), or of sequences (E, B, T, ...).

        A model whose `draw_masks` returns () does not need the argument `masks`.
        """
        raise NotImplementedError

    def decay_weights(self, learning_rate: float | Tensor) -> None:
        """Apply decoupled weight decay after a gradient step; by default, there is none."""

    def validation_errors(self, data: Transitions) -> Tensor:
        """Return each member's error (E,) on the validation set `data` (B rows).

        Raises UsageError: the model does not implement it, but --holdout_ratio needs it.
        """
        raise UsageError("--holdout_ratio: must be 0 for a model without validation errors")

    def member_tensors(self) -> list[Tensor]:
        """Return all weights as views (E, ...), one row per member.

        Raises UsageError: the model does not implement it, but --holdout_ratio needs it.
        """
        raise UsageError("--holdout_ratio: must be 0 for a model without weights per member")

    def choose_members(self, errors: Tensor) -> Tensor:
        """Choose the M members with the lowest errors (E,) as elites; return their indices (M,)."""
        return errors.argsort()[: self.members]

    def evaluate(self, data: Transitions) -> dict[str, Tensor]:
        """Return metrics (1,) of the predictions on `data`, which the model was not fitted to."""
        return {}
