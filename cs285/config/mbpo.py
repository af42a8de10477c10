"""The settings of the MBPO agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config import presets
from cs285.config.flags import COUNT, LARGEST, STEPS, UNIT, check_values, flag, one_of
from cs285.config.ineffective import Rule, ineffective_if, names_of
from cs285.config.mb import check_particles, require_model
from cs285.config.model import ModelConfig
from cs285.config.planner import ENSEMBLE_RULES, PlannerConfig
from cs285.config.run import RunConfig
from cs285.config.sac import SACConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import Notify


def _overridden_by(name: str, flag: str) -> Rule:
    return Rule((flag,), lambda flat: flat[name] is not None, f"--{name} overrides it")


@dataclass(frozen=True)
class RolloutConfig:
    """model rollouts"""

    rules: ClassVar = (
        _overridden_by("mbpo_rollout_schedule", "mbpo_rollout_length"),
        _overridden_by("mbpo_model_buffer_size", "mbpo_models_kept"),
        _overridden_by("mbpo_rollouts_per_block", "mbpo_rollouts_per_sac_iter"),
    )

    mbpo_rollout_length: int = flag(
        1, "steps of a model rollout; 0: no rollouts, plain SAC on real data", check=STEPS
    )
    mbpo_rollout_schedule: str | None = flag(
        None,
        "FIRST,LAST,FROM,TO: the length of a model rollout changes linearly from FROM at env step "
        "FIRST to TO at env step LAST; overrides --mbpo_rollout_length (default: no schedule)",
        commas=True,
    )
    mbpo_propagation: str = flag(
        "mean",
        "next state of a model rollout: mean (over the ensemble) or random_member (of one member, "
        "drawn for each row and step; --model probabilistic sets it)",
        check=one_of("mean", "random_member"),
    )
    mbpo_rollouts_per_sac_iter: int = flag(1, "model rollouts per SAC iteration", check=COUNT)
    mbpo_rollouts_per_block: int | None = flag(
        None,
        "model rollouts per block of --mbpo_rollout_every SAC iterations (default: set by "
        "--mbpo_rollouts_per_sac_iter)",
        check=COUNT,
    )
    mbpo_rollout_every: int = flag(
        100,
        "SAC iterations per batch of model rollouts; a fit of the model starts a new batch",
        check=COUNT,
    )
    mbpo_real_ratio: float | None = flag(
        None,
        "share of real transitions in a SAC batch (default: their share in a single buffer of all "
        "real and imagined transitions, as in the homework)",
        check=UNIT,
    )
    mbpo_model_buffer_size: int | None = flag(
        None,
        "capacity of the model buffer, which keeps the newest imagined transitions (default: set "
        "by --mbpo_models_kept)",
        check=COUNT,
    )
    mbpo_models_kept: int = flag(
        2,
        "capacity of the model buffer as a number of models: it holds the full-length rollouts of "
        "this many models, or of more models if rollouts terminate early",
        check=COUNT,
    )
    mbpo_refit_every: int = flag(1, "iterations between two fits of the model", check=COUNT)
    mbpo_restart_at_fit: bool = flag(
        False,
        "each fit of the model also clears the model buffer and resets all optimisers",
    )
    mbpo_critic_iters_after_fit: int = flag(
        0, "additional SAC iterations after each fit, which train only the Q networks", check=STEPS
    )
    mbpo_value_expansion: int = flag(
        0,
        "steps of the training rollouts from which SAC's targets and policy gradient are computed "
        "(double-horizon MBPO: 5); 0: none, SAC's own losses",
        check=STEPS,
    )
    mbpo_eval_planner: bool = flag(
        False,
        "also evaluate the planner on the same model; its metrics are Planner_Eval_*",
    )

    def __post_init__(self) -> None:
        if self.mbpo_rollout_schedule is None:
            return
        try:
            first, last, low, high = self._schedule
            lengths_fit = min(low, high) >= 1 and STEPS.holds(max(low, high))
            is_line = 0 <= first < last <= LARGEST and lengths_fit
        except ValueError:
            is_line = False
        if not is_line:
            raise UsageError(
                f"--mbpo_rollout_schedule {self.mbpo_rollout_schedule}: must be four integers "
                "FIRST,LAST,FROM,TO with FIRST below LAST and lengths from 1 to 100000"
            )
        if self.mbpo_rollout_length == 0:
            raise UsageError(
                "--mbpo_rollout_length 0: must be a positive integer with --mbpo_rollout_schedule"
            )

    @property
    def _schedule(self) -> list[int]:
        """The numbers FIRST,LAST,FROM,TO. Raises ValueError: one is not an integer."""
        return list(map(int, (self.mbpo_rollout_schedule or "").split(",")))

    def length_at(self, env_steps: int) -> int:
        """Return the length of a model rollout after `env_steps`."""
        if self.mbpo_rollout_schedule is None:
            return self.mbpo_rollout_length
        first, last, low, high = self._schedule
        share = min(max((env_steps - first) / (last - first), 0), 1)
        return int(low + share * (high - low))  # rounded down, as in the paper's code


@dataclass(frozen=True)
class MBPOConfig:
    """Settings of the MBPO agent, which trains SAC on real and on imagined transitions."""

    rules: ClassVar = (
        Rule(
            names_of(PlannerConfig),
            lambda flat: not flat["mbpo_eval_planner"],
            "--mbpo_eval_planner is not set",
        ),
        ineffective_if(
            "mbpo_rollout_length",
            0,
            *names_of(
                RolloutConfig,
                (
                    "mbpo_rollout_length",
                    "mbpo_refit_every",
                    "mbpo_eval_planner",
                    "mbpo_restart_at_fit",
                    "mbpo_critic_iters_after_fit",
                    "mbpo_value_expansion",
                    "mbpo_propagation",
                ),
            ),
        ),
        Rule(
            ("mbpo_propagation",),
            lambda flat: flat["mbpo_rollout_length"] == flat["mbpo_value_expansion"] == 0,
            "--mbpo_rollout_length and --mbpo_value_expansion are 0",
        ),
        ineffective_if(
            "num_agent_train_steps_per_iter",
            0,
            "mbpo_refit_every",
            "mbpo_restart_at_fit",
            "mbpo_critic_iters_after_fit",
        ),
        *ENSEMBLE_RULES,
    )

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig
    sac: SACConfig
    rollouts: RolloutConfig

    def __post_init__(self) -> None:
        if self.rollouts.mbpo_rollout_length > 0:
            require_model(self.model, "--mbpo_rollout_length is above 0")
        if self.rollouts.mbpo_value_expansion > 0:
            require_model(self.model, "--mbpo_value_expansion is above 0")
            for name in (
                "sac_num_critic_updates_per_agent_update", "sac_num_actor_updates_per_agent_update"
            ):  # fmt: skip
                if (value := getattr(self.sac, name)) > 1:
                    raise UsageError(
                        f"--{name} {value}: must be 1 with --mbpo_value_expansion, because critic "
                        "and policy share one training rollout"
                    )
        if self.rollouts.mbpo_eval_planner:
            require_model(self.model, "--mbpo_eval_planner plans through it")
        check_particles(self.model, self.planner)


def resolve_flags(given: dict[str, Any], notify: Notify = print) -> dict[str, Any]:
    """Return the `given` flags and the flags that follow from them.

    --batch_size is set to --sac_batch_size, if only that is given. A run without model rollouts
    fits no model, unless --num_agent_train_steps_per_iter is given. Raises UsageError: a value is
    invalid.
    """
    if "resume" in given:  # the original run already did this
        return given
    check_values(RunConfig, given)
    check_values(SACConfig, given)
    steps = "num_agent_train_steps_per_iter"
    flags = presets.flags_named_in(given) | given
    uses_model = flags.get("mbpo_rollout_length") != 0 or any(
        flags.get(flag, 0) for flag in ("mbpo_eval_planner", "mbpo_value_expansion")
    )
    if not uses_model and steps not in given:
        notify(f"--mbpo_rollout_length 0 sets --{steps} 0: SAC alone needs no model")
        given = {steps: 0, **given}
    if "sac_batch_size" not in given:
        return given
    if given.get("batch_size", given["sac_batch_size"]) != given["sac_batch_size"]:
        notify(
            f"warning: --sac_batch_size {given['sac_batch_size']} has no effect because "
            f"--batch_size {given['batch_size']} overrides it; pass only one of them"
        )
    return {"batch_size": given["sac_batch_size"], **given}
