"""Model-based reinforcement learning, organised like Berkeley's CS285 homework 4."""

__version__ = "0.1.0"
