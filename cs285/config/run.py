"""The settings that the runs of all agents share. Each field of the dataclass becomes a flag."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cs285.config.flags import COUNT, FREQUENCY, INDEX, RATE, Check, flag, one_of
from cs285.infrastructure.run_folder import modules_in

_NAME = re.compile(r"[A-Za-z0-9._+=,@-]{1,128}")
NAME = Check(
    lambda value: bool(_NAME.fullmatch(value)) and value.strip(".") != "",
    "1 to 128 letters, digits and any of . _ - + = , @ (no path separator)",
)
KEYWORDS = Check(
    lambda value: all(re.fullmatch(r"[A-Za-z_]\w*=\S*", word) for word in value.split()),
    "KEY=VALUE, once or several times",
)
WRAPPERS = Check(
    lambda value: all(re.fullmatch(r"[\w.]+:\w+", word) for word in value.split()),
    "MODULE:NAME, once or several times",
)
NOT_EMPTY = Check(lambda value: value != "", "a path")


@dataclass(frozen=True)
class RunConfig:
    """the run"""

    env_name: str = flag(
        "",
        "environment id: cheetah-cs285-v0, obstacles-cs285-v0, reacher-cs285-v0, "
        "cartpole-swingup-v0, pendulum-swingup-v0, or any Gymnasium id with Box actions, and Box, "
        "Dict or Tuple observations; MODULE:ID imports MODULE first (required)",
    )
    env_kwargs: str = flag(
        "",
        "arguments of the environment's constructor, as KEY=VALUE ...; values are Python literals "
        "or text",
        check=KEYWORDS,
        words=True,
    )
    env_wrappers: str = flag(
        "",
        "wrappers around the environment, as MODULE:NAME ..., the innermost first",
        check=WRAPPERS,
        words=True,
    )
    ep_len: int | None = flag(
        None,
        "maximum length of an episode, in env steps (default: 500 for cheetah, 200 for reacher, "
        "100 for obstacles; for other ids their own time limit, or 200 without one)",
        check=COUNT,
    )
    exp_name: str = flag(
        "todo", "experiment name, a part of the log folder's name", check=NAME, changes_curve=False
    )
    n_iter: int = flag(
        20,
        "number of iterations; each collects, fits, evaluates and logs",
        "-n",
        check=COUNT,
        free=True,
    )
    batch_size_initial: int = flag(
        20000,
        "env steps with random actions in iteration 0, rounded up to whole episodes",
        check=COUNT,
    )
    batch_size: int = flag(
        8000,
        "env steps to collect in each later iteration, rounded up to whole episodes",
        "-b",
        check=COUNT,
    )
    continue_episodes: bool = flag(
        False,
        "collect exactly the requested env steps instead of whole episodes; an unfinished episode "
        "continues in the next iteration",
    )
    eval_batch_size: int = flag(
        400,
        "env steps per evaluation, rounded up to whole episodes",
        "-eb",
        check=COUNT,
    )
    seed: int = flag(1, "seed of all random draws", check=INDEX)
    no_gpu: bool = flag(
        False, "run on the CPU even if there is a GPU", "-ngpu", changes_curve=False
    )
    which_gpu: int = flag(0, "index of the GPU to use", "-gpu_id", check=INDEX, changes_curve=False)
    compile: bool = flag(
        False,
        "compile the gradient steps of the model and of SAC with torch.compile; on a GPU, compile "
        "the planner, too, and use CUDA graphs; needs torch 2.13 or newer; the first run waits "
        "for the compiler: about 20 s for SAC, longer with --preset dhmbpo",
    )
    num_workers: int | None = flag(
        None,
        "number of processes that collect episodes, and maximum number of cores for planning "
        "(default: one per core on a CPU, 1 on a GPU)",
        check=COUNT,
        free=True,
        changes_curve=False,
    )
    env_timeout: float = flag(
        300.0,
        "seconds that one step or reset of the environment may take before the run stops",
        check=RATE,
        free=True,
        changes_curve=False,
    )
    video_log_freq: int = flag(
        -1,
        "iterations between two videos of the policy; -1: no videos",
        check=FREQUENCY,
        free=True,
        changes_curve=False,
    )
    scalar_log_freq: int = flag(
        1,
        "iterations between two evaluations; only these iterations are logged; -1: never",
        check=FREQUENCY,
    )
    save_params: bool = flag(
        False,
        "save the agent's weights in every logged iteration",
        free=True,
        changes_curve=False,
    )
    checkpoint_freq: int = flag(
        1,
        "iterations between two checkpoints; the last iteration always writes one; -1: no "
        "checkpoints, so the run cannot be resumed",
        check=FREQUENCY,
        free=True,
        changes_curve=False,
    )
    verbose: bool = flag(
        False,
        "print all metrics of every logged iteration, not only one line",
        "-v",
        free=True,
        changes_curve=False,
    )
    track: str | None = flag(
        None,
        "also log to an experiment tracker, wandb or mlflow; without an account or a server it "
        "writes into the data folder",
        check=one_of("wandb", "mlflow"),
        free=True,
        changes_curve=False,
    )
    data_dir: str | None = flag(
        None,
        "folder for the log folders (default: cs285/data)",
        check=NOT_EMPTY,
        changes_curve=False,
    )

    @property
    def modules(self) -> list[str]:
        """The parts of `task` that name a module to import, as MODULE:NAME."""
        return modules_in(vars(self))

    @property
    def task(self) -> tuple[str, str, str]:
        """The flags that say which task to create (see envs.registration.TaskId)."""
        return self.env_name, self.env_kwargs, self.env_wrappers
