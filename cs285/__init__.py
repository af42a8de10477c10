"""Model-based reinforcement learning, organised like Berkeley's CS285 homework 4."""

from typing import Any

__version__ = "1.0.0"
__all__ = ["Agent", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cs285 import api  # here, because it imports torch and the simulators

    return getattr(api, name)
