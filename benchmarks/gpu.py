"""Everything to measure on a machine with a GPU, most important first: tests, agreement, speed.

Run `python -m benchmarks.gpu --minutes 8`. Work that does not fit into the time is listed as not
measured. `--small` does a little of everything, also without a GPU, and writes nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from benchmarks import dynamics_fit, planning, sac_updates, value_expansion
from benchmarks.end_to_end import CHEETAH, PLANNED, RUNS, run_script
from benchmarks.timing import Contender, seconds_per_unit, write
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task

TESTS = ["tests/unit/test_compilation.py", "tests/unit/test_collector.py"]
FIT_SHAPE = dynamics_fit.SHAPES["E 3 batch 512 2x250"]
SAC_UPDATES = 20  # in the comparison with the CPU
SHORT = [
    *CHEETAH, "--n_iter", "1", "--batch_size_initial", "400", "--eval_batch_size", "20",
    "--ep_len", "20", "--num_agent_train_steps_per_iter", "20",
]  # fmt: skip
SMALL_RUNS = {
    "q3_cheetah": ("mb", [*SHORT, "--mpc_num_action_sequences", "100"]),
    "q6_cheetah_rlen10": ("mbpo", [*SHORT, "--sac_n_iter", "20"]),
}
FULL_RUNS = {
    "q3_cheetah": ("mb", [*PLANNED, "--n_iter", "2", "--batch_size", "5000"]),
    "q6_cheetah_rlen10": RUNS["q6_cheetah_rlen10"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8, help="no part starts after this time")
    parser.add_argument("--small", action="store_true", help="a little of everything")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        parser.error("this machine has no GPU; --small measures a little of everything on the CPU")
    ends = time.monotonic() + 60 * arguments.minutes
    content: dict[str, Any] = {"device": device, "small": arguments.small}
    for name, part in parts(device, arguments.small).items():
        print(f"== {name}", flush=True)
        content[name] = attempt(part) if time.monotonic() < ends else "not measured: no time left"
        print(content[name], flush=True)
    if not arguments.small:
        write("gpu", content)


def parts(device: str, small: bool) -> dict[str, Callable[[], object]]:
    """Return the parts, most important first."""
    rounds = 1 if small else 5
    compiles = (False,) if small else (False, True)
    contenders = {
        f"{name}{', --compile' * compile}": contender
        for compile in compiles
        for name, contender in speeds(device, compile, small).items()
    }
    runs = SMALL_RUNS if small else FULL_RUNS
    return {
        "tests": partial(run_tests, ["-k", "backend_depends"] if small else []),
        "agreement with the CPU": partial(agreement, device),
        **{
            f"{name}, per second": partial(rate, contender, rounds)
            for name, contender in contenders.items()
        },
        **{f"{name}, whole run": partial(whole_run, *run) for name, run in runs.items()},
    }


def attempt(part: Callable[[], object]) -> object:
    """Return the result of a part, or its error, so that the other parts still run."""
    try:
        return part()
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"


def run_tests(selection: list[str]) -> str:
    """Run the tests that are skipped without a GPU, and return pytest's summary."""
    command = [sys.executable, "-m", "pytest", "--tb=short", *selection, *TESTS]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    if " failed" in output or " error" in output:
        print(output)
    summaries = re.findall(r"^.*\d+ passed.*$|^.*\d+ failed.*$", output, re.MULTILINE)
    return summaries[-1] if summaries else output[-200:]


def agreement(device: str) -> dict[str, float]:
    """Train the same agent here and on the CPU; return the relative difference of each metric.

    All draws are made on the CPU, so only rounding differs.
    """
    updates = sac_draws()
    metrics = [metrics_of_training(one, updates) for one in ("cpu", device)]
    shared = [name for name in metrics[0] if name in metrics[1]]
    return {
        name: float(f"{abs(metrics[1][name] - metrics[0][name]) / abs(metrics[0][name]):.2g}")
        for name in shared
        if metrics[0][name] and np.isfinite(metrics[0][name])
    }


def question6_agent(device: str) -> MBPOAgent:
    """Return an agent like question 6's, with random transitions and a short fit."""
    flags = {"num_agent_train_steps_per_iter": 50, "mbpo_rollout_length": 10}
    agent = MBPOAgent(
        inspect_task(planning.ENV), from_flat(MBPOConfig, flags), torch.device(device)
    )
    agent.mb_agent.replay_buffer.add(planning.random_data())
    agent.sac_agent.replay_buffer.add(planning.random_data())
    return agent


def sac_draws() -> list[Any]:
    """Return the batches and the random draws of some SAC updates."""
    sac = question6_agent("cpu").sac_agent
    sac._fit_obs_scaler()
    return list(sac._batches(sac.draw_real(0, SAC_UPDATES), 0))


def metrics_of_training(device: str, updates: list[Any]) -> dict[str, float]:
    """Return the metrics of question 6's agent after a short fit and some SAC updates."""
    agent = question6_agent(device)
    found = agent.mb_agent.train(0)
    agent.sac_agent._fit_obs_scaler()
    for update in updates:
        here = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), update)
        found |= agent.sac_agent.update(*here, True, True)
    return {name: float(np.mean(value.cpu().numpy())) for name, value in found.items()}


def speeds(device: str, compile: bool, small: bool) -> dict[str, Contender]:
    """Return what is timed: planning, a fit, SAC updates and double-horizon updates."""
    decisions = 2 if small else 20
    plan = {
        f"decisions with {strategy}": partial(
            planning.in_lockstep, strategy, decisions, device, compile
        )
        for strategy in (("random",) if small else ("random", "cem"))
    }
    return {
        **plan,
        "fit gradient steps": partial(dynamics_fit.ours, *FIT_SHAPE, device, compile),
        "SAC updates": partial(sac_updates.ours, device, compile),
        "double-horizon updates": partial(double_horizon, device, compile),
    }


def double_horizon(device: str, compile: bool) -> Callable[[], int]:
    """Return work that takes ten updates of double-horizon MBPO."""
    agent = value_expansion.make_agent(compile, device)
    update = value_expansion.phases(agent)["update"]

    def work() -> int:
        for _ in range(10):
            update()
        agent.sac_agent.log_temperature.item()  # wait for the GPU
        return 10

    return work


def rate(contender: Contender, rounds: int) -> float:
    return round(1 / seconds_per_unit(contender(), rounds), 2)


def whole_run(agent: str, flags: list[str]) -> dict[str, Any]:
    """Run a training script on the device that it chooses; return its seconds by phase."""
    seconds, phases, last = run_script(agent, flags)
    by_phase = {name: round(value, 2) for name, value in phases.items()}
    return {"seconds": round(seconds, 1), "last_evaluation": last, **by_phase}


if __name__ == "__main__":
    main()
