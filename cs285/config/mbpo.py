"""The settings of a run of the MBPO agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cs285.config.flags import COUNT, INDEX, UNIT, check_values, flag, one_of
from cs285.config.ineffective import Rule, ineffective_if, names_of
from cs285.config.mb import check_particles, require_model
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.config.run import RunConfig
from cs285.config.sac import SACConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import Notify


def _replaced_by(name: str, flag: str) -> Rule:
    return Rule((flag,), lambda flat: flat[name] is not None, f"--{name} takes its place")


@dataclass(frozen=True)
class RolloutConfig:
    """model rollouts"""

    rules: ClassVar = (
        _replaced_by("mbpo_rollout_schedule", "mbpo_rollout_length"),
        _replaced_by("mbpo_model_buffer_size", "mbpo_models_kept"),
    )

    mbpo_rollout_length: int = flag(
        1, "steps of a model rollout; 0: plain SAC on real data", check=INDEX
    )
    mbpo_rollout_schedule: str | None = flag(
        None,
        "the length as a line over env steps, in place of the flag above: FIRST,LAST,FROM,TO is "
        "FROM up to env step FIRST and TO from env step LAST on",
        commas=True,
    )
    mbpo_propagation: str = flag(
        "mean",
        "next imagined state: mean over the ensemble, or random_member, drawn for each row, which "
        "--model probabilistic brings along",
        check=one_of("mean", "random_member"),
    )
    mbpo_rollouts_per_sac_iter: int = flag(1, "model rollouts per SAC iteration", check=COUNT)
    mbpo_rollout_every: int = flag(
        100,
        "SAC iterations, counted over the run, whose model rollouts are done in one batch",
        check=COUNT,
    )
    mbpo_real_ratio: float | None = flag(
        None,
        "share of real transitions in a SAC batch (default: their share in one buffer that held "
        "both)",
        check=UNIT,
    )
    mbpo_model_buffer_size: int | None = flag(
        None,
        "imagined transitions kept, the newest (default: those of --mbpo_models_kept)",
        check=COUNT,
    )
    mbpo_models_kept: int = flag(
        2,
        "of how many of the last models the imagined transitions are kept; of more where rollouts "
        "end early, since room is made for full lengths",
        check=COUNT,
    )
    mbpo_refit_every: int = flag(1, "trainer iterations between fits of the model", check=COUNT)
    mbpo_eval_planner: bool = flag(
        False,
        "also evaluate planning through the same model, with the planner's flags, as "
        "Planner_Eval_* beside Eval_*",
    )

    def __post_init__(self) -> None:
        if self.mbpo_rollout_schedule is None:
            return
        try:
            first, last, low, high = map(int, self.mbpo_rollout_schedule.split(","))
            is_line = 0 <= first < last and min(low, high) >= 1
        except ValueError:
            is_line = False
        if not is_line:
            raise UsageError(
                f"--mbpo_rollout_schedule {self.mbpo_rollout_schedule}: must be four integers "
                "FIRST,LAST,FROM,TO with FIRST below LAST and lengths of at least 1"
            )
        if self.mbpo_rollout_length == 0:
            raise UsageError(
                "--mbpo_rollout_length 0: must be a positive integer with --mbpo_rollout_schedule"
            )

    def length_at(self, env_steps: int) -> int:
        """Return the length of a model rollout after so many env steps."""
        if self.mbpo_rollout_schedule is None:
            return self.mbpo_rollout_length
        first, last, low, high = map(int, self.mbpo_rollout_schedule.split(","))
        share = min(max((env_steps - first) / (last - first), 0), 1)
        return int(low + share * (high - low))  # rounded down, as in the paper's code


@dataclass(frozen=True)
class MBPOConfig:
    """Everything that defines one run of the MBPO agent."""

    rules: ClassVar = (
        Rule(
            names_of(PlannerConfig),
            lambda flat: not flat["mbpo_eval_planner"],
            "--mbpo_eval_planner is not given",
        ),
        ineffective_if(
            "mbpo_rollout_length",
            0,
            *names_of(
                RolloutConfig, ("mbpo_rollout_length", "mbpo_refit_every", "mbpo_eval_planner")
            ),
        ),
        ineffective_if("num_agent_train_steps_per_iter", 0, "mbpo_refit_every"),
    )

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig
    sac: SACConfig
    rollouts: RolloutConfig

    def __post_init__(self) -> None:
        if self.rollouts.mbpo_rollout_length > 0:
            require_model(self.model, "--mbpo_rollout_length is above 0")
        if self.rollouts.mbpo_eval_planner:
            require_model(self.model, "--mbpo_eval_planner plans through it")
        check_particles(self.model, self.planner)


def resolve_batch_size(given: dict[str, Any], notify: Notify = print) -> dict[str, Any]:
    """Return the flags to run with: --sac_batch_size is --batch_size where that is not given.

    Raises UsageError: a value of the two is not allowed. On --resume this was resolved when the run
    began.
    """
    if "resume" in given:
        return given
    check_values(RunConfig, given)
    check_values(SACConfig, given)
    if "sac_batch_size" not in given:
        return given
    if "batch_size" in given:
        notify(
            f"--batch_size {given['batch_size']} env steps are collected per iteration; it wins "
            f"over --sac_batch_size {given['sac_batch_size']}"
        )
    return {"batch_size": given["sac_batch_size"], **given}
