"""From tensors to a sweep: outputs, operands and their order in time, for every backend.

Forward and backward are the same sweep over a table of operands, in opposite directions of time:

    row     forward      backward
    a       a            a, one step later (its first element is never read)
    x       x            dh
    start   h0           h0
    out     h            dx
    before               h, one step earlier (its last element is never read)
    da                   da
    dstart               dh0

A backend is a function ``prepare(operands, steps, sizes, backward, algorithm, device, algebra)``,
which :mod:`lrscan.core.dispatch` finds. It returns what runs the sweep: a function of the tensors,
by row. That is kept for further calls with tensors of the same layout. Where sequences lie end to
end in time, start and dstart have a stride over sequences in the place of that over time, and the
function also takes the steps at which the sweep meets a new sequence, with the end of the last (the
CPU backend alone; for others each sequence starts with a coefficient of zero, which forgets all
before, see :mod:`lrscan.core.algebra`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscan.core import dispatch
from lrscan.core.algebra import SCALAR, Algebra
from lrscan.core.dtypes import state_dtype
from lrscan.core.layout import columns_of


class Rows(NamedTuple):
    """Something of each row of the table above: an address, a stride."""

    a: Any
    x: Any
    start: Any
    out: Any
    before: Any
    da: Any
    dstart: Any


# Steps that an operand is ahead of the others, in the forward direction.
_AHEAD = {"a": 1, "before": -1}
TIMELESS = ("start", "dstart")
_OUTPUTS = ("out", "da")
# Outputs of an address that is a multiple of this may be written in whole cache lines.
_ALIGNMENT = 64


class Operand(NamedTuple):
    """How a kernel walks through a tensor; strides are in elements of it, each a number.

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


class TensorLayout(NamedTuple):
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
    cu_seqlens: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """h of the recurrence of checked arguments, in ``out`` if that is given.

    ``dim`` counts from the front of the broadcast shape. With ``cu_seqlens``, an int64 tensor on
    the CPU, sequence n is from step cu_seqlens[n] up to cu_seqlens[n+1], and h0 has the axis of
    sequences in the place of time. ``backend`` is that of the tensors' device if None.
    """
    h = empty_output(a, x) if out is None else out
    if a.shape != h.shape:
        a = a.expand(h.shape)
    if x.shape != h.shape:
        x = x.expand(h.shape)
    tensors = {"a": a, "x": x, "start": expand_state(h0, h, dim, cu_seqlens), "out": h}
    run(tensors, False, dim, reverse, algorithm, cu_seqlens, backend or x.device.type)
    return h


def backward(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
    outputs: tuple[Tensor | None, Tensor | None, Tensor | None],
    backend: str | None = None,
) -> None:
    """Write (da, dx, dh0) to ``outputs``, of the shapes of h, h and a state; None is left out."""
    da, dx, dh0 = outputs
    if a.shape != h.shape:
        a = a.expand(h.shape)
    tensors = {"a": a, "x": dh, "start": expand_state(h0, h, dim, cu_seqlens), "out": dx}
    tensors |= {"before": h, "da": da, "dstart": dh0}
    run(tensors, True, dim, reverse, algorithm, cu_seqlens, backend or h.device.type)


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


def state_shape(shape: Sequence[int], dim: int, cu_seqlens: Tensor | None) -> tuple[int, ...]:
    """Of the states before the first step: without time, or with sequences in its place."""
    sequences = () if cu_seqlens is None else (cu_seqlens.shape[0] - 1,)
    return (*shape[:dim], *sequences, *shape[dim + 1 :])


def expand_state(
    h0: Tensor | None, h: Tensor, dim: int, cu_seqlens: Tensor | None
) -> Tensor | None:
    """h0 with the columns of h."""
    return None if h0 is None else h0.expand(state_shape(h.shape, dim, cu_seqlens))


def product(a: Tensor, h: Tensor) -> Tensor:
    """``a * h``, but zero where ``a`` is exactly zero, also of NaN and infinity."""
    found = a * h
    return found.masked_fill((a == 0) & found.isnan(), 0)


