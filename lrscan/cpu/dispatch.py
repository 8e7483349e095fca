"""The CPU backend: chooses and sizes the kernel of :mod:`lrscan.cpu.scan`, and runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from lrscan.core.algebra import Algebra
from lrscan.core.dtypes import KINDS, kind_of
from lrscan.core.sweep import TIMELESS, Operand, Rows
from lrscan.cpu import threads
from lrscan.cpu.scan import HEAD, groups_of, sweep_kernel, workspace_bytes

# Steps x columns of a piece, in bytes of state: a few pieces fit into an L2 cache together, with
# their two inputs. One that is done row by row is twice as large, to pass on states less often.
PIECE_BYTES = 64 * 1024
# Columns that one thread takes together when lanes run over columns: the states stay in L1.
MOST_COLUMNS = 4096
# Strips of columns from which a piece is done row by row.
ROW_STRIPS = 64
# Outputs from this size on are written past the cache, which they would only sweep empty.
STREAM_BYTES = 4 * 2**20
# A thread is woken for this many elements; less is done sooner than the thread wakes.
ELEMENTS_A_THREAD = 128 * 1024

_SPACING = {1: "unit", -1: "mirror", 0: "same"}


def prepare(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
    device: torch.device,
    algebra: Algebra,
) -> Callable[..., None]:
    """What runs a forward or backward sweep over tensors in CPU memory."""
    lead = operands.get("out") or operands["x"]
    kinds = tuple(kind_of(operands.get(row, operands["x"]).dtype) for row in ("a", "x", "start"))
    # As many lanes as fill 64 bytes of state: an AVX-512 register, two of AVX, four of NEON.
    state = KINDS[KINDS[kinds[1]].state].size
    lanes = 64 // state
    strip = _columns_beside_time(operands, lead, steps, sizes, lanes)
    over_time = strip > 0
    while not over_time and lanes > sizes[2]:
        lanes //= 2
    spacings = dict.fromkeys(Rows._fields, "unit")
    first = operands.get("out") or operands.get("da") or lead
    for row, operand in operands.items():
        spacings[row] = _spacing(operand, strip)
        if row in ("out", "da") and _streams(operand, first, strip, lanes, steps, sizes):
            spacings[row] += " stream"
    order = "times" if over_time else "rows" if sizes[2] >= ROW_STRIPS * lanes else "strips"
    strip = strip or lanes
    kernel = sweep_kernel(
        order,
        lanes,
        strip,
        backward,
        kinds,
        tuple(spacings[row] for row in ("a", "x", "out", "before", "da")),
        ("out" in operands, "da" in operands),
    )
    width, block = _divide(order, lanes, strip, steps, sizes, state, algorithm)
    groups, pieces = groups_of(sizes, width), -(-steps // block)
    enough = max(steps * math.prod(sizes) // ELEMENTS_A_THREAD, 1)
    most = min(groups * pieces, enough, torch.get_num_threads())
    table = np.zeros((len(Rows._fields), 5), np.int64)
    for row, operand in operands.items():
        strides = (operand.time, *operand.columns)
        table[Rows._fields.index(row), 1:] = np.array(strides) * operand.dtype.itemsize
    numbers = (steps, *sizes, width, block, most, 0, 0, *[0] * (2 + groups))
    head = np.concatenate([table.ravel(), np.array(numbers, np.int64)])
    length = len(head) + workspace_bytes(sizes, width, strip, state, most) // 8
    entries = [
        (row, 5 * Rows._fields.index(row), operand.offset * operand.dtype.itemsize)
        for row, operand in operands.items()
    ]

    whole = np.array([0, steps])

    def sweep(tensors: Mapping[str, Tensor], cu: np.ndarray | None = None) -> None:
        block = np.empty(length, np.int64)
        block[: len(head)] = head
        for row, at, offset in entries:
            block[at] = tensors[row].data_ptr() + offset
        cu = whole if cu is None else cu
        block[HEAD - 2], block[HEAD - 1] = len(cu) - 1, cu.ctypes.data
        threads.run(kernel, block.ctypes.data, most)

    return sweep


def _columns_beside_time(
    operands: Mapping[str, Operand],
    lead: Operand,
    steps: int,
    sizes: tuple[int, ...],
    lanes: int,
) -> int:
    """Columns that lie side by side with consecutive steps, if lanes run over time, else zero.

    Lanes run over columns where those lie side by side, else over time where that does: one column
    then. Columns of too few to fill a register lie side by side with the next steps, if nothing
    lies between; every operand must be so, as all are moved by whole registers.
    """
    columns = sizes[2]
    if lead.columns[2] not in (1, -1):
        return 1 if abs(lead.time) == 1 else 0
    dense = all(
        operand.columns[2] == 1 and abs(operand.time) == columns
        for row, operand in operands.items()
        if row not in TIMELESS
    )
    fits = columns < lanes and lanes % columns == 0 and steps >= lanes // columns
    return columns if dense and fits else 0


def _spacing(operand: Operand, strip: int) -> str:
    """How the elements of a register are spaced; ``strip`` is zero if its lanes are columns."""
    if strip > 1:
        return "unit" if operand.time > 0 else f"mirror {strip}"
    return _SPACING.get(operand.time if strip else operand.columns[2], "strided")


def _streams(
    operand: Operand,
    first: Operand,
    strip: int,
    lanes: int,
    steps: int,
    sizes: tuple[int, ...],
) -> bool:
    """Whether an output is written past the cache, in whole vectors; ``strip`` as above."""
    size = operand.dtype.itemsize
    if not operand.aligned or steps * math.prod(sizes) * size < STREAM_BYTES:
        return False
    if strip:  # where vectors begin is found on the way, by the first output
        return abs(operand.time) == strip and operand == first
    apart = (operand.offset, operand.time, *operand.columns[:2], sizes[2])
    return operand.columns[2] == 1 and all(stride % lanes == 0 for stride in apart)


def _divide(
    order: str,
    lanes: int,
    strip: int,
    steps: int,
    sizes: tuple[int, ...],
    state: int,
    algorithm: str,
) -> tuple[int, int]:
    """(columns a group, steps a piece) of an algorithm; "auto" is decided here."""
    outer, inner = sizes[0] * sizes[1], sizes[2]
    threads, over_time = torch.get_num_threads(), order == "times"
    width = strip if over_time else min(inner, MOST_COLUMNS)
    elements, groups = steps * outer * inner, outer * (inner // width)
    cached = elements * state < STREAM_BYTES
    # Whether threads may have columns of the same rows: not while those are in the cache, if one
    # thread's prefetcher runs into the columns of the next, or they have less than two lines each.
    shared = not over_time and not (cached and (order == "rows" or inner // strip < 2 * threads))
    if algorithm == "auto":
        algorithm = "blocked"
        if threads == 1 or elements < 2 * ELEMENTS_A_THREAD or groups >= threads:
            algorithm = "serial"
        elif over_time and threads == 2:
            # blocked does the arithmetic twice, and one thread alone comes near the speed of memory
            algorithm = "blocked" if cached and strip > 1 else "serial"
        elif cached and shared:
            algorithm = "serial"
    if algorithm == "blocked":
        piece = PIECE_BYTES * (2 if order == "rows" else 1) // state
        return width, max(piece // width, 16 * (lanes // strip) if over_time else 1)
    if shared:
        share = max(outer * (inner // strip) // threads, 1) * strip
        return min(width, share), steps
    return width, steps
