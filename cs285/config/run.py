"""The settings that every agent's runs have: frozen dataclasses whose fields become flags."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cs285.config.flags import COUNT, FREQUENCY, INDEX, Check, flag

_NAME = re.compile(r"[A-Za-z0-9._+=,@-]{1,128}")
NAME = Check(
    lambda value: bool(_NAME.fullmatch(value)) and value.strip(".") != "",
    "1 to 128 letters, digits and any of . _ - + = , @ (no path separator)",
)
NOT_EMPTY = Check(lambda value: value != "", "a path")


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
    exp_name: str = flag("todo", "goes into the log folder's name", check=NAME, changes_curve=False)
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
    no_gpu: bool = flag(False, "stay on the CPU", "-ngpu", changes_curve=False)
    which_gpu: int = flag(0, "index of the GPU to use", "-gpu_id", check=INDEX, changes_curve=False)
    compile: bool = flag(
        False,
        "compile the fit's and SAC's whole gradient steps with torch.compile; on a GPU also the "
        "planner, and all as CUDA graphs; needs torch 2.13, and the first run waits up to a minute",
    )
    num_workers: int | None = flag(
        None,
        "processes that collect episodes, and the most cores that plan (default: one per core on "
        "CPU, 1 on GPU)",
        check=COUNT,
        free=True,
        changes_curve=False,
    )
    video_log_freq: int = flag(
        -1,
        "log videos every so many iterations; -1: never",
        check=FREQUENCY,
        free=True,
        changes_curve=False,
    )
    scalar_log_freq: int = flag(
        1, "evaluate and log every so many iterations; -1: never", check=FREQUENCY
    )
    save_params: bool = flag(
        False, "keep the agent of every logged iteration", free=True, changes_curve=False
    )
    checkpoint_freq: int = flag(
        1,
        "write the checkpoint every so many iterations; -1: never",
        check=FREQUENCY,
        free=True,
        changes_curve=False,
    )
    data_dir: str | None = flag(
        None, "where log folders go (default: cs285/data)", check=NOT_EMPTY, changes_curve=False
    )
