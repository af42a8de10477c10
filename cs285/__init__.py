"""Model-based reinforcement learning in the form of Berkeley's CS285 homework 4."""

__version__ = "0.1.0"
