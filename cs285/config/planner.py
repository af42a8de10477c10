"""The settings of the planners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config.flags import COUNT, NOT_NEGATIVE, RATE, UNIT, Check, flag, one_of
from cs285.config.ineffective import Flat, Rule, ineffective_if
from cs285.infrastructure.errors import UsageError

SAMPLING_STRATEGIES = ("random", "cem", "icem", "mppi")  # the names in policies/planners
WARM_STARTED = ("icem", "mppi")  # these have a warm start by default
DEFAULT_ELITES = 5
PARTICLES = 20  # default minimum for a Gaussian ensemble: Chua et al. 2018


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
class PlannerConfig:
    """the planner"""

    rules: ClassVar[tuple[Rule, ...]] = (
        _ineffective_without(("cem", "icem"), "cem_iterations", "cem_num_elites", "cem_alpha"),
        Rule(
            ("cem_alpha",),
            _has_one_uniform_population,
            "--cem_iterations is 1, so there is no previous mean",
        ),
        _ineffective_without(("icem",), "icem_noise_beta", "icem_decay", "icem_reuse"),
        _ineffective_without(("mppi",), "mppi_temperature"),
        Rule(
            ("mpc_init_std",),
            lambda flat: not _starts_gaussian(flat),
            "--mpc_action_sampling_strategy is {mpc_action_sampling_strategy} and --mpc_warm_start "
            "is {mpc_warm_start}, so the first population is uniform",
        ),
        ineffective_if("mpc_propagation", "mean", "mpc_particles"),
    )

    # All planners
    mpc_horizon: int = flag(
        10, "planning horizon: length of a candidate sequence, in env steps", check=COUNT
    )
    mpc_num_action_sequences: int = flag(
        1000,
        "number of candidate action sequences in a population; for icem, in the first one",
        check=COUNT,
    )
    mpc_action_sampling_strategy: str = flag(
        "random",
        "planner: random (random shooting), cem, icem or mppi",
        check=one_of(*SAMPLING_STRATEGIES),
    )
    mpc_warm_start: str = flag(
        "auto",
        "on: start each decision from the previous plan, shifted by one step; off: start from "
        "scratch; auto: on for icem and mppi, off for the others",
        check=one_of("auto", "on", "off"),
    )
    mpc_init_std: float = flag(
        1.0,
        "standard deviation of the first Gaussian population (icem, mppi, and cem with a warm "
        "start), in half-widths of the action box",
        check=RATE,
    )
    mpc_propagation: str = flag(
        "tsinf",
        "propagation of an imagined state: tsinf (a particle stays with one member), ts1 (a "
        "particle switches members at each step) or mean (one state, the mean over the elites)",
        check=one_of("tsinf", "ts1", "mean"),
    )
    mpc_particles: int | None = flag(
        None,
        "particles per candidate for tsinf and ts1; must be a multiple of the number of members "
        "that predict (default: one per member; for a Gaussian ensemble, at least "
        f"{PARTICLES} in all)",
        check=COUNT,
    )

    # CEM and iCEM
    cem_iterations: int = flag(4, "cem and icem: populations per decision", check=COUNT)
    cem_num_elites: int = flag(
        DEFAULT_ELITES,
        "cem and icem: number of elites, the best candidates, to which the Gaussian is refitted",
        check=COUNT,
    )
    cem_alpha: float = flag(
        1.0,
        "cem and icem: weight of the elites' mean and standard deviation in a refit; the previous "
        "ones have the weight 1 - alpha",
        check=UNIT,
    )

    # iCEM
    icem_noise_beta: float = flag(
        1.0,
        "icem: exponent of the coloured noise, whose power is proportional to frequency^-beta; 0: "
        "white noise, as in cem",
        check=NOT_NEGATIVE,
    )
    icem_decay: float = flag(
        1.25,
        "icem: factor by which each population is smaller than the previous one, but not below "
        "twice the number of elites",
        check=Check(lambda value: 1 <= value < float("inf"), "a finite number of at least 1"),
    )
    icem_reuse: float = flag(
        0.3,
        "icem: share of the elites that are reused in the next population and, with a warm start, "
        "in the next decision",
        check=UNIT,
    )

    # MPPI
    mppi_temperature: float = flag(
        0.1,
        "mppi: temperature of the weights exp(return / temperature), in units of the return",
        check=RATE,
    )

    def __post_init__(self) -> None:
        # The default number of elites does not restrict the planners that have no elites.
        has_elites = self.mpc_action_sampling_strategy in ("cem", "icem")
        is_relevant = has_elites or self.cem_num_elites != DEFAULT_ELITES
        if is_relevant and self.cem_num_elites > self.mpc_num_action_sequences:
            raise UsageError(
                f"--cem_num_elites {self.cem_num_elites}: must be at most "
                f"--mpc_num_action_sequences ({self.mpc_num_action_sequences})"
            )

    @property
    def is_warm_started(self) -> bool:
        """Whether a decision starts from the previous plan."""
        if self.mpc_warm_start == "auto":
            return self.mpc_action_sampling_strategy in WARM_STARTED
        return self.mpc_warm_start == "on"

    def canonical(self) -> dict[str, Any]:
        """Return {flag: value}, with the same value for equivalent settings (see `signature`)."""
        return {"mpc_warm_start": self.is_warm_started}

    def particles_per_member(self, members: int, is_gaussian: bool) -> int:
        """Return the number of particles per candidate for each of the `members`.

        Raises UsageError: --mpc_particles is not a multiple of `members`.
        """
        if self.mpc_propagation == "mean":
            return 1
        if self.mpc_particles is None:
            return -(-PARTICLES // members) if is_gaussian else 1
        if not is_gaussian and self.mpc_propagation == "tsinf":
            return 1  # without noise, all particles of one member are equal
        if self.mpc_particles % members:
            raise UsageError(
                f"--mpc_particles {self.mpc_particles}: must be a multiple of {members}, the "
                "number of members that predict"
            )
        return self.mpc_particles // members


# Rules of a planner on an ensemble, for configs that have both groups.
ENSEMBLE_RULES = (
    Rule(
        ("mpc_particles",),
        lambda flat: flat["mpc_propagation"] == "tsinf" and flat["model"] == "deterministic",
        "--mpc_propagation is tsinf and --model is deterministic, so all particles of a member "
        "are equal",
    ),
    Rule(
        ("mpc_propagation", "mpc_particles"),
        lambda flat: flat["ensemble_size"] == 1 and flat["model"] == "deterministic",
        "--ensemble_size is 1 and --model is deterministic",
    ),
)
