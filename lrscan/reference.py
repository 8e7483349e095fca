"""The oracle: the recurrence as a serial loop in double precision.

Slow and obvious on purpose. Nothing here is parallel, blocked or fused, so a result that agrees
with it was not computed by the same mistake.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def linear_recurrence_reference(
    a: Tensor, x: Tensor, h0: Tensor | None = None, *, dim: int = 0, reverse: bool = False
) -> Tensor:
    """``h[t] = a[t] * h[t-1] + x[t]`` by a loop over time, in float64 or complex128.

    Takes what :func:`lrscan.linear_recurrence` takes, and is differentiable by ordinary autograd.

    Args:
        a:       coefficients, broadcastable with ``x``
        x:       inputs
        h0:      state before the first step, the shape of ``x`` without ``dim``; zero if None
        dim:     the axis of time
        reverse: run from the last step to the first

    Returns:
        h, in double precision, with the broadcast shape of ``a`` and ``x``.
    """
    a, x = torch.broadcast_tensors(_double(a), _double(x))
    steps = list(zip(a.unbind(dim), x.unbind(dim), strict=True))
    if not steps:
        return x.clone()
    h = torch.zeros_like(steps[0][1]) if h0 is None else _double(h0)
    states = []
    for a_t, x_t in reversed(steps) if reverse else steps:
        h = a_t * h + x_t
        states.append(h)
    return torch.stack(states[::-1] if reverse else states, dim)
