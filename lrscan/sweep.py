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

A backend is a function ``sweep(operands, steps, sizes, backward, algorithm)`` that runs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrscan.layout import columns_of

ROWS = ("A", "X", "START", "OUT", "BEFORE", "DA", "DSTART")
# Steps that an operand is ahead of the others, in the forward direction.
_AHEAD = {"A": 1, "BEFORE": -1}
_TIMELESS = ("START", "DSTART")


class Operand(NamedTuple):
    """A tensor as a kernel walks through it, in elements.

    offset   from the tensor's first element to that of the first step
    time     stride over time, negative when the sweep runs down
    columns  strides over the three column axes
    """

    tensor: Tensor
    offset: int
    time: int
    columns: tuple[int, ...]


def forward(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    sweep: Callable | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """h of the recurrence, in ``out`` if that is given.

    ``a`` and ``x`` have the same shape (expanded, not copied).
    """
    h = _empty_dense(x) if out is None else out
    tensors = {"A": a, "X": x, "START": h0, "OUT": h}
    _run(tensors, False, dim, reverse, algorithm, sweep or _sweep_on(x.device))
    return h


def backward(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    dim: int,
    reverse: bool,
    algorithm: str,
    wanted: Sequence[bool] = (True, True, True),
    sweep: Callable | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(da, dx, dh0) for an output gradient dh; those not ``wanted`` are None."""
    da = torch.empty_like(h, dtype=a.dtype) if wanted[0] else None
    dx = torch.empty_like(h) if wanted[1] else None
    dh0 = torch.zeros_like(h0) if wanted[2] and h0 is not None else None
    tensors = {"A": a, "X": dh, "START": h0, "OUT": dx, "BEFORE": h, "DA": da, "DSTART": dh0}
    _run(tensors, True, dim, reverse, algorithm, sweep or _sweep_on(h.device))
    return da, dx, dh0


def _empty_dense(x: Tensor) -> Tensor:
    """Room for an output: in the layout of x, unless x shares or skips elements."""
    if torch.ops.aten.is_non_overlapping_and_dense(x):
        return torch.empty_like(x)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _sweep_on(device: torch.device) -> Callable:
    return importlib.import_module(f"lrscan.{device.type}").sweep


def _run(
    tensors: Mapping[str, Tensor | None],
    backward: bool,
    dim: int,
    reverse: bool,
    algorithm: str,
    sweep: Callable,
) -> None:
    tensors = {row: tensor for row, tensor in tensors.items() if tensor is not None}
    shape = tensors["X"].shape
    if 0 in shape:
        return
    # An output is dense, so its layout decides the order of the axes.
    rows = sorted(tensors, key=lambda row: row not in ("OUT", "DA"))
    views = [tensors[r].unsqueeze(dim) if r in _TIMELESS else tensors[r] for r in rows]
    columns = columns_of(views, dim)
    if columns is None:  # more axes than a kernel takes: loop over one of them
        axis = next(d for d in range(len(shape)) if d != dim and shape[d] != 1)
        for i in range(shape[axis]):
            part = {
                row: tensor.select(axis - (row in _TIMELESS and axis > dim), i)
                for row, tensor in tensors.items()
            }
            _run(part, backward, dim - (axis < dim), reverse, algorithm, sweep)
        return
    steps = shape[dim]
    down = reverse != backward
    operands = {}
    for row, view, strides in zip(rows, views, columns.strides, strict=True):
        time = 0 if row in _TIMELESS else view.stride(dim)
        ahead = _AHEAD.get(row, 0) if backward else 0
        first = (steps - 1 if down else 0) + (-ahead if reverse else ahead)
        operands[row] = Operand(tensors[row], first * time, -time if down else time, strides)
    sweep(operands, steps, columns.sizes, backward, algorithm)
