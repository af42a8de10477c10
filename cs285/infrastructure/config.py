"""Every setting of a run: frozen dataclasses, from whose fields the flags are generated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.flags import (
    COUNT,
    FREQUENCY,
    INDEX,
    UNIT,
    Check,
    flag,
    one_of,
)
from cs285.infrastructure.model_config import ModelConfig
from cs285.infrastructure.planner_config import PlannerConfig
from cs285.infrastructure.sac_config import SACConfig

_NAME = re.compile(r"[A-Za-z0-9._+=,@-]{1,128}")
NAME = Check(
    lambda value: bool(_NAME.fullmatch(value)) and value.strip(".") != "",
    "1 to 128 letters, digits and any of . _ - + = , @ (no path separator)",
)
NOT_EMPTY = Check(lambda value: value != "", "anything but nothing")


@dataclass(frozen=True)
class RunConfig:
    """the run"""

    env_name: str = flag(
        "", "cheetah-cs285-v0, obstacles-cs285-v0, reacher-cs285-v0 or any Gymnasium id (required)"
    )
    ep_len: int | None = flag(
        None,
        "episode cap in env steps (default: cheetah 500, reacher 200, obstacles 100, other ids "
        "their own limit, or 200)",
        check=COUNT,
    )
    exp_name: str = flag("todo", "goes into the log folder's name", check=NAME)
    n_iter: int = flag(20, "trainer iterations", "-n", check=COUNT, free=True)
    batch_size_initial: int = flag(
        20000, "env steps of random actions collected in iteration 0", check=COUNT
    )
    batch_size: int = flag(8000, "env steps collected in each later iteration", "-b", check=COUNT)
    continue_episodes: bool = flag(
        False,
        "collect exactly the env steps asked for, the running episode going on in the next "
        "iteration, instead of whole episodes",
    )
    eval_batch_size: int = flag(400, "env steps per evaluation", "-eb", check=COUNT)
    seed: int = flag(1, "seed of every random draw", check=INDEX)
    no_gpu: bool = flag(False, "stay on the CPU", "-ngpu")
    which_gpu: int = flag(0, "index of the GPU to use", "-gpu_id", check=INDEX)
    compile: bool = flag(
        False,
        "compile SAC's updates with torch.compile; on a GPU also the fit and the planner, and all "
        "as CUDA graphs; takes a minute at first",
    )
    num_workers: int | None = flag(
        None,
        "processes that collect episodes (default: one per core on CPU, 1 on GPU)",
        check=COUNT,
        free=True,
    )
    video_log_freq: int = flag(
        -1, "log videos every so many iterations; -1: never", check=FREQUENCY, free=True
    )
    scalar_log_freq: int = flag(
        1, "evaluate and log every so many iterations; -1: never", check=FREQUENCY
    )
    save_params: bool = flag(False, "keep the agent of every logged iteration", free=True)
    checkpoint_freq: int = flag(
        1, "write the checkpoint every so many iterations; -1: never", check=FREQUENCY, free=True
    )
    data_dir: str | None = flag(None, "where log folders go (default: cs285/data)", check=NOT_EMPTY)


@dataclass(frozen=True)
class RolloutConfig:
    """model rollouts"""

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
            is_line = 0 <= first < last and min(low, high) >= 1 and self.mbpo_rollout_length > 0
        except ValueError:
            is_line = False
        if not is_line:
            raise UsageError(
                f"--mbpo_rollout_schedule {self.mbpo_rollout_schedule}: allowed are FIRST,LAST,"
                "FROM,TO of whole numbers, FIRST below LAST and lengths from 1, where "
                "--mbpo_rollout_length is not 0"
            )

    def length_at(self, env_steps: int) -> int:
        """Return the length of a model rollout after so many env steps."""
        if self.mbpo_rollout_schedule is None:
            return self.mbpo_rollout_length
        first, last, low, high = map(int, self.mbpo_rollout_schedule.split(","))
        share = min(max((env_steps - first) / (last - first), 0), 1)
        return int(low + share * (high - low))  # rounded down, as in the paper's code


@dataclass(frozen=True)
class MBConfig:
    """Everything that defines one run of the MB agent."""

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig

    def __post_init__(self) -> None:
        _require_model(self.model, "the MB agent plans through it")
        _check_particles(self.model, self.planner)


@dataclass(frozen=True)
class MBPOConfig:
    """Everything that defines one run of the MBPO agent."""

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig
    sac: SACConfig
    rollouts: RolloutConfig

    def __post_init__(self) -> None:
        if self.rollouts.mbpo_rollout_length > 0:
            _require_model(self.model, "--mbpo_rollout_length is above 0")
        if self.rollouts.mbpo_eval_planner:
            _require_model(self.model, "--mbpo_eval_planner plans through it")
        _check_particles(self.model, self.planner)


def _check_particles(model: ModelConfig, planner: PlannerConfig) -> None:
    """Raise UsageError: the planner's particles cannot be shared out among the model's members."""
    members = model.num_elites or model.ensemble_size
    planner.particles_per_member(members, model.model == "probabilistic")


def _require_model(model: ModelConfig, reason: str) -> None:
    if model.num_agent_train_steps_per_iter == 0:
        raise UsageError(
            f"--num_agent_train_steps_per_iter 0: allowed are whole numbers from 1, since {reason}"
        )
