"""Reference implementation: the recurrence as a serial loop in double precision.

It is slow and obvious on purpose. Nothing here is parallel, blocked or fused, so it does not share
the mistakes of the kernels that are compared with it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lrscan.core.dtypes import HALF, double_dtype, state_dtype


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(double_dtype(tensor.dtype))


def linear_recurrence_reference(
    a: Tensor, x: Tensor, h0: Tensor | None = None, *, dim: int = 0, reverse: bool = False
) -> Tensor:
    """``h[t] = a[t] * h[t-1] + x[t]`` by a loop over time, in float64 or complex128.

    Where a[t] is exactly zero, h[t] is x[t] for any h[t-1]. The loop takes the same tensors as
    :func:`lrscan.linear_recurrence`. It is differentiable by ordinary autograd, where zero times a
    gradient of NaN is NaN.

    Args:
        a:       (T, ...)   coefficients, which broadcast with ``x``
        x:       (T, ...)   inputs
        h0:      (...)      state before the first step; zero if None
        dim:     the axis of time. The shapes here are for 0
        reverse: if True, run from the last step to the first

    Returns:
        h, in double precision, with the broadcast shape of ``a`` and ``x``.

    Example:
        >>> import torch
        >>> from lrscan import linear_recurrence_reference
        >>> a, x = torch.full((4,), 0.5), torch.ones(4)
        >>> linear_recurrence_reference(a, x)
        tensor([1.0000, 1.5000, 1.7500, 1.8750], dtype=torch.float64)
    """
    a, x = torch.broadcast_tensors(_double(a), _double(x))
    steps = list(zip(a.unbind(dim), x.unbind(dim), strict=True))
    if not steps:
        return x.clone()
    h = torch.zeros_like(steps[0][1]) if h0 is None else _double(h0)
    states = []
    for a_t, x_t in reversed(steps) if reverse else steps:
        kept = a_t * h
        h = torch.where((a_t == 0) & kept.isnan(), x_t, kept + x_t)
        states.append(h)
    return torch.stack(states[::-1] if reverse else states, dim)


def rounding_bound(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None = None,
    *,
    dim: int = 0,
    reverse: bool = False,
) -> Tensor:
    """Return a bound on the rounding error of h, elementwise, for a serial loop or a scan.

    h[t] is a sum of terms. Each term is an input times all coefficients after it. A term is rounded
    at most twice per step that it passes through, and once per level of a tree over time. There are
    at most d = log2(T) + 2 levels. To first order, the error is at most u * K[t], where u is the
    unit roundoff of the dtype of ``x``, and::

        H[t] = |a[t]| * H[t-1] + |x[t]|                             H before the start = |h0|
        K[t] = |a[t]| * (K[t-1] + 2 * H[t-1]) + d * |x[t]|          K before the start = d * |h0|

    For half precision, u is that of float32, and the output is rounded once more. The error of a
    complex product is up to sqrt(8) times larger (Higham 2002, lemma 3.5).

    Args:
        a, x, h0, dim, reverse: as for :func:`linear_recurrence_reference`

    Returns:
        The bound, in float64, with the shape of h.
    """
    dtype = x.dtype
    a, x = torch.broadcast_tensors(_double(a).abs(), _double(x).abs())
    h0 = None if h0 is None else _double(h0).abs()
    H = linear_recurrence_reference(a, x, h0, dim=dim, reverse=reverse)
    if H.shape[dim] == 0:
        return H
    start = torch.zeros_like(H.select(dim, 0)) if h0 is None else h0.expand_as(H.select(dim, 0))
    start = start.unsqueeze(dim)
    kept = H.narrow(dim, 1 if reverse else 0, H.shape[dim] - 1)
    before = torch.cat([kept, start] if reverse else [start, kept], dim)
    depth = math.ceil(math.log2(H.shape[dim])) + 2
    arising = depth * x + torch.where(a == 0, 0, 2 * a * before)
    K = linear_recurrence_reference(
        a, arising, depth * start.squeeze(dim), dim=dim, reverse=reverse
    )
    half = dtype in HALF
    bound = K * torch.finfo(state_dtype(dtype)).eps / 2
    if dtype.is_complex:
        bound *= 8**0.5
    if dtype == double_dtype(dtype):  # the reference has the same rounding error
        bound *= 2
    # Half precision is rounded once at the end. Below its normal range that error is absolute.
    return bound + H * torch.finfo(dtype).eps / 2 + torch.finfo(dtype).tiny if half else bound


class Exact(NamedTuple):
    """Results in double precision, each as (value, bound on the rounding error)."""

    h: tuple[Tensor, Tensor]
    da: tuple[Tensor, Tensor]
    dx: tuple[Tensor, Tensor]
    dh0: tuple[Tensor, Tensor]


def oracle(
    a: Tensor,
    x: Tensor,
    h0: Tensor,
    dh: Tensor,
    *,
    dim: int = 0,
    reverse: bool = False,
) -> Exact:
    """Compute h and the gradients for an output gradient dh, with bounds, by the loops above.

    Args:
        a, x, dh: (T, ...)   tensors of one shape
        h0:       (...)      that shape without ``dim``
        dim:      the axis of time. The shapes here are for 0
        reverse:  if True, run from the last step to the first

    Returns:
        Values and bounds, in the layout of the inputs.
    """
    a, x, dh = (tensor.movedim(dim, 0) for tensor in (a, x, dh))
    if reverse:
        a, x, dh = (tensor.flip(0) for tensor in (a, x, dh))
    h, h_bound = linear_recurrence_reference(a, x, h0), rounding_bound(a, x, h0)
    later = torch.cat([a[1:], torch.zeros_like(a[:1])]).conj().resolve_conj()
    g = linear_recurrence_reference(later, dh, reverse=True)
    g_bound = rounding_bound(later, dh, reverse=True)
    before = torch.cat([_double(h0)[None], h[:-1]])
    before_bound = torch.cat([torch.zeros_like(h_bound[:1]), h_bound[:-1]])
    unit = torch.finfo(x.dtype).eps * (8**0.5 if a.is_complex() else 1)
    da = before.conj() * g
    da_bound = before_bound * g.abs() + before.abs() * g_bound + unit * da.abs()
    first = _double(a[0])
    dh0 = torch.where(first == 0, 0, first.conj() * g[0])
    dh0_bound = torch.where(first == 0, 0, first.abs() * g_bound[0]) + unit * dh0.abs()

    def back(tensor: Tensor) -> Tensor:
        return (tensor.flip(0) if reverse else tensor).movedim(0, dim)

    return Exact(
        (back(h), back(h_bound)),
        (back(da), back(da_bound)),
        (back(g), back(g_bound)),
        (dh0, dh0_bound),
    )
