"""Random inputs of the recurrence, the same on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lrscan.core.dtypes import double_dtype

# Steps that a state lasts in columns whose coefficients are close to one.
_MEMORY = 1024


def draw_inputs(
    steps: int, columns: int, dtype: torch.dtype, device: torch.device, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return random (a, x, h0) of shapes (T, C), (T, C) and (C,).

    Coefficients have either sign and a magnitude below 1. The numbers are drawn on the CPU, so that
    every device gets the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = double_dtype(dtype)
    a = torch.rand(steps, columns, generator=generator, dtype=torch.float64) * 2 - 1
    if dtype.is_complex:
        angle = torch.rand(steps, columns, generator=generator, dtype=torch.float64)
        a = torch.polar(a.abs(), 2 * math.pi * angle)
    x = torch.randn(steps, columns, generator=generator, dtype=wide)
    h0 = torch.randn(columns, generator=generator, dtype=wide)
    return a.to(device, dtype), x.to(device, dtype), h0.to(device, dtype)


def lasting(a: Tensor) -> Tensor:
    """Return coefficients of magnitude u ** (1 / 1024) for those of magnitude u.

    Sign and angle stay as they are.
    """
    wide = a.to(double_dtype(a.dtype))
    return (torch.sgn(wide) * wide.abs() ** (1 / _MEMORY)).to(a.dtype)
