"""From tensors to a sweep: outputs, operands and their order in time, for every backend.

Forward and backward are the same sweep over a table of operands, in opposite directions of time:

    row     forward      backward
    A       a            a, one step later (its first element is never read)
    X       x            dh
    START   h0           h0
    OUT     h            dx
    BEFORE               h, one step earlier (its last element is never read)
    DA                   da
    DSTART               dh0

A backend is a function ``prepare(operands, steps, sizes, backward, algorithm, device)``, which
:mod:`lrscan.core.dispatch` finds. It returns what runs the sweep: a function of the tensors, by
row. That is kept for further calls with tensors of the same layout. Where sequences lie end to end
in time, START and DSTART have a stride over sequences in the place of that over time, and the
function also takes the steps at which the sweep meets a new sequence, with the end of the last
(the CPU backend alone; for others each sequence starts with a coefficient of zero, which forgets
all before, see :mod:`lrscan.core.algebra`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrscan.core import dispatch
from lrscan.core.dtypes import state_dtype
from lrscan.core.layout import columns_of

ROWS = ("A", "X", "START", "OUT", "BEFORE", "DA", "DSTART")
# Steps that an operand is ahead of the others, in the forward direction.
_AHEAD = {"A": 1, "BEFORE": -1}
TIMELESS = ("START", "DSTART")
_OUTPUTS = ("OUT", "DA")
# Outputs of an address that is a multiple of this may be written in whole cache lines.
_ALIGNMENT = 64


class Operand(NamedTuple):
    """How a kernel walks through a tensor; strides are in elements.

    dtype    of the tensor
    offset   from the tensor's first element to that of the first step
    time     stride over time, negative when the sweep runs down
    columns  strides over the three column axes
    aligned  whether the tensor begins at a multiple of 64 bytes
    """

    dtype: torch.dtype
    offset: int
    time: int
    columns: tuple[int, ...]
    aligned: bool


class Layout(NamedTuple):
    """What of a tensor decides how it is swept."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    aligned: bool


