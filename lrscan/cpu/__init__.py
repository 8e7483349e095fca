"""The CPU backend: chooses and sizes the kernel of :mod:`lrscan.cpu.kernels`, and runs it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from lrscan.cpu import threads
from lrscan.cpu.kernels import state_bytes, sweep_kernel
from lrscan.sweep import ROWS, Operand

# Steps x columns of a piece: two float32 inputs of it fill 256 KiB, a quarter of a usual L2 cache.
PIECE_ELEMENTS = 8 * 1024
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


def sweep(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
) -> None:
    """Run a forward or backward sweep over operands in CPU memory."""
    lead = operands.get("OUT") or operands["X"]
    # Lanes run over columns where those lie side by side, else over time where that does.
    axis = "time" if lead.columns[2] not in (1, -1) and abs(lead.time) == 1 else "columns"
    table = np.zeros((len(ROWS), 5), np.int64)
    spacings = dict.fromkeys(ROWS, "unit")
    for row, (tensor, offset, time, columns) in operands.items():
        size = tensor.element_size()
        base = tensor.data_ptr() + offset * size
        table[ROWS.index(row)] = (base, *(stride * size for stride in (time, *columns)))
        spacings[row] = _SPACING.get(columns[2] if axis == "columns" else time, "strided")
    kinds = tuple(
        _KINDS[operands.get(row, operands["X"]).tensor.dtype] for row in ("A", "X", "START")
    )
    kernel = sweep_kernel(
        axis,
        backward,
        kinds,
        tuple(spacings[row] for row in ("A", "X", "OUT", "BEFORE", "DA")),
        ("OUT" in operands, "DA" in operands),
    )
    _run(kernel, axis, table, steps, sizes, state_bytes(kinds[1]), algorithm)


_SPACING = {1: "unit", -1: "mirror", 0: "same"}


def _run(kernel, axis, table, steps, sizes, size, algorithm) -> None:
    """Divide the work into groups and pieces, and hand it to the threads."""
    n2, n1, n0 = sizes
    lanes = 64 // size
    available = torch.get_num_threads()
    # How many threads can have columns of their own.
    independent = n2 * n1 * (-(-n0 // lanes) if axis == "columns" else n0)
    if algorithm == "auto":
        algorithm = "serial" if independent >= available else "blocked"
    if algorithm == "blocked":
        width = min(n0, MOST_COLUMNS) if axis == "columns" else 1
        block = max(PIECE_ELEMENTS * 4 // size // width, 16 * lanes)
    else:
        share = -(-independent // available) * lanes if axis == "columns" else 1
        width, block = min(n0, MOST_COLUMNS, share), steps
    pieces = -(-steps // block)
    tasks = n2 * n1 * -(-n0 // width) * pieces
    shared = np.zeros(1 + tasks, np.int64)
    carries = np.empty(tasks * width * size if pieces > 1 else 0, np.uint8)
    most = min(tasks, 1 + steps * n2 * n1 * n0 // ELEMENTS_A_THREAD)
    args = (table, steps, n2, n1, n0, width, block, shared, carries.ctypes.data)
    threads.run(kernel, args, most)
