"""Gradients of the recurrence: one backward sweep, or several if an input was broadcast.

The gradient of a broadcast input is a sum over the axes that it was broadcast over. A backward
sweep computes the terms. To avoid storing all of them, the sweep is cut into parts. The terms of a
part go to a small workspace and are then added to the sum, always in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from lrscan.core import sweep
from lrscan.core.dtypes import state_dtype

# A part has this share of all elements, but at least the smallest size below. On a CPU that fits a
# cache. On a GPU it keeps the device busy for about as long as the host needs to launch the next.
_SHARE = 1 / 256
_SMALLEST_PART = {"cpu": 2**16, "cuda": 2**24, "meta": 2**24}
# Time is not cut into parts of fewer steps than this.
_FEWEST_STEPS = 16

# (da, dx, dh0), each None if not wanted
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def backward(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    x_shape: Sequence[int],
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None = None,
    wanted: Sequence[bool] = (True, True, True),
    backend: str | None = None,
) -> Gradients:
    """Return (da, dx, dh0) for an output gradient dh, in the shapes of a, x and h0.

    A gradient that is not ``wanted`` is None. ``cu_seqlens`` and ``backend`` are as in
    :func:`lrscan.core.sweep.forward`.
    """
    da, dx, dh0 = outputs = empty_gradients(a, h, h0, x_shape, wanted)
    whole = (
        (da is None or da.shape == h.shape)
        and (dx is None or dx.shape == h.shape)
        and (dh0 is None or dh0.shape == sweep.state_shape(h.shape, dim, cu_seqlens))
    )
    backward_into = sweep.backward if whole else _summed
    backward_into(a, h, h0, dh, dim, reverse, algorithm, cu_seqlens, outputs, backend)
    return outputs


def empty_gradients(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    x_shape: Sequence[int],
    wanted: Sequence[bool],
) -> Gradients:
    """Allocate (da, dx, dh0), each None if not wanted. dh0 is zeroed, for the case of T = 0."""
    da = dx = dh0 = None
    if wanted[0]:
        da = torch.empty_like(h if a.shape == h.shape else a, dtype=a.dtype)
    if wanted[1]:
        dx = torch.empty_like(h) if h.shape == torch.Size(x_shape) else h.new_empty(x_shape)
    if wanted[2] and h0 is not None:
        dh0 = torch.zeros_like(h0)
    return da, dx, dh0


def _summed(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
    outputs: Gradients,
    backend: str | None,
) -> None:
    """Compute the gradients part by part and write them to ``outputs``."""
    a, h0 = a.expand_as(h), sweep.expand_state(h0, h, dim, cu_seqlens)
    da, dx, dh0 = _Sum(outputs[0], h, a.dtype), _Sum(outputs[1], h, h.dtype), outputs[2]
    whole_dh0 = None if dh0 is None or h0 is None else h0.new_zeros(h0.shape)
    dh_buffer = None  # holds the dh of a part with the carry added
    extents = _part_shape(h, dim, cut_time=cu_seqlens is None)
    ranges = [_cut(size, by) for size, by in zip(h.shape, extents, strict=True)]
    chunks = ranges[dim] if reverse else ranges[dim][::-1]  # the last one in time first
    for state in product(*ranges[:dim], *ranges[dim + 1 :]):
        columns = (*state[:dim], slice(None), *state[dim:])
        state_part = state if cu_seqlens is None else columns
        carry = None  # conj(a) * g of the step that follows the part in time
        for steps in chunks:
            part = (*state[:dim], steps, *state[dim:])
            first, last = steps.start, steps.stop - 1
            if reverse:
                first, last = last, first
            before = first + 1 if reverse else first - 1
            inside = 0 <= before < h.shape[dim]
            start = None if h0 is None else h0[state_part]
            if inside:
                start = h[columns].select(dim, before)
            dh_part = dh[part]
            if carry is not None:
                dh_buffer = _reuse_or_allocate(dh_buffer, dh_part, dh_part.dtype)
                dh_part = dh_buffer.copy_(dh_part)
                dh_part.select(dim, last - steps.start).add_(carry)
            da_terms, dx_terms = da.terms(part), dx.terms(part, always=len(chunks) > 1)
            dh0_terms = None if whole_dh0 is None or inside else whole_dh0[state_part]
            targets = (da_terms, dx_terms, dh0_terms)
            options = (dim, reverse, algorithm, cu_seqlens, targets, backend)
            sweep.backward(a[part], h[part], start, dh_part, *options)
            if len(chunks) > 1 and dx_terms is not None:
                at = first - steps.start
                carry = sweep.product(a[part].select(dim, at).conj(), dx_terms.select(dim, at))
            da.add(part, da_terms)
            dx.add(part, dx_terms)
    if dh0 is not None and whole_dh0 is not None:
        dh0.copy_(whole_dh0.sum_to_size(dh0.shape))
    da.finish()
    dx.finish()


def _cut(size: int, by: int) -> list[slice]:
    return [slice(begin, min(begin + by, size)) for begin in range(0, size, max(by, 1))]


def _part_shape(h: Tensor, dim: int, cut_time: bool) -> list[int]:
    """Return the extents of a part, cutting as few axes as possible, largest strides first."""
    shape, elements = list(h.shape), h.numel()
    limit = max(elements * _SHARE, _SMALLEST_PART[h.device.type])
    for axis in sorted(range(h.dim()), key=h.stride, reverse=True):
        if elements <= limit:
            break
        one = elements // shape[axis]  # elements of the part if it were cut to one index
        fit = int(limit // one)
        if axis == dim and (fit < _FEWEST_STEPS or not cut_time):
            continue
        shape[axis] = min(max(fit, 1), shape[axis])
        elements = one * shape[axis]
    return shape


def _reuse_or_allocate(last: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a buffer in the layout of a part, the buffer of the last part if it fits."""
    if last is not None and last.shape == like.shape:
        return last
    return torch.empty_like(like, dtype=dtype)


class _Sum:
    """Gradient of a broadcast input: the sum of its terms over the broadcast axes.

    Args:
        out: tensor to write the gradient to, or None if it is not wanted
        h: tensor of the full shape
        dtype: dtype of the terms
    """

    def __init__(self, out: Tensor | None, h: Tensor, dtype: torch.dtype) -> None:
        self._out, self._h, self._dtype = out, h, dtype
        self._whole = out if out is not None and out.shape == h.shape else None
        self._total: Tensor | None = None
        self._terms: Tensor | None = None
        if out is None or self._whole is not None:
            return
        shape = (1,) * (h.dim() - out.dim()) + out.shape
        self._total = torch.zeros(shape, dtype=state_dtype(dtype), device=h.device)
        self._broadcast = [axis for axis, size in enumerate(shape) if size != h.shape[axis]]

    def terms(self, part: tuple[slice, ...], always: bool = False) -> Tensor | None:
        """Return the tensor for the terms of a part, which the sweep writes; or None."""
        if self._whole is not None:
            return self._whole[part]
        if self._out is None and not always:
            return None
        self._terms = _reuse_or_allocate(self._terms, self._h[part], self._dtype)
        return self._terms

    def add(self, part: tuple[slice, ...], terms: Tensor | None) -> None:
        """Add the terms of a part to the sum."""
        if self._total is None or terms is None:
            return
        index = tuple(
            slice(None) if axis in self._broadcast else own for axis, own in enumerate(part)
        )
        self._total[index] += terms.sum(self._broadcast, keepdim=True, dtype=self._total.dtype)

    def finish(self) -> None:
        """Write the finished sum to the output."""
        if self._out is not None and self._total is not None:
            self._out.copy_(self._total.reshape(self._out.shape))
