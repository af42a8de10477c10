"""Noise that goes together in time: its power falls with a power of the frequency."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


@functools.lru_cache
def noise_basis(horizon: int, beta: float) -> Tensor:
    """Return the matrix (H, H) that makes white noise (..., H) into colored noise, by `white @ it`.

    Each step has a variance of 1; the power at frequency f falls with f^-beta: 0 is white noise, 1
    pink, 2 red. The rows are sines and cosines, scaled by f^(-beta/2); the constant has the scale
    of the lowest frequency. Timmer & Koenig 1995; Pinneri et al. 2020, arXiv:2008.06389, section
    3.1.
    """
    steps = torch.arange(horizon, dtype=torch.float64)
    rows = []
    for k in range(horizon // 2 + 1):
        scale = max(k, 1) ** (-beta / 2)
        if k in (0, horizon / 2):
            rows.append(scale * torch.cos(2 * math.pi * k * steps / horizon))
        else:
            angles = 2 * math.pi * k * steps / horizon
            rows += [scale * 2**0.5 * torch.cos(angles), scale * 2**0.5 * torch.sin(angles)]
    basis = torch.stack(rows)
    return (basis / basis.square().sum(0).sqrt()).float()
