"""The settings of the PILCO agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cs285.config.flags import COUNT, FINITE, STEPS, Check, flag, numbers, one_of
from cs285.config.ineffective import Rule, ineffective_if
from cs285.config.run import RunConfig
from cs285.infrastructure.errors import UsageError


def _are_numbers(text: str) -> bool:
    try:
        return all(abs(number) < 1e15 for number in numbers(text))
    except ValueError:
        return False


def _are_not_negative(text: str) -> bool:
    return _are_numbers(text) and min(numbers(text)) >= 0


def _are_positive(text: str) -> bool:
    return _are_numbers(text) and min(numbers(text)) > 0


def _are_dims(text: str) -> bool:
    return text == NONE or all(part.isdecimal() for part in text.split(","))


NONE = "none"
NUMBERS = Check(_are_numbers, "finite numbers with commas between them")
NOT_NEGATIVE = Check(_are_not_negative, "non-negative, finite numbers with commas between them")
POSITIVE = Check(_are_positive, "positive, finite numbers with commas between them")
DIMS = Check(_are_dims, f"{NONE}, or observation dimensions with commas between them, from 0")


@dataclass(frozen=True)
class PilcoRunConfig(RunConfig):
    """the run"""

    n_iter: int = flag(
        15,
        "number of iterations; each collects a trial, learns, evaluates and logs",
        "-n",
        check=COUNT,
        free=True,
    )
    batch_size_initial: int = flag(
        1,
        "env steps with random actions in iteration 0, rounded up to whole episodes",
        check=COUNT,
    )
    batch_size: int = flag(
        1,
        "env steps to collect in each later iteration, rounded up to whole episodes",
        "-b",
        check=COUNT,
    )


@dataclass(frozen=True)
class PilcoSettings:
    """PILCO"""

    rules: ClassVar = (
        ineffective_if("pilco_policy", "linear", "pilco_basis"),
        ineffective_if("pilco_propagation", "moments", "pilco_particles"),
        ineffective_if(
            "pilco_propagation",
            "particles",
            "pilco_width",
            "pilco_target",
            "pilco_weights",
            "pilco_prediction_noise",
        ),
    )

    pilco_propagation: str = flag(
        "moments",
        "prediction of a trial: moments (Gaussian states, analytic; the cost must saturate) or "
        "particles (samples; the cost is minus the task's get_reward, which must be "
        "differentiable)",
        check=one_of("moments", "particles"),
    )
    pilco_horizon: int | None = flag(
        None, "predicted steps of a trial (default: the length of an episode)", check=COUNT
    )
    pilco_angle_dims: str | None = flag(
        None,
        "observation dimensions that are angles in radians, which the model and the policy see as "
        f"sine and cosine, or {NONE} (default: the dimensions that the task declares)",
        check=DIMS,
        commas=True,
    )
    pilco_target: str | None = flag(
        None,
        "target of the saturating cost, one number per observation dimension, then one each for "
        "sine and cosine of each angle (default: the task's)",
        check=NUMBERS,
        commas=True,
    )
    pilco_weights: str | None = flag(
        None,
        "weights of the squared differences from --pilco_target, one per number (default: the "
        "task's distance)",
        check=NOT_NEGATIVE,
        commas=True,
    )
    pilco_width: str | None = flag(
        None,
        "width of the saturating cost, in units of the distance; several widths with commas "
        "between them: the mean of their costs (default: the task's)",
        check=POSITIVE,
        commas=True,
    )
    pilco_policy: str = flag("rbf", "policy: rbf or linear", check=one_of("rbf", "linear"))
    pilco_basis: int = flag(50, "basis functions of the RBF policy", check=COUNT)
    pilco_squash: str = flag(
        "sin3",
        "function that maps the policy's output to the action box: sin3, (9 sin v + sin 3v) / 8, "
        "or sin",
        check=one_of("sin3", "sin"),
    )
    pilco_line_searches: int = flag(
        150, "line searches of BFGS per policy search; 0: do not learn", check=STEPS
    )
    pilco_gp_line_searches: int = flag(
        300, "largest number of line searches of BFGS per Gaussian process and fit", check=COUNT
    )
    pilco_exploration: float = flag(
        0.0,
        "weight of the cost's predicted standard deviation in the cost of each step; negative: "
        "the search explores, positive: it avoids risk",
        check=FINITE,
    )
    pilco_restarts: int = flag(
        1,
        "policy searches per iteration: one from the current policy, the others from random "
        "policies; the one with the lowest predicted cost is kept",
        check=COUNT,
    )
    pilco_max_rows: int = flag(
        300, "largest number of transitions in the model; the newest ones are used", check=COUNT
    )
    pilco_noise: str = flag(
        "0",
        "std of the measurement noise on training observations, which the policy and the model "
        "see: one number, or one per observation dimension; evaluations have no noise",
        check=NOT_NEGATIVE,
        commas=True,
    )
    pilco_model_uncertainty: bool = flag(
        True,
        "propagate the model's uncertainty; without it, predictions ignore the model's uncertainty",
    )
    pilco_prediction_noise: bool = flag(
        False, "add the learned measurement noise to the predicted states at every step"
    )
    pilco_particles: int = flag(200, "number of particles", check=COUNT)


@dataclass(frozen=True)
class PilcoConfig:
    """Settings of the PILCO agent, which learns a policy on the predictions of GPs."""

    rules: ClassVar = (Rule(("compile",), lambda flat: True, "PILCO has no gradient steps"),)

    run: PilcoRunConfig
    pilco: PilcoSettings

    def __post_init__(self) -> None:
        if self.run.continue_episodes:
            raise UsageError(
                "--continue_episodes: must not be given, because a trial of PILCO is an episode"
            )
