"""The experiments that `lrscan bench` knows, by name; and the inputs that they draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lrscan.evidence.records import Records

EXPERIMENTS: dict[str, Callable[..., Records]] = {}


def experiment(notebook: str) -> Callable[[Callable[..., Records]], Callable[..., Records]]:
    """Enter a function into EXPERIMENTS, as what ``notebook`` measures."""

    def enter(function: Callable[..., Records]) -> Callable[..., Records]:
        function.name = function.__name__
        function.notebook = notebook
        function.summary = function.__doc__.partition("\n")[0].rstrip(".")
        EXPERIMENTS[function.name] = function
        return function

    return enter


def inputs(
    steps: int, columns: int, dtype: torch.dtype, device: torch.device, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(a, x, h0) of shapes (T, C), (T, C), (C,): coefficients of either sign, magnitude under 1.

    Drawn on the CPU, so that every device sees the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    a = torch.rand(steps, columns, generator=generator, dtype=torch.float64) * 2 - 1
    if dtype.is_complex:
        angle = torch.rand(steps, columns, generator=generator, dtype=torch.float64)
        a = torch.polar(a.abs(), 2 * math.pi * angle)
    x = torch.randn(steps, columns, generator=generator, dtype=wide)
    h0 = torch.randn(columns, generator=generator, dtype=wide)
    return a.to(device, dtype), x.to(device, dtype), h0.to(device, dtype)