def run(
    given: Mapping[str, Tensor | None],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
    backend: str,
    algebra: Algebra = SCALAR,
) -> None:
    """Sweep over tensors, by row of the table above, all of one shape but for states.

    Where a coefficient or a state of the algebra is several numbers, they are the last axis of its
    tensors, side by side.
    """
    if backward and algebra.adjoint is None:
        raise NotImplementedError(f"the algebra {algebra.name} has no gradient")
    tensors = {row: tensor for row, tensor in given.items() if tensor is not None}
    if cu_seqlens is not None:
        tensors = _without_tail(tensors, dim, int(cu_seqlens[-1]))
    x = tensors["x"]
    if x.numel() == 0:
        return
    if cu_seqlens is not None and not dispatch.BACKENDS[backend].takes_sequences:
        if algebra is not SCALAR:
            raise NotImplementedError(f"packed sequences on {backend}, of {algebra.name}")
        _run_with_restarts(tensors, backward, dim, reverse, algorithm, cu_seqlens, backend)
        return
    layouts = tuple(
        (row, TensorLayout(t.dtype, t.shape, t.stride(), t.data_ptr() % _ALIGNMENT == 0))
        for row, t in tensors.items()
    )
    if algebra is not SCALAR:
        layouts = tuple((row, _of_values(own, algebra.numbers(row))) for row, own in layouts)
    packed, threads = cu_seqlens is not None, torch.get_num_threads()
    options = (backward, dim, reverse, algorithm, packed, backend, x.device, threads)
    sweep = _prepared(layouts, *options, algebra)
    if sweep is not None:
        if cu_seqlens is None:
            sweep(tensors)
        else:  # in the order of the sweep
            begins = x.shape[dim] - cu_seqlens.flip(0) if reverse != backward else cu_seqlens
            sweep(tensors, begins.contiguous().numpy())
        return
    # More axes than a kernel takes: loop over the shortest.
    shape = dict(layouts)["x"].shape
    axis = min((d for d, n in enumerate(shape) if d != dim and n != 1), key=shape.__getitem__)
    for i in range(shape[axis]):
        part = {
            row: tensor.select(axis - (cu_seqlens is None and row in TIMELESS and axis > dim), i)
            for row, tensor in tensors.items()
        }
        run(part, backward, dim - (axis < dim), reverse, algorithm, cu_seqlens, backend, algebra)


def _of_values(layout: TensorLayout, numbers: int) -> TensorLayout:
    """The layout of values that are so many numbers each, side by side along the last axis."""
    if numbers == 1:
        return layout
    *strides, side_by_side = layout.strides
    *shape, last = layout.shape
    if (last, side_by_side) != (numbers, 1):
        raise ValueError(f"{last} numbers of stride {side_by_side}, not {numbers} side by side")
    return layout._replace(shape=tuple(shape), strides=tuple(strides))


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
    cu_seqlens: Tensor,
    backend: str,
) -> None:
    """Packed sequences by a kernel for one: each starts with a coefficient of zero."""
    a, x, h0 = tensors["a"], tensors["x"], tensors.get("start")
    filled = (cu_seqlens[1:] > cu_seqlens[:-1]).nonzero().squeeze(1)
    starts = (cu_seqlens[filled + 1] - 1 if reverse else cu_seqlens[filled]).to(x.device)
    filled = filled.to(x.device)
    first_a = a.index_select(dim, starts)
    h0 = None if h0 is None else h0.index_select(dim, filled)
    one = {"a": a.index_fill(dim, starts, 0), "x": x}
    options = (backward, dim, reverse, algorithm, None, backend)
    if not backward:
        out = one["out"] = tensors["out"]
        if h0 is not None:  # not rounded, as no state is
            wide = state_dtype(x.dtype)
            entering = product(first_a.to(wide), h0.to(wide))
            one = {"a": one["a"].to(wide), "x": x.to(wide).index_add(dim, starts, entering)}
            one["out"] = out if out.dtype == wide else torch.empty_like(out, dtype=wide)
        run(one, *options)
        if one["out"] is not out:
            out.copy_(one["out"])
        return
    dx = one["out"] = tensors["out"] if "out" in tensors else torch.empty_like(x)
    if "da" in tensors:
        one |= {"da": tensors["da"], "before": tensors["before"]}
    run(one, *options)
    g = dx.index_select(dim, starts)
    if "da" in tensors:
        da = torch.zeros_like(g) if h0 is None else h0.conj() * g
        tensors["da"].index_copy_(dim, starts, da.to(a.dtype))
    if "dstart" in tensors:
        dh0 = product(first_a.conj(), g)
        tensors["dstart"].index_copy_(dim, filled, dh0.to(tensors["dstart"].dtype))


@functools.lru_cache(maxsize=1024)
def _prepared(
    layouts: tuple[tuple[str, TensorLayout], ...],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    packed: bool,
    backend: str,
    device: torch.device,
    threads: int,
    algebra: Algebra,
) -> Callable[..., None] | None:
    """The sweep over tensors of these layouts; None if they have too many axes.

    ``threads`` is torch's number of threads, by which a backend may divide the work.
    """
    # An output is dense, so its layout decides the order of the axes.
    ordered = dict(sorted(layouts, key=lambda item: item[0] not in _OUTPUTS))
    shape = ordered["x"].shape
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
    return prepare(operands, steps, columns.sizes, backward, algorithm, device, algebra)
