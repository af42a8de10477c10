"""Where a decision, a SAC update and a fit step spend their time, and what bounds them.

    python -m benchmarks.profile

Seconds by kind of operation, from torch's profiler; the matrix products' rate against the sgemm
peak of the same minute; and the rate if the products ran at that peak and all else took no time.
Run it on an idle machine.
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
    content["a SAC update"] = examine(sac_updates.ours(), sac_gflop())
    content["a fit step, E 3 batch 512 2x250"] = examine(fit_work, fit_gflop())
    torch.set_num_threads(1)  # as in a worker
    content["a decision on one thread, random shooting"] = examine(decide(), planning.GFLOP)
    write("profile", content)


def examine(work: Callable[[], int], gflop: float) -> dict[str, Any]:
    """Profile `work`, whose unit takes so many GFLOP of matrix products."""
    peak = 1 / seconds_per_unit(sgemm(), rounds=5)
    seconds = seconds_per_unit(work, rounds=7)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        units = work()
    by_kind: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = KIND_OF.get(event.key.removeprefix("aten::").split(".")[0], "the rest")
        by_kind[kind] += event.self_cpu_time_total / 1e6 / units
    total = sum(by_kind.values())
    by_kind["Python, profiled apart"] = max(seconds - total, 0.0)
    return {
        "per second": round(1 / seconds, 2),
        "milliseconds": round(1000 * seconds, 3),
        "share by kind": {
            kind: round(value / sum(by_kind.values()), 3) for kind, value in by_kind.items()
        },
        "GFLOP of products": round(gflop, 3),
        "sgemm peak GFLOP per s": round(peak, 1),
        "share of the peak": round(gflop / seconds / peak, 3),
        "per second if products ran at the peak and the rest took no time": round(peak / gflop, 1),
    }


def sac_gflop() -> float:
    """Return GFLOP of one update: forward and backward passes of policy (P) and Q networks (Q).

    Critic: P and 2 target Q forward, 2 Q forward, their weights' and hidden gradients. Actor: P
    and 2 Q forward, the 2 Q's gradients by the actions, P's weights' and hidden ones.
    """
    O, A = sac_updates.OB_DIM, sac_updates.AC_DIM
    hidden = SIZE * SIZE
    policy, value = O * SIZE + hidden + SIZE * 2 * A, (O + A) * SIZE + hidden + SIZE
    policy_back, value_back = hidden + SIZE * 2 * A, hidden + SIZE
    critic = policy + 2 * value + 2 * (2 * value + value_back)
    actor = policy + 2 * (value + value_back + A * SIZE) + policy + policy_back
    return 2 * BATCH * (critic + actor) / 1e9


def fit_gflop() -> float:
    """Return GFLOP of one step: forward, the weights' gradients, and the hidden layers'."""
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
