"""Checks that every candidate computes the recurrence, before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan.core.reference import linear_recurrence_reference, rounding_bound


def check(
    candidates: Mapping[str, Callable[[], object]],
    out: Tensor,
    a: Tensor,
    x: Tensor,
    dim: int,
    first: int,
) -> Tensor:
    """Raise RuntimeError unless every candidate writes the recurrence of a and x to ``out``.

    Each is compared with the float64 loop, over the ``first`` steps where T is longer, and with the
    first candidate. Returns what the first candidate wrote.
    """
    few = min(x.shape[dim], first)
    start = [tensor.movedim(dim, 0)[:few] for tensor in (a, x)]
    exact, bound = linear_recurrence_reference(*start), rounding_bound(*start)
    expected: Tensor | None = None
    for name, candidate in candidates.items():
        out.fill_(math.nan)
        candidate()
        if not ((out.movedim(dim, 0)[:few] - exact).abs() <= bound).all():
            raise RuntimeError(f"{name} is not the recurrence at shape {tuple(out.shape)}")
        if expected is None:
            expected = out.clone()
        same(name, out, expected)
    if expected is None:
        raise ValueError("there is no candidate to check")
    return expected


def same(name: str, got: Tensor, expected: Tensor) -> None:
    """Raise RuntimeError unless a candidate's result is that of another, up to rounding."""
    if got.shape != expected.shape:
        shapes = f"{tuple(got.shape)} for {tuple(expected.shape)}"
        raise RuntimeError(f"{name} has a result of the wrong shape: {shapes}")
    rtol = max(1e-4, torch.finfo(expected.dtype).eps)
    if not torch.allclose(got, expected, rtol=rtol, atol=1e-4):
        error = (got - expected).abs().max().item()
        raise RuntimeError(
            f"{name} is not the recurrence at shape {tuple(expected.shape)}: off by {error:.2g}"
        )
