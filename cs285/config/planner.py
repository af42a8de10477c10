"""The settings of the planner: what all planners share, then each planner's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config.flags import COUNT, NOT_NEGATIVE, RATE, UNIT, Check, flag, one_of
from cs285.config.ineffective import Flat, Rule, ineffective_if
from cs285.infrastructure.errors import UsageError

SAMPLING_STRATEGIES = ("random", "cem", "icem", "mppi")  # the names in policies/planners
WARM_STARTED = ("icem", "mppi")  # by default
DEFAULT_ELITES = 5
PARTICLES = 20  # at least, of a probabilistic model by default: Chua et al. 2018


def _starts_gaussian(flat: Flat) -> bool:
    strategy = flat["mpc_action_sampling_strategy"]
    return strategy in WARM_STARTED or (strategy == "cem" and flat["mpc_warm_start"] == "on")


def _has_one_uniform_population(flat: Flat) -> bool:
    is_cem = flat["mpc_action_sampling_strategy"] == "cem"
    return is_cem and flat["cem_iterations"] == 1 and not _starts_gaussian(flat)


def _ineffective_without(strategies: tuple[str, ...], *flags: str) -> Rule:
    return Rule(
        flags,
        lambda flat: flat["mpc_action_sampling_strategy"] not in strategies,
        "--mpc_action_sampling_strategy is {mpc_action_sampling_strategy}",
    )


@dataclass(frozen=True)
class SharedSettings:
    """Settings of all planners: the candidates, and how the model carries them on."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("mpc_init_std",),
            lambda flat: not _starts_gaussian(flat),
            "no first population is Gaussian",
        ),
        ineffective_if("mpc_propagation", "mean", "mpc_particles"),
        Rule(
            ("mpc_particles",),
            lambda flat: flat["mpc_propagation"] == "tsinf" and flat["model"] == "deterministic",
            "states that stay with one deterministic member are all alike",
        ),
        Rule(
            ("mpc_propagation", "mpc_particles"),
            lambda flat: flat["ensemble_size"] == 1 and flat["model"] == "deterministic",
            "there is one member, and it is deterministic",
        ),
    )

    mpc_horizon: int = flag(10, "steps a candidate sequence looks ahead", check=COUNT)
    mpc_num_action_sequences: int = flag(1000, "candidate sequences per decision", check=COUNT)
    mpc_action_sampling_strategy: str = flag(
        "random", "random (shooting), cem, icem or mppi", check=one_of(*SAMPLING_STRATEGIES)
    )
    mpc_warm_start: str = flag(
        "auto",
        "on: search around the last decision's plan, moved on by a step; off: anew each time; "
        "auto: on for icem and mppi",
        check=one_of("auto", "on", "off"),
    )
    mpc_init_std: float = flag(
        1.0,
        "std of the first population that is Gaussian (icem, mppi, cem with warm start), in halves "
        "of the action box",
        check=RATE,
    )
    mpc_propagation: str = flag(
        "tsinf",
        "tsinf: an imagined state stays with one member of the ensemble; ts1: it meets another one "
        "at each step; mean: it is the mean over all",
        check=one_of("tsinf", "ts1", "mean"),
    )
    mpc_particles: int | None = flag(
        None,
        "imagined states per candidate for tsinf and ts1, shared out evenly among the members that "
        f"predict (default: one per member; at least {PARTICLES} if they are probabilistic)",
        check=COUNT,
    )


@dataclass(frozen=True)
class CEMSettings:
    """Settings of CEM, and of iCEM, which refits to elites, too."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ineffective_without(("cem", "icem"), "cem_iterations", "cem_num_elites", "cem_alpha"),
        Rule(
            ("cem_alpha",),
            _has_one_uniform_population,
            "--cem_iterations is 1: there is no mean yet to weight elites against",
        ),
    )

    cem_iterations: int = flag(4, "populations drawn per decision by CEM and iCEM", check=COUNT)
    cem_num_elites: int = flag(DEFAULT_ELITES, "best sequences that they refit to", check=COUNT)
    cem_alpha: float = flag(
        1.0, "weight of the new elites' mean and std against the old", check=UNIT
    )


@dataclass(frozen=True)
class ICEMSettings:
    """Settings of iCEM, beyond those of CEM."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ineffective_without(("icem",), "icem_noise_beta", "icem_decay", "icem_reuse"),
    )

    icem_noise_beta: float = flag(
        1.0,
        "how strongly iCEM's noise goes together in time: its power falls with frequency^-beta; 0: "
        "not at all, as CEM's",
        check=NOT_NEGATIVE,
    )
    icem_decay: float = flag(
        1.25,
        "iCEM divides its population by this from one to the next",
        check=Check(lambda value: 1 <= value < float("inf"), "a finite number of at least 1"),
    )
    icem_reuse: float = flag(
        0.3, "share of its elites that iCEM takes into the next population", check=UNIT
    )


@dataclass(frozen=True)
class MPPISettings:
    """Settings of MPPI."""

    rules: ClassVar[tuple[Rule, ...]] = (_ineffective_without(("mppi",), "mppi_temperature"),)

    mppi_temperature: float = flag(0.1, "of MPPI's weights exp(return / temperature)", check=RATE)


# Fields, and with them flags, come in the order of the bases from the last to the first.
@dataclass(frozen=True)
class PlannerConfig(MPPISettings, ICEMSettings, CEMSettings, SharedSettings):
    """the planner"""

    rules: ClassVar[tuple[Rule, ...]] = (
        *CEMSettings.rules,
        *ICEMSettings.rules,
        *MPPISettings.rules,
        *SharedSettings.rules,
    )

    def __post_init__(self) -> None:
        # Searches without elites are fine with fewer candidates than the default number of them.
        has_elites = self.mpc_action_sampling_strategy in ("cem", "icem")
        asked_for = has_elites or self.cem_num_elites != DEFAULT_ELITES
        if asked_for and self.cem_num_elites > self.mpc_num_action_sequences:
            raise UsageError(
                f"--cem_num_elites {self.cem_num_elites}: must be at most "
                f"--mpc_num_action_sequences ({self.mpc_num_action_sequences})"
            )

    @property
    def is_warm_started(self) -> bool:
        """Whether a decision starts from the one before it."""
        if self.mpc_warm_start == "auto":
            return self.mpc_action_sampling_strategy in WARM_STARTED
        return self.mpc_warm_start == "on"

    def canonical(self) -> dict[str, Any]:
        """Return one value for settings that mean the same."""
        return {"mpc_warm_start": self.is_warm_started}

    def particles_per_member(self, members: int, is_probabilistic: bool) -> int:
        """Return how many particles of a candidate each of the `members` carries on.

        Raises UsageError: the particles asked for cannot be shared out evenly.
        """
        if self.mpc_propagation == "mean":
            return 1
        if self.mpc_particles is None:
            return -(-PARTICLES // members) if is_probabilistic else 1
        if not is_probabilistic and self.mpc_propagation == "tsinf":
            return 1  # without draws, particles that stay with one member are all the same
        if self.mpc_particles % members:
            raise UsageError(
                f"--mpc_particles {self.mpc_particles}: must be a multiple of {members}, the "
                "number of members that predict"
            )
        return self.mpc_particles // members
