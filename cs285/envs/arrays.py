"""What a task function may be handed: arrays of NumPy or of torch, with any leading dims."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any  # np.ndarray in env.step, torch.Tensor in the planner


def never(observations: Array) -> Array:
    """Return the `dones` of a task that never terminates: False, shaped (...) for (..., O)."""
    return observations[..., 0] * 0 > 0  # NaN > 0 is False too, so a diverged state is not "done"
