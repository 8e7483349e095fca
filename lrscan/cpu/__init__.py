"""The CPU backend: lays out operands for :mod:`lrscan.cpu.kernels` and runs them on threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lrscan.cpu import threads
from lrscan.cpu.kernels import state_bytes, sweep_kernel
from lrscan.layout import columns_of

ALGORITHMS = ("serial", "blocked")

# Steps x columns of a piece: two float32 inputs of it fill 256 KiB, a quarter of a usual L2 cache.
PIECE_ELEMENTS = 32 * 1024
# Columns that one thread takes together when lanes run over columns: the states stay in L1.
MOST_COLUMNS = 2048
# A thread is woken for this many elements; less is done sooner by the caller alone.
ELEMENTS_A_THREAD = 16 * 1024

_KINDS = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.complex64: "complex64",
    torch.complex128: "complex128",
}


def forward(
    a: Tensor, x: Tensor, h0: Tensor | None, dim: int, reverse: bool, algorithm: str
) -> Tensor:
    """h of the recurrence. ``a`` and ``x`` have the same shape (expanded, not copied)."""
    h = torch.empty_like(x) if _dense(x) else torch.empty(x.shape, dtype=x.dtype)
    rows = {"A": (a, 0), "X": (x, 0), "START": (h0, None), "OUT": (h, 0)}
    _sweep(rows, False, dim, reverse, algorithm)
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
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(da, dx, dh0) for an output gradient dh; those not ``wanted`` are None."""
    want_da, want_dx, want_dh0 = wanted
    da = torch.empty_like(h, dtype=a.dtype) if want_da else None
    dx = torch.empty_like(h) if want_dx else None
    dh0 = torch.zeros_like(h0) if want_dh0 and h0 is not None else None
    rows = {
        "A": (a, 1),
        "X": (dh, 0),
        "START": (h0, None),
        "OUT": (dx, 0),
        "BEFORE": (h, -1),
        "DA": (da, 0),
        "DSTART": (dh0, None),
    }
    _sweep(rows, True, dim, reverse, algorithm)
    return da, dx, dh0


def _dense(tensor: Tensor) -> bool:
    """Whether no element is shared or skipped, so that the output can copy the layout."""
    strides = sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1)
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return False
        expected *= size
    return True


_ROWS = ("A", "X", "START", "OUT", "BEFORE", "DA", "DSTART")


def _sweep(rows, backward: bool, dim: int, reverse: bool, algorithm: str) -> None:
    """Run the kernel over operands given as {row: (tensor, steps ahead in forward time)}."""
    reference = rows["X"][0]
    steps = reference.shape[dim]
    if reference.numel() == 0:
        return
    present = [(row, *rows[row]) for row in _ROWS if rows.get(row, (None,))[0] is not None]
    # The output's own layout decides the order of the axes.
    present.sort(key=lambda item: item[0] not in ("OUT", "DA"))
    views = [tensor if ahead is not None else tensor.unsqueeze(dim) for _, tensor, ahead in present]
    columns = columns_of(views, dim)
    if columns is None:  # more axes than a kernel takes: loop over the largest of the others
        axis = max((d for d in range(reference.dim()) if d != dim), key=lambda d: views[0].stride(d))
        for i in range(reference.shape[axis]):
            part = {
                row: (tensor.select(axis - (ahead is None and axis > dim), i), ahead)
                for row, tensor, ahead in present
            }
            _sweep(part, backward, dim - (axis < dim), reverse, algorithm)
        return

    table = np.zeros((len(_ROWS), 5), np.int64)
    kinds = ["float32"] * len(_ROWS)
    sizes = [1] * len(_ROWS)
    runs_down = reverse != backward
    for (row, tensor, ahead), strides in zip(present, columns.strides, strict=True):
        k = _ROWS.index(row)
        size = tensor.element_size()
        kinds[k], sizes[k] = _KINDS[tensor.dtype], size
        base, along = tensor.data_ptr(), 0
        if ahead is not None:
            along = tensor.stride(dim) * size
            ahead = -ahead if reverse else ahead
            base += along * (ahead + (steps - 1 if runs_down else 0))
            along = -along if runs_down else along
        table[k] = (base, along, *(stride * size for stride in strides))

    a, x, start, out, before, da = range(6)
    n2, n1, n0 = columns.sizes
    lead = out if "OUT" in rows and rows["OUT"][0] is not None else x
    dense_columns = n0 > 1 and abs(table[lead, 4]) == sizes[lead]
    axis = "time" if not dense_columns and abs(table[lead, 1]) == sizes[lead] else "columns"
    stride = table[:, 4 if axis == "columns" else 1]
    spacings = tuple(_spacing(stride[k], sizes[k]) for k in (a, x, out, before, da))
    wanted = (bool(table[out, 0]), bool(table[da, 0]))
    if not table[start, 0]:
        kinds[start] = kinds[x]
    kernel = sweep_kernel(axis, backward, (kinds[a], kinds[x], kinds[start]), spacings, wanted)
    _run(kernel, axis, table, steps, columns.sizes, state_bytes(kinds[x]), algorithm)


def _spacing(stride: int, size: int) -> str:
    return {size: "unit", -size: "mirror", 0: "same"}.get(int(stride), "strided")


def _run(kernel, axis, table, steps, sizes, size, algorithm) -> None:
    n2, n1, n0 = sizes
    lanes = 64 // size
    available = torch.get_num_threads()
    elements = steps * n2 * n1 * n0
    if axis == "columns":
        busy = n2 * n1 * -(-n0 // lanes)
        share = -(-busy // available) * lanes
        width = min(n0, MOST_COLUMNS, max(share, lanes))
    else:
        busy, width = n2 * n1 * n0, 1
    if algorithm == "auto":
        algorithm = "serial" if busy >= available else "blocked"
    block = steps
    if algorithm == "blocked":
        width = min(n0, MOST_COLUMNS) if axis == "columns" else 1
        block = max(PIECE_ELEMENTS * 4 // size // width, 16 * lanes)
    groups = n2 * n1 * -(-n0 // width)
    pieces = -(-steps // block)
    shared = np.zeros(1 + groups * pieces, np.int64)
    carries = np.empty(groups * pieces * width * size if pieces > 1 else 0, np.uint8)
    most = min(groups * pieces, 1 + elements // ELEMENTS_A_THREAD)
    args = (table, steps, n2, n1, n0, width, block, shared, carries.ctypes.data)
    threads.run(kernel, args, most)
