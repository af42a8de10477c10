"""Number of files in cs285/ that a reader opens to follow one question through the code.

Run `python -m benchmarks.files_opened [--list]`.

The script does what each question asks about once, with the homework's defaults, and notes the
files of all functions that run. A file with only data classes is not counted. Settings (config/),
tasks (envs/) and the helpers in VOCABULARY are not counted either: they define terms and are not a
step of the route.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from benchmarks.planning import ENV, OB_DIM, random_data
from cs285.agents.mb_agent import MBAgent
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.config.flags import from_flat
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task
from cs285.policies.base_policy import Memory

PACKAGE = Path(__file__).parents[1] / "cs285"
VOCABULARY = (
    "config/",
    "envs/",
    "infrastructure/pytorch_util.py",  # tensors, seeds, devices
    "infrastructure/recording/",  # stopwatch and progress bar
    "policies/base_policy.py",
)
FEW = {"num_agent_train_steps_per_iter": 2, "mpc_num_action_sequences": 20}
TARGETS = {"one MPC decision": 6, "one fit": 5, "one MBPO iteration": 12}


def questions() -> dict[str, Callable[[], object]]:
    """Return what each question asks about."""
    task, data, cpu = inspect_task(ENV), random_data(), torch.device("cpu")
    config = from_flat(MBConfig, FEW)
    mb = MBAgent(task, config.model, config.planner, 1, cpu)
    mbpo_flags = {"num_agent_train_steps_per_iter": 2, "sac_n_iter": 2}
    mbpo = MBPOAgent(task, from_flat(MBPOConfig, mbpo_flags), cpu)
    for replay in (mb.replay_buffer, mbpo.mb_agent.replay_buffer, mbpo.sac_agent.replay_buffer):
        replay.add(data)
    obs, memories = np.zeros((1, OB_DIM), np.float32), [Memory(torch.Generator(), {})]
    mb.train(0)
    return {
        "one MPC decision": lambda: mb.actor.get_action(obs, memories),
        "one fit": lambda: mb.train(1),
        "one MBPO iteration": lambda: mbpo.train(0),
    }


def files_run_by(work: Callable[[], object]) -> list[str]:
    """Return the sorted files of the package whose functions `work` calls."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    paths = [Path(file) for file in files]
    names = [path.relative_to(PACKAGE).as_posix() for path in paths if PACKAGE in path.parents]
    return sorted(name for name in names if not name.startswith(VOCABULARY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="also print the files")
    lists = parser.parse_args().list
    for question, work in questions().items():
        files = files_run_by(work)
        print(f"{question}: {len(files)} files (target: at most {TARGETS[question]})")
        if lists:
            print("".join(f"  {file}\n" for file in files), end="")


if __name__ == "__main__":
    main()
