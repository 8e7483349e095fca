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

    Args:
        candidates: calls by name, each of which writes its result to ``out``
        out:        the tensor that all candidates write to
        a:          coefficients
        x:          inputs
        dim:        the axis of time
        first:      steps that are compared with the float64 loop; all steps are compared with the
                    first candidate

    Returns:
        A copy of what the first candidate wrote.

    Raises:
        RuntimeError: a candidate is further from the float64 loop than rounding allows, or differs
            from the first candidate
        ValueError: there is no candidate
    """
    few = min(x.shape[dim], first)
    start = [tensor.movedim(dim, 0)[:few] for tensor in (a, x)]
    exact, bound = linear_recurrence_reference(*start), rounding_bound(*start)
    expected: Tensor | None = None
    for name, candidate in candidates.items():
        out.fill_(math.nan)
        candidate()
        if not ((out.movedim(dim, 0)[:few] - exact).abs() <= bound).all():
            raise RuntimeError(
                f"{name} does not compute the recurrence at shape {tuple(out.shape)}"
            )
        if expected is None:
            expected = out.clone()
        same(name, out, expected)
    if expected is None:
        raise ValueError("there is no candidate to check")
    return expected


def same(name: str, got: Tensor, expected: Tensor) -> None:
    """Raise RuntimeError unless a candidate's result equals the expected one up to rounding."""
    if got.shape != expected.shape:
        shapes = f"{tuple(got.shape)} instead of {tuple(expected.shape)}"
        raise RuntimeError(f"{name} returned a result of the wrong shape: {shapes}")
    rtol = max(1e-4, torch.finfo(expected.dtype).eps)
    if not torch.allclose(got, expected, rtol=rtol, atol=1e-4):
        error = (got - expected).abs().max().item()
        raise RuntimeError(
            f"{name} does not compute the recurrence at shape {tuple(expected.shape)}: "
            f"the largest error is {error:.2g}"
        )
