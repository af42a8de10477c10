"""Time by kind of operation of a decision, a SAC update and a fit gradient step.

Run `python -m benchmarks.profile` on an idle machine.

The shares of the time come from torch's profiler. The script also compares the rate of the matrix
products with the sgemm peak, which it measures just before. The upper bound is the rate that
would be reached if the products ran at that peak and nothing else took time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import dynamics_fit, planning, sac_updates
from benchmarks.timing import seconds_per_unit, sgemm, write
from cs285.infrastructure.pytorch_util import make_generator
from cs285.networks.cpu_tuning import tune_cpu
from cs285.policies.base_policy import Memory

KINDS = {
    "matrix products": ("mm", "bmm", "addmm", "baddbmm"),
    "activations": (
        "sigmoid_", "tanh_backward", "relu_", "clamp_min_", "threshold_backward", "tanh",
    ),
    "optimiser and targets": ("_fused_adam_", "_foreach_add_", "lerp_", "Optimizer"),
    "gathers and copies": ("index_select", "index", "cat", "copy_", "_to_copy", "stack"),
}  # fmt: skip
KIND_OF = {op: kind for kind, ops in KINDS.items() for op in ops}
BATCH, SIZE = sac_updates.BATCH, sac_updates.SIZE


def main() -> None:
    tune_cpu()
    threads = torch.get_num_threads()
    content: dict[str, Any] = {"torch_threads": threads}
    fit_work = dynamics_fit.ours(*dynamics_fit.SHAPES["E 3 batch 512 2x250"])
    content["SAC update"] = examine(sac_updates.ours(), sac_gflop())
    content["fit gradient step, E 3 batch 512 2x250"] = examine(fit_work, fit_gflop())
    torch.set_num_threads(1)  # a worker process has one thread
    content["decision, random shooting, 1 thread"] = examine(decide(), planning.GFLOP)
    write("profile", content)


def examine(work: Callable[[], int], gflop: float) -> dict[str, Any]:
    """Profile `work`. One unit of it takes `gflop` GFLOP of matrix products."""
    peak = 1 / seconds_per_unit(sgemm(), rounds=5)
    seconds = seconds_per_unit(work, rounds=7)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        units = work()
    by_kind: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = KIND_OF.get(event.key.removeprefix("aten::").split(".")[0], "other operations")
        by_kind[kind] += event.self_cpu_time_total / 1e6 / units
    total = sum(by_kind.values())
    by_kind["Python"] = max(seconds - total, 0.0)
    return {
        "per second": round(1 / seconds, 2),
        "milliseconds": round(1000 * seconds, 3),
        "share by kind": {
            kind: round(value / sum(by_kind.values()), 3) for kind, value in by_kind.items()
        },
        "GFLOP of matrix products": round(gflop, 3),
        "sgemm peak GFLOP per s": round(peak, 1),
        "share of sgemm peak": round(gflop / seconds / peak, 3),
        "upper bound per second": round(peak / gflop, 1),
    }


def sac_gflop() -> float:
    """Return the GFLOP of the matrix products in one SAC update.

    Critic: forward passes of the policy, both target networks and both Q networks, and gradients of
    the Q networks with respect to weights and hidden units. Actor: forward passes of the policy and
    both Q networks, gradients of the Q networks with respect to hidden units and actions, and
    gradients of the policy with respect to weights and hidden units.
    """
    O, A = sac_updates.OB_DIM, sac_updates.AC_DIM
    hidden = SIZE * SIZE
    policy, value = O * SIZE + hidden + SIZE * 2 * A, (O + A) * SIZE + hidden + SIZE
    policy_back, value_back = hidden + SIZE * 2 * A, hidden + SIZE
    critic = policy + 2 * value + 2 * (2 * value + value_back)
    actor = policy + 2 * (value + value_back + A * SIZE) + policy + policy_back
    return 2 * BATCH * (critic + actor) / 1e9


def fit_gflop() -> float:
    """Return the GFLOP of the matrix products in one gradient step of the fit.

    They are the forward pass and the gradients with respect to weights and hidden units.
    """
    members, batch, width, _ = dynamics_fit.SHAPES["E 3 batch 512 2x250"]
    first = (dynamics_fit.OB_DIM + dynamics_fit.AC_DIM) * width
    others = width * width + width * dynamics_fit.OB_DIM
    return 2 * members * batch * (2 * (first + others) + others) / 1e9


def decide() -> Callable[[], int]:
    agent = planning.make_agent("random", "cpu")
    obs = np.zeros((1, planning.OB_DIM), np.float32)
    memories = [Memory(make_generator(1, "benchmark"))]

    def work() -> int:
        for _ in range(4):
            agent.actor.get_action(obs, memories)
        return 4

    return work


if __name__ == "__main__":
    main()
