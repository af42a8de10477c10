"""Translate names that earlier versions wrote into logs, so that old runs remain readable.

The CHANGELOG lists every renamed flag and metric.
"""

from __future__ import annotations

from typing import Any

METRICS = {
    "Training_Loss": "Training Loss",  # tensorboardX replaced the space in the homework's logs
    "Holdout Loss": "New Data Loss",
    "Real Share": "Real Ratio",
}


def current_metric(name: str) -> str:
    """Return the current name of a metric, which may be an old one."""
    return METRICS.get(name, name)


def translate_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags of a run's config.json with their current names and values."""
    flags = dict(flags)
    if "model" not in flags:
        return flags
    mean_loss = flags.pop("mean_loss", "nll")
    is_nll = flags["model"] == "probabilistic" and mean_loss == "nll"
    has_steps = flags.get("holdout_ratio", 0) == 0  # a fixed number of gradient steps per fit
    earlier = {
        "model_loss": "nll" if is_nll else "column_nll",
        "model_init": "lecun",
        "learning_rate_schedule": "falling" if has_steps else "constant",
    }
    return earlier | flags
