"""The settings of the dynamics model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config.flags import (
    COUNT,
    FITTING,
    INDEX,
    LAYERS,
    RATE,
    Check,
    fits_float32,
    flag,
    numbers,
    one_of,
)
from cs285.config.ineffective import ineffective_if
from cs285.infrastructure.errors import UsageError


@dataclass(frozen=True)
class ModelConfig:
    """the dynamics model"""

    rules: ClassVar = (
        ineffective_if(
            "num_agent_train_steps_per_iter", 0,
            "model", "model_loss", "model_init", "ensemble_size", "num_elites", "n_layers", "size",
            "activation", "learning_rate", "learning_rate_schedule", "learning_rate_peak",
            "train_batch_size", "weight_decay", "decoupled_weight_decay", "model_layer_norm",
            "model_dropout", "holdout_ratio", "fit_patience", "learned_reward",
            "termination", "add_sl_noise",
        ),
        ineffective_if("holdout_ratio", 0, "fit_patience"),
        ineffective_if("weight_decay", "0", "decoupled_weight_decay"),
        ineffective_if("learning_rate_schedule", "constant", "learning_rate_peak"),
    )  # fmt: skip

    model: str = flag(
        "deterministic",
        "ensemble type: deterministic, probabilistic (members predict a mean and a variance) or "
        "homoscedastic (members predict a mean, and learn one variance per output); "
        "probabilistic also sets the flags of --preset probabilistic that are not given",
        check=one_of("deterministic", "probabilistic", "homoscedastic"),
    )
    model_loss: str = flag(
        "mse",
        "loss of the predicted means: mse (mean squared error over the batch and the normalised "
        "target columns), column_nll (log of each column's mean squared error) or nll (Gaussian "
        "negative log-likelihood; not with --model deterministic; --model probabilistic sets it)",
        check=one_of("mse", "column_nll", "nll"),
    )
    model_init: str = flag(
        "lecun",
        "initial weights: lecun (uniform, variance 1 over the number of inputs, in the last layer "
        "a hundredth of that), torch (variance 1/3 over the number of inputs, as in "
        "torch.nn.Linear) or he (variance 2 over the number of inputs)",
        check=one_of("lecun", "torch", "he"),
    )
    ensemble_size: int = flag(3, "number of members of the ensemble", "-e", check=COUNT)
    num_elites: int | None = flag(
        None,
        "number of elites: only the members with the lowest validation losses predict; needs "
        "--holdout_ratio (default: all members predict)",
        check=COUNT,
    )
    n_layers: int = flag(2, "hidden layers of each member", "-l", check=LAYERS)
    size: int = flag(250, "units of each hidden layer", "-s", check=COUNT)
    activation: str = flag(
        "tanh", "activation of the hidden layers: tanh or swish", check=one_of("tanh", "swish")
    )
    model_layer_norm: str = flag(
        "0",
        "epsilon of the LayerNorm without parameters after each hidden layer of the model: one for "
        "all hidden layers, or one per layer, separated by commas; 0: no LayerNorm",
        commas=True,
    )
    model_dropout: str = flag(
        "0",
        "share of hidden units that dropout sets to zero in the fits of the model: one for all "
        "hidden layers, or one per layer, separated by commas",
        commas=True,
    )
    learning_rate: float = flag(
        0.001,
        "Adam's learning rate",
        "-lr",
        check=RATE,
    )
    learning_rate_schedule: str = flag(
        "constant",
        "learning rate within a fit: constant, or falling (linearly, from --learning_rate times "
        "--learning_rate_peak to 0; without --holdout_ratio only)",
        check=one_of("constant", "falling"),
    )
    learning_rate_peak: float = flag(
        5.0,
        "initial learning rate of the falling schedule, in units of --learning_rate",
        check=RATE,
    )
    num_agent_train_steps_per_iter: int = flag(
        1000,
        "gradient steps per fit of the model; with --holdout_ratio, their maximum; 0: no model, "
        "for plain SAC",
        check=INDEX,
    )
    train_batch_size: int = flag(
        512, "transitions per member in each gradient step of a fit", "-tb", check=COUNT
    )
    weight_decay: str = flag(
        "0",
        "weight decay of the model: one number for all layers, or one per layer, separated by "
        "commas",
        commas=True,
    )
    decoupled_weight_decay: bool = flag(
        False,
        "apply the weight decay after each gradient step (AdamW) instead of adding it to the loss",
    )
    holdout_ratio: float = flag(
        0.0,
        "share of the data in the validation set, at most 5000 transitions; early stopping ends "
        "the fit; 0: no validation set, and a fixed number of gradient steps",
        check=Check(lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    )
    fit_patience: int = flag(
        5,
        "early stopping ends a fit after more than this many epochs in a row without a better "
        "validation loss",
        check=INDEX,
    )
    add_sl_noise: bool = flag(
        False,
        "add Gaussian noise to the observations and next observations that the model learns from; "
        "the standard deviation is 1% of each dimension's absolute mean",
        "-noise",
    )
    learned_reward: bool = flag(False, "learn the reward even if the task has a get_reward")
    termination: str | None = flag(
        None,
        "when imagined episodes terminate; known: by the task's function, if it has one; learned: "
        "by the model; none: never (default: known, but plans ignore the terminations of a "
        "get_reward, as in the homework)",
        check=one_of("known", "learned", "none"),
    )

    @property
    def decay_by_layer(self) -> list[float]:
        """The weight decay of each hidden layer and of the output layer."""
        return _by_layer(self.weight_decay, self.n_layers + 1)

    @property
    def eps_by_layer(self) -> list[float]:
        """The epsilon of LayerNorm after each hidden layer; empty without LayerNorm."""
        values = _by_layer(self.model_layer_norm, self.n_layers)
        return values if any(values) else []

    @property
    def dropout_by_layer(self) -> list[float]:
        """The share of units of each hidden layer that dropout sets to zero."""
        return _by_layer(self.model_dropout, self.n_layers)

    def canonical(self) -> dict[str, Any]:
        """Return {flag: value}, with the same value for equivalent settings (see `signature`)."""
        return {
            "weight_decay": tuple(self.decay_by_layer),
            "model_layer_norm": tuple(self.eps_by_layer),
            "model_dropout": tuple(self.dropout_by_layer),
        }

    def __post_init__(self) -> None:
        if self.model_loss == "nll" and self.model == "deterministic":
            raise UsageError(
                "--model_loss nll: must be mse or column_nll with --model deterministic"
            )
        if self.model == "homoscedastic" and self.model_loss != "nll":
            raise UsageError(
                f"--model homoscedastic: must have --model_loss nll, not {self.model_loss}"
            )
        if self.learning_rate_schedule == "falling" and self.holdout_ratio > 0:
            raise UsageError(
                "--learning_rate_schedule falling: must be constant with --holdout_ratio, because "
                "early stopping decides the number of gradient steps"
            )
        elites = self.num_elites or self.ensemble_size
        if elites > self.ensemble_size:
            raise UsageError(
                f"--num_elites {elites}: must be at most --ensemble_size ({self.ensemble_size})"
            )
        if elites < self.ensemble_size and self.holdout_ratio == 0:
            raise UsageError(
                f"--num_elites {elites}: must be --ensemble_size ({self.ensemble_size}), because "
                "--holdout_ratio is 0; elites need a validation set"
            )
        layers = self.n_layers
        _check_numbers(
            "weight_decay",
            self.weight_decay,
            layers + 1,
            lambda value: value >= 0,
            "one non-negative number",
        )
        _check_numbers(
            "model_layer_norm",
            self.model_layer_norm,
            layers,
            lambda value: value >= 0,
            "one non-negative number",
        )
        _check_numbers(
            "model_dropout", self.model_dropout, layers, lambda value: 0 <= value < 1,
            "one number from 0 to below 1",
        )  # fmt: skip


def _by_layer(text: str, layers: int) -> list[float]:
    """Return the numbers of a flag value; a single number counts for all layers."""
    values = numbers(text)
    return values * layers if len(values) == 1 else values


def _check_numbers(
    name: str, text: str, layers: int, holds: Callable[[float], bool], must_be: str
) -> None:
    """Raise UsageError unless `text` is a valid number, or one valid number per layer."""
    try:
        values = _by_layer(text, layers)
    except ValueError:
        values = []
    for value in values:
        if math.isfinite(value) and not fits_float32(value):
            raise UsageError(f"--{name} {text}: each number must be {FITTING}")
    if len(values) != layers or not all(math.isfinite(v) and holds(v) for v in values):
        raise UsageError(
            f"--{name} {text}: must be {must_be}, or {layers} of them separated by commas, one per "
            "layer"
        )
