"""The settings of the dynamics model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config.flags import COUNT, INDEX, RATE, Check, flag, one_of
from cs285.config.ineffective import ineffective_if
from cs285.infrastructure.errors import UsageError


@dataclass(frozen=True)
class ModelConfig:
    """the dynamics model"""

    rules: ClassVar = (
        ineffective_if(
            "num_agent_train_steps_per_iter", 0,
            "model", "model_loss", "ensemble_size", "num_elites", "n_layers", "size", "activation",
            "learning_rate", "train_batch_size", "weight_decay", "holdout_ratio", "fit_patience",
            "learned_reward", "termination", "add_sl_noise",
        ),
        ineffective_if("holdout_ratio", 0, "fit_patience"),
    )  # fmt: skip

    model: str = flag(
        "deterministic",
        "deterministic, or probabilistic: members predict Gaussians, and flags that are not given "
        "are those of --preset probabilistic",
        check=one_of("deterministic", "probabilistic"),
    )
    model_loss: str = flag(
        "column_nll",
        "loss that fits the means: column_nll is the log of each column's mean squared error, nll "
        "the Gaussian likelihood (probabilistic ensembles only, and their default)",
        check=one_of("column_nll", "nll"),
    )
    ensemble_size: int = flag(3, "networks in the ensemble", "-e", check=COUNT)
    num_elites: int | None = flag(
        None,
        "members that predict, those of the lowest held-out losses (default: all)",
        check=COUNT,
    )
    n_layers: int = flag(2, "hidden layers", "-l", check=COUNT)
    size: int = flag(250, "width of a hidden layer", "-s", check=COUNT)
    activation: str = flag("tanh", "of hidden layers: tanh or swish", check=one_of("tanh", "swish"))
    learning_rate: float = flag(
        0.001,
        "Adam's learning rate; a fit of a fixed number of steps goes from 5 times it down to 0",
        "-lr",
        check=RATE,
    )
    num_agent_train_steps_per_iter: int = flag(
        1000,
        "gradient steps on the dynamics model per iteration, or with --holdout_ratio the most that "
        "there may be (0: no model, for plain SAC)",
        check=INDEX,
    )
    train_batch_size: int = flag(
        512, "transitions per ensemble member per gradient step", "-tb", check=COUNT
    )
    weight_decay: str = flag(
        "0",
        "of the weights in the loss: one for all layers, or one per layer with commas between",
        commas=True,
    )
    holdout_ratio: float = flag(
        0.0,
        "share of the data to hold out, at most 5000 transitions, and to train until the model "
        "predicts it no better; 0: a fixed number of gradient steps",
        check=Check(lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    )
    fit_patience: int = flag(
        5, "epochs without a better held-out loss that do not end the fit yet", check=INDEX
    )
    add_sl_noise: bool = flag(
        False,
        "add Gaussian noise to stored observations and next observations, std 1% of the absolute "
        "mean of each dimension",
        "-noise",
    )
    learned_reward: bool = flag(
        False, "plan with the learned reward even where the task's reward is known"
    )
    termination: str | None = flag(
        None,
        "where imagined episodes end: known (by the task's function), learned or none (default: "
        "known to MBPO where there is such a function, and to the planner in Gymnasium's tasks)",
        check=one_of("known", "learned", "none"),
    )

    @property
    def decay_by_layer(self) -> list[float]:
        """The weight decay of each layer, hidden ones and the last."""
        values = [float(word) for word in self.weight_decay.split(",")]
        return values * (self.n_layers + 1) if len(values) == 1 else values

    def canonical(self) -> dict[str, Any]:
        """Return one value for settings that mean the same."""
        return {"weight_decay": tuple(self.decay_by_layer)}

    def __post_init__(self) -> None:
        if self.model_loss == "nll" and self.model == "deterministic":
            raise UsageError("--model_loss nll: must be column_nll with --model deterministic")
        elites = self.num_elites or self.ensemble_size
        if elites > self.ensemble_size:
            raise UsageError(
                f"--num_elites {elites}: must be at most --ensemble_size ({self.ensemble_size})"
            )
        if elites < self.ensemble_size and self.holdout_ratio == 0:
            raise UsageError(
                f"--num_elites {elites}: must be --ensemble_size ({self.ensemble_size}) "
                "while --holdout_ratio is 0"
            )
        try:
            decay = self.decay_by_layer
        except ValueError:
            decay = []
        layers = self.n_layers + 1
        if len(decay) != layers or not all(0 <= value < math.inf for value in decay):
            raise UsageError(
                f"--weight_decay {self.weight_decay}: must be one non-negative number, or "
                f"{layers} separated by commas, one per layer"
            )
