"""The CPU backend: chooses and sizes the kernel of :mod:`lrscan.cpu.kernels`, and runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from lrscan.cpu import threads
from lrscan.cpu.kernels import groups_of, state_bytes, sweep_kernel
from lrscan.sweep import ROWS, Operand

# Steps x columns of a piece: two float32 inputs of it fill 64 KiB, a small part of an L2 cache.
PIECE_ELEMENTS = 8 * 1024
# Columns that one thread takes together when lanes run over columns: the states stay in L1.
MOST_COLUMNS = 2048
# A thread is woken for this many elements; less is done sooner than the thread wakes.
ELEMENTS_A_THREAD = 128 * 1024

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
    # As many lanes as fill 64 bytes of state: an AVX-512 register, two of AVX, four of NEON.
    state = state_bytes(kinds[1])
    lanes = 64 // state
    while axis == "columns" and lanes > sizes[2]:
        lanes //= 2
    kernel = sweep_kernel(
        axis,
        lanes,
        backward,
        kinds,
        tuple(spacings[row] for row in ("A", "X", "OUT", "BEFORE", "DA")),
        ("OUT" in operands, "DA" in operands),
    )
    width, block = _divide(axis, lanes, steps, sizes, state, algorithm)
    tasks = groups_of(sizes, width) * -(-steps // block)
    shared = np.zeros(1 + tasks, np.int64)
    carries = np.empty(tasks * 2 * width * state if block < steps else 0, np.uint8)
    most = min(tasks, 1 + steps * math.prod(sizes) // ELEMENTS_A_THREAD)
    args = (table, steps, *sizes, width, block, shared, carries.ctypes.data)
    threads.run(kernel, args, most)


_SPACING = {1: "unit", -1: "mirror", 0: "same"}


def _divide(
    axis: str, lanes: int, steps: int, sizes: tuple[int, ...], state: int, algorithm: str
) -> tuple[int, int]:
    """(columns a group, steps a piece) of an algorithm; "auto" is decided here."""
    outer, inner = sizes[0] * sizes[1], sizes[2]
    available = torch.get_num_threads()
    strips = inner // lanes if axis == "columns" else inner
    if algorithm == "auto":
        algorithm = "serial" if outer * strips >= available else "blocked"
    if algorithm == "blocked":
        width = min(inner, MOST_COLUMNS) if axis == "columns" else 1
        return width, max(PIECE_ELEMENTS * 4 // state // width, 16 * lanes)
    if axis == "time":
        return 1, steps
    share = max(outer * strips // available, 1) * lanes
    return min(inner, MOST_COLUMNS, share), steps
