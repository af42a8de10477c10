"""The planners by name: each is a function from returns to plans (B, H, A), in a file of its own.

A new planner is a function with this signature and an entry in PLANNERS. Its name goes to
SAMPLING_STRATEGIES and its settings to a class in cs285/config/planner.py, where --help finds them
without torch.
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