def forward(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """h of the recurrence of checked arguments, in ``out`` if that is given.

    ``dim`` counts from the front of the broadcast shape. With ``cu``, an int64 tensor on the CPU,
    sequence n is from step cu[n] up to cu[n+1], and h0 has the axis of sequences in the place of
    time. ``backend`` is that of the tensors' device if None.
    """
    h = empty_output(a, x) if out is None else out
    if a.shape != h.shape:
        a = a.expand(h.shape)
    if x.shape != h.shape:
        x = x.expand(h.shape)
    tensors = {"A": a, "X": x, "START": expand_state(h0, h, dim, cu), "OUT": h}
    _run(tensors, False, dim, reverse, algorithm, cu, backend or x.device.type)
    return h


def backward(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu: Tensor | None,
    outputs: tuple[Tensor | None, Tensor | None, Tensor | None],
    backend: str | None = None,
) -> None:
    """Write (da, dx, dh0) to ``outputs``, of the shapes of h, h and a state; None is left out."""
    da, dx, dh0 = outputs
    if a.shape != h.shape:
        a = a.expand(h.shape)
    tensors = {"A": a, "X": dh, "START": expand_state(h0, h, dim, cu), "OUT": dx}
    tensors |= {"BEFORE": h, "DA": da, "DSTART": dh0}
    _run(tensors, True, dim, reverse, algorithm, cu, backend or h.device.type)


def empty_output(a: Tensor, x: Tensor) -> Tensor:
    """Room for h: in the layout of x, unless that is broadcast, or shares or skips elements."""
    shape = broadcast_shape(a, x)
    for like in (x, a):
        if like.shape == shape and torch.ops.aten.is_non_overlapping_and_dense(like):
            return torch.empty_like(like, dtype=x.dtype)
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def broadcast_shape(a: Tensor, x: Tensor) -> torch.Size:
    """The shape of h. Asking torch costs as much as all else that a call on the host does."""
    return x.shape if a.shape == x.shape else torch.broadcast_shapes(a.shape, x.shape)


def state_shape(shape: Sequence[int], dim: int, cu: Tensor | None) -> tuple[int, ...]:
    """Of the states before the first step: without time, or with sequences in its place."""
    sequences = () if cu is None else (cu.shape[0] - 1,)
    return (*shape[:dim], *sequences, *shape[dim + 1 :])


def expand_state(h0: Tensor | None, h: Tensor, dim: int, cu: Tensor | None) -> Tensor | None:
    """h0 with the columns of h."""
    return None if h0 is None else h0.expand(state_shape(h.shape, dim, cu))


def product(a: Tensor, h: Tensor) -> Tensor:
    """``a * h``, but zero where ``a`` is exactly zero, also of NaN and infinity."""
    found = a * h
    return found.masked_fill((a == 0) & found.isnan(), 0)


def _run(
    given: Mapping[str, Tensor | None],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu: Tensor | None,
    backend: str,
) -> None:
    tensors = {row: tensor for row, tensor in given.items() if tensor is not None}
    if cu is not None:
        tensors = _without_tail(tensors, dim, int(cu[-1]))
    x = tensors["X"]
    if x.numel() == 0:
        return
    if cu is not None and not dispatch.BACKENDS[backend].takes_sequences:
        _run_with_restarts(tensors, backward, dim, reverse, algorithm, cu, backend)
        return
    layouts = tuple(
        (row, Layout(t.dtype, t.shape, t.stride(), t.data_ptr() % _ALIGNMENT == 0))
        for row, t in tensors.items()
    )
    threads = torch.get_num_threads()
    options = (backward, dim, reverse, algorithm, cu is not None, backend, x.device, threads)
    sweep = _prepared(layouts, *options)
    if sweep is not None:
        if cu is None:
            sweep(tensors)
        else:  # in the order of the sweep
            begins = x.shape[dim] - cu.flip(0) if reverse != backward else cu
            sweep(tensors, begins.contiguous().numpy())
        return
    # More axes than a kernel takes: loop over the shortest.
    axes = (d for d, size in enumerate(x.shape) if d != dim and size != 1)
    axis = min(axes, key=lambda d: x.shape[d])
    for i in range(x.shape[axis]):
        part = {
            row: tensor.select(axis - (cu is None and row in TIMELESS and axis > dim), i)
            for row, tensor in tensors.items()
        }
        _run(part, backward, dim - (axis < dim), reverse, algorithm, cu, backend)


def _without_tail(tensors: Mapping[str, Tensor], dim: int, end: int) -> dict[str, Tensor]:
    """What lies before step ``end``; the outputs from there on are zero."""
    kept = dict(tensors)
    for row, tensor in tensors.items():
        if row in TIMELESS or tensor.shape[dim] == end:
            continue
        if row in _OUTPUTS:
            tensor.narrow(dim, end, tensor.shape[dim] - end).zero_()
        kept[row] = tensor.narrow(dim, 0, end)
    return kept


def _run_with_restarts(
    tensors: Mapping[str, Tensor],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu: Tensor,
    backend: str,
) -> None:
    """Packed sequences by a kernel for one: each starts with a coefficient of zero."""
    a, x, h0 = tensors["A"], tensors["X"], tensors.get("START")
    filled = (cu[1:] > cu[:-1]).nonzero().squeeze(1)
    starts = (cu[filled + 1] - 1 if reverse else cu[filled]).to(x.device)
    filled = filled.to(x.device)
    first_a = a.index_select(dim, starts)
    h0 = None if h0 is None else h0.index_select(dim, filled)
    one = {"A": a.index_fill(dim, starts, 0), "X": x}
    options = (backward, dim, reverse, algorithm, None, backend)
    if not backward:
        out = one["OUT"] = tensors["OUT"]
        if h0 is not None:  # not rounded, as no state is
            wide = state_dtype(x.dtype)
            entering = product(first_a.to(wide), h0.to(wide))
            one = {"A": one["A"].to(wide), "X": x.to(wide).index_add(dim, starts, entering)}
            one["OUT"] = out if out.dtype == wide else torch.empty_like(out, dtype=wide)
        _run(one, *options)
        if one["OUT"] is not out:
            out.copy_(one["OUT"])
        return
    dx = one["OUT"] = tensors["OUT"] if "OUT" in tensors else torch.empty_like(x)
    if "DA" in tensors:
        one |= {"DA": tensors["DA"], "BEFORE": tensors["BEFORE"]}
    _run(one, *options)
    g = dx.index_select(dim, starts)
    if "DA" in tensors:
        da = torch.zeros_like(g) if h0 is None else h0.conj() * g
        tensors["DA"].index_copy_(dim, starts, da.to(a.dtype))
    if "DSTART" in tensors:
        dh0 = product(first_a.conj(), g)
        tensors["DSTART"].index_copy_(dim, filled, dh0.to(tensors["DSTART"].dtype))


@functools.lru_cache(maxsize=1024)
def _prepared(
    layouts: tuple[tuple[str, Layout], ...],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    packed: bool,
    backend: str,
    device: torch.device,
    threads: int,
) -> Callable[..., None] | None:
    """The sweep over tensors of these layouts; None if they have too many axes.

    ``threads`` is torch's number of threads, by which a backend may divide the work.
    """
    # An output is dense, so its layout decides the order of the axes.
    ordered = dict(sorted(layouts, key=lambda item: item[0] not in _OUTPUTS))
    shape = ordered["X"].shape
    strides = {
        row: own.strides[:dim] + (0,) + own.strides[dim:]
        if row in TIMELESS and not packed
        else own.strides
        for row, own in ordered.items()
    }
    columns = columns_of(shape, list(strides.values()), dim)
    if columns is None:
        return None
    steps, down = shape[dim], reverse != backward
    operands = {}
    for (row, own), along in zip(ordered.items(), columns.strides, strict=True):
        time = strides[row][dim]
        ahead = _AHEAD.get(row, 0) if backward else 0
        last = own.shape[dim] - 1 if packed or row not in TIMELESS else 0
        first = (last if down else 0) + (-ahead if reverse else ahead)
        time_stride = -time if down else time
        operands[row] = Operand(own.dtype, first * time, time_stride, along, own.aligned)
    prepare = dispatch.found(dispatch.BACKENDS[backend].prepare)
    return prepare(operands, steps, columns.sizes, backward, algorithm, device)
