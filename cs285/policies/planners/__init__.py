"""The planners by name. Each planner is one function in one file.

To add a planner, write a function with the signature `Planner` and add it to PLANNERS. Add its name
to SAMPLING_STRATEGIES and its settings to a class in cs285/config/planner.py. They live there
because --help must not import torch.
"""

from __future__ import annotations

from cs285.policies.planners.cem import cross_entropy
from cs285.policies.planners.icem import improved_cross_entropy
from cs285.policies.planners.mppi import path_integral
from cs285.policies.planners.random_shooting import random_shooting
from cs285.policies.planners.sampling import Planner

PLANNERS: dict[str, Planner] = {
    "random": random_shooting,
    "cem": cross_entropy,
    "icem": improved_cross_entropy,
    "mppi": path_integral,
}
