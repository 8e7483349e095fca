"""From tensors to a sweep: outputs, operands and their order in time, for every backend.

Forward and backward are the same sweep over a table of operands, in opposite directions of time::

    row     forward      backward
    a       a            a, one step later (its first element is never read)
    x       x            dh
    start   h0           h0
    out     h            dx
    before               h, one step earlier (its last element is never read)
    da                   da
    dstart               dh0

A backend is a function ``prepare(operands, steps, sizes, backward, algorithm, device, algebra)``,
which :mod:`lrscan.core.dispatch` finds. It returns the sweep: a function that takes the tensors by
row. The sweep is cached for further calls with tensors of the same layout.

For packed sequences, start and dstart have a stride over sequences where others have one over time.
The sweep then takes a second argument: the steps at which it meets a new sequence, and the end of
the last one. Only the CPU backend supports this. On other backends each sequence starts with a
coefficient of zero, which forgets everything before it, see :mod:`lrscan.core.algebra`.
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
    """One item per row of the table above, such as an address or a stride."""

    a: Any
    x: Any
    start: Any
    out: Any
    before: Any
    da: Any
    dstart: Any


# Number of steps by which an operand is ahead of the others, in the forward direction of time.
_AHEAD = {"a": 1, "before": -1}
TIMELESS = ("start", "dstart")
_OUTPUTS = ("out", "da")
# An output may be written in whole cache lines if its address is a multiple of this.
_ALIGNMENT = 64


class Operand(NamedTuple):
    """A tensor as a kernel walks through it. Offset and strides are in elements of one number.

    Attributes:
        dtype: dtype of the tensor
        offset: from the tensor's first element to that of the sweep's first step
        time: stride over time; negative if the sweep runs backwards through memory
        columns: strides over the three column axes
        aligned: whether the tensor begins at a multiple of 64 bytes
    """

    dtype: torch.dtype
    offset: int
    time: int
    columns: tuple[int, ...]
    aligned: bool


class TensorLayout(NamedTuple):
    """The properties of a tensor that determine its sweep."""

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
    """Compute h for checked arguments, in ``out`` if that is given.

    Args:
        a, x, h0, reverse, algorithm: as in :func:`lrscan.linear_recurrence`
        dim: the axis of time, counted from the front of the broadcast shape
        cu_seqlens: int64 on the CPU. Sequence n has the steps from cu_seqlens[n] up to
            cu_seqlens[n+1], and h0 has an axis of sequences where the others have time
        out: tensor for h; a new one if None
        backend: the backend; that of the tensors' device if None

    Returns:
        h
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
    """Write (da, dx, dh0) to ``outputs``, in the shapes of h, h and a state; None is skipped."""
    da, dx, dh0 = outputs
    if a.shape != h.shape:
        a = a.expand(h.shape)
    tensors = {"a": a, "x": dh, "start": expand_state(h0, h, dim, cu_seqlens), "out": dx}
    tensors |= {"before": h, "da": da, "dstart": dh0}
    run(tensors, True, dim, reverse, algorithm, cu_seqlens, backend or h.device.type)


def empty_output(a: Tensor, x: Tensor) -> Tensor:
    """Allocate h in the layout of x, or else of a, if that has the shape of h and is dense."""
    shape = broadcast_shape(a, x)
    for like in (x, a):
        if like.shape == shape and torch.ops.aten.is_non_overlapping_and_dense(like):
            return torch.empty_like(like, dtype=x.dtype)
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def broadcast_shape(a: Tensor, x: Tensor) -> torch.Size:
    """Return the shape of h.

    torch's own function takes as long as everything else that a call does on the host.
    """
    return x.shape if a.shape == x.shape else torch.broadcast_shapes(a.shape, x.shape)


def state_shape(shape: Sequence[int], dim: int, cu_seqlens: Tensor | None) -> tuple[int, ...]:
    """Return the shape of h0: without time, or with sequences instead of time."""
    sequences = () if cu_seqlens is None else (cu_seqlens.shape[0] - 1,)
    return (*shape[:dim], *sequences, *shape[dim + 1 :])


def expand_state(
    h0: Tensor | None, h: Tensor, dim: int, cu_seqlens: Tensor | None
) -> Tensor | None:
    """Return h0 expanded to the columns of h."""
    return None if h0 is None else h0.expand(state_shape(h.shape, dim, cu_seqlens))


def product(a: Tensor, h: Tensor) -> Tensor:
    """Return ``a * h``, but zero where ``a`` is exactly zero, even if h is NaN or infinite."""
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
    """Sweep over tensors, given by row of the table above; all but the states have one shape.

    If a coefficient or a state of the algebra is several numbers, they are the last axis of its
    tensors, with a stride of one.
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
            raise NotImplementedError(
                f"{backend} takes no packed sequences of the algebra {algebra.name}"
            )
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
    # A kernel takes fewer axes: loop over the shortest one.
    shape = dict(layouts)["x"].shape
    axis = min((d for d, n in enumerate(shape) if d != dim and n != 1), key=shape.__getitem__)
    for i in range(shape[axis]):
        part = {
            row: tensor.select(axis - (cu_seqlens is None and row in TIMELESS and axis > dim), i)
            for row, tensor in tensors.items()
        }
        run(part, backward, dim - (axis < dim), reverse, algorithm, cu_seqlens, backend, algebra)


def _of_values(layout: TensorLayout, numbers: int) -> TensorLayout:
    """Return the layout of values of ``numbers`` numbers each, adjacent along the last axis."""
    if numbers == 1:
        return layout
    *strides, side_by_side = layout.strides
    *shape, last = layout.shape
    if (last, side_by_side) != (numbers, 1):
        raise ValueError(
            f"the last axis has size {last} and stride {side_by_side}; "
            f"it must have size {numbers} and stride 1"
        )
    return layout._replace(shape=tuple(shape), strides=tuple(strides))


def _without_tail(tensors: Mapping[str, Tensor], dim: int, end: int) -> dict[str, Tensor]:
    """Return the tensors up to step ``end``, and write zeros to the outputs from there on."""
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
    """Sweep over packed sequences with a kernel for one: each starts with a coefficient of zero."""
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
        if h0 is not None:  # not rounded, like any other state
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
    """Return the sweep over tensors of these layouts; None if they have too many axes.

    ``threads`` is torch's number of threads. A backend may divide the work by it.
    """
    # Outputs are dense, so the layout of the first one decides the order of the axes.
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
