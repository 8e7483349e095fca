"""CPU backend: chooses a kernel of :mod:`lrscan.cpu.scan`, divides the work, and runs it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrscan.core.algebra import Algebra
from lrscan.core.dtypes import described, kind_of
from lrscan.core.sweep import TIMELESS, Operand, Rows
from lrscan.cpu import threads
from lrscan.cpu.scan import sweep_kernel
from lrscan.cpu.steps import Recipe
from lrscan.cpu.structures import INT64_BYTES, int64s_of, length
from lrscan.cpu.task import Call, Strides, Task, places, task_bytes

# Size of a tile (steps x columns), in bytes of state per operand. A few tiles, with inputs and
# outputs, fit into an L2 cache together. A tile that is done row by row is twice as large, so that
# states are passed on less often.
CHUNK_BYTES = 64 * 1024
# The most columns that a thread takes together if lanes run over columns: their states stay in L1.
MOST_COLUMNS = 4096
# A tile of at least this many strips of columns is done row by row. The second, smaller limit holds
# where strip after strip would read the same lines again from a farther cache: for a tensor that an
# L2 cache does not hold, and for one whose steps are so far apart that they fall into few sets of
# the cache. Measured with AVX-512 on two cores, 128 to 960 columns: in these two cases, rows took
# 0.3 to 1.0 of the time of strips; in others up to 1.25.
ROW_STRIPS = 64
_ROW_STRIPS_FAR = 8
_L2_BYTES = 2 * 2**20
_SETS_BYTES = 1024
# Outputs of at least this size bypass the cache, since they would only evict everything else.
STREAM_BYTES = 4 * 2**20
# One thread is used per this many elements. Fewer are done before another thread would wake up.
ELEMENTS_PER_THREAD = 128 * 1024
# Bytes of state in a vector of one plane: one AVX-512 register, two of AVX, four of NEON.
_VECTOR_BYTES = 64


class _Walk(NamedTuple):
    """A tensor as a kernel walks through it: :class:`lrscan.core.sweep.Operand` in bytes.

    Attributes:
        kind, size: kind and bytes of an element, which is a coefficient or a state
        offset: from the tensor's first element to that of the sweep's first step
        time: stride over time
        outer: strides over the two outer axes of columns
        column: stride over the inner axis of columns
        aligned: whether the tensor begins at a multiple of 64 bytes
    """

    kind: str
    size: int
    offset: int
    time: int
    outer: tuple[int, int]
    column: int
    aligned: bool


def prepare(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
    device: torch.device,
    algebra: Algebra,
) -> Callable[..., None]:
    """Return a function that runs a forward or backward sweep over tensors in CPU memory.

    Every backend has this signature, see :mod:`lrscan.core.sweep`. ``device`` is not used, because
    there is only one CPU.
    """
    walks = {row: _walk(operand, algebra.numbers(row)) for row, operand in operands.items()}
    recipe = _recipe(walks, steps, sizes, backward, algebra)
    kernel = sweep_kernel(recipe)
    task = _task(walks, recipe, steps, sizes, algorithm)
    # The task, and a zero per group, since none of its carries has been computed.
    head = np.array([*int64s_of(task), *[0] * task.groups], np.int64)
    head_length, call_length = len(head), length(Call)
    total = -(-task_bytes(task.places, task.threads) // INT64_BYTES)
    offsets = [(row, Rows._fields.index(row), walk.offset) for row, walk in walks.items()]
    whole = np.array([0, steps])
    address_of_whole = whole.ctypes.data

    def sweep(tensors: Mapping[str, Tensor], cu_seqlens: np.ndarray | None = None) -> None:
        first = [0] * len(Rows._fields)
        for row, index, offset in offsets:
            first[index] = tensors[row].data_ptr() + offset
        begins = whole if cu_seqlens is None else cu_seqlens
        cu_address = address_of_whole if begins is whole else begins.ctypes.data
        call = Call(Rows(*first), sequences=len(begins) - 1, cu_seqlens=cu_address)
        memory = np.empty(total, np.int64)
        memory[:head_length] = head
        memory[:call_length] = int64s_of(call)
        # memory.ctypes.data takes four times as long, half a microsecond more.
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))
        threads.run(kernel, address, task.threads)

    return sweep


def _walk(operand: Operand, numbers: int) -> _Walk:
    """Return the walk through an operand whose elements have ``numbers`` numbers each."""
    itemsize = operand.dtype.itemsize
    outer2, outer1, column = (stride * itemsize for stride in operand.columns)
    return _Walk(
        kind_of(operand.dtype, numbers),
        numbers * itemsize,
        operand.offset * itemsize,
        operand.time * itemsize,
        (outer2, outer1),
        column,
        operand.aligned,
    )


def _recipe(
    walks: Mapping[str, _Walk],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algebra: Algebra,
) -> Recipe:
    """Return the recipe of the kernel for these tensors."""
    lead = walks.get("out") or walks["x"]
    kinds = {row: walks.get(row, walks["x"]).kind for row in ("a", "x", "start")}
    computed = described(described(kinds["x"]).state)
    lanes = _VECTOR_BYTES // (computed.size // computed.numbers)
    beside_time = _columns_beside_time(walks, lead, steps, sizes, lanes)
    over_time = beside_time > 0
    while not over_time and lanes > sizes[2]:
        lanes //= 2
    spacings = dict.fromkeys(Rows._fields, "unit")
    first = walks.get("out") or walks.get("da") or lead
    for row, walk in walks.items():
        if row in TIMELESS:
            continue
        spacings[row] = _spacing(walk, beside_time)
        if row in ("out", "da") and _streams(walk, first, beside_time, lanes, steps, sizes):
            spacings[row] += " stream"
    return Recipe(
        algebra,
        backward,
        order="times" if over_time else _order(lead, sizes[2] // lanes, steps, sizes),
        lanes=lanes,
        strip=beside_time or lanes,
        **kinds,
        spacings=Rows(**spacings),
        writes_out="out" in walks,
        writes_da="da" in walks,
    )


def _task(
    walks: Mapping[str, _Walk],
    recipe: Recipe,
    steps: int,
    sizes: tuple[int, ...],
    algorithm: str,
) -> Task:
    """Return the task of a sweep. Everything but the part that changes with every call is set."""

    def of_rows(what: Callable[[_Walk], int]) -> Rows:
        return Rows(*[what(walks[row]) if row in walks else 0 for row in Rows._fields])

    width, chunk = _divide(recipe, steps, sizes, algorithm)
    n2, n1, n0 = sizes
    across, chunks = n0 // width, -(-steps // chunk)
    groups = n2 * n1 * across
    enough = max(steps * math.prod(sizes) // ELEMENTS_PER_THREAD, 1)
    coefficient_bytes = described(recipe.coefficient_kind).size
    state_bytes = described(recipe.state_kind).size
    return Task(
        call=Call(of_rows(lambda walk: 0), 0, 0),
        strides=Strides(
            time=of_rows(lambda walk: walk.time),
            outer2=of_rows(lambda walk: walk.outer[0]),
            outer1=of_rows(lambda walk: walk.outer[1]),
            inner=of_rows(lambda walk: walk.column),
        ),
        steps=steps,
        n2=n2,
        n1=n1,
        n0=n0,
        width=width,
        chunk=chunk,
        across=across,
        groups=groups,
        chunks=chunks,
        threads=min(groups * chunks, enough, torch.get_num_threads()),
        places=places(sizes, width, recipe.strip, coefficient_bytes, state_bytes),
        taken=0,
        arrived=0,
    )


def _order(lead: _Walk, strips: int, steps: int, sizes: tuple[int, ...]) -> str:
    """Return "strips" or "rows": the order of the work in a tile of ``strips`` strips."""
    large = steps * math.prod(sizes) * lead.size >= _L2_BYTES
    far = large or abs(lead.time) % _SETS_BYTES == 0
    fewest = min(ROW_STRIPS, _ROW_STRIPS_FAR) if far else ROW_STRIPS
    return "rows" if strips >= fewest else "strips"


def _columns_beside_time(
    walks: Mapping[str, _Walk],
    lead: _Walk,
    steps: int,
    sizes: tuple[int, ...],
    lanes: int,
) -> int:
    """Return the columns per step in a register of several steps; zero if lanes run over columns.

    Lanes run over columns if columns are adjacent in memory. Otherwise they run over time if steps
    are adjacent, with one column. If there are too few columns to fill a register, it may also take
    the next steps, provided that they follow without a gap. That must hold for every operand,
    because all are moved in whole registers.
    """
    columns = sizes[2]
    if abs(lead.column) != lead.size:
        return 1 if abs(lead.time) == lead.size else 0
    dense = all(
        walk.column == walk.size and abs(walk.time) == columns * walk.size
        for row, walk in walks.items()
        if row not in TIMELESS
    )
    fits = columns < lanes and lanes % columns == 0 and steps >= lanes // columns
    return columns if dense and fits else 0


def _spacing(walk: _Walk, beside_time: int) -> str:
    """Return the spacing of a register's values; for ``beside_time`` see _columns_beside_time()."""
    if beside_time > 1:
        return "unit" if walk.time > 0 else f"mirror {beside_time}"
    names = {walk.size: "unit", -walk.size: "mirror", 0: "same"}
    return names.get(walk.time if beside_time else walk.column, "strided")


def _streams(
    walk: _Walk,
    first: _Walk,
    beside_time: int,
    lanes: int,
    steps: int,
    sizes: tuple[int, ...],
) -> bool:
    """Return True if an output bypasses the cache, in whole vectors; ``beside_time`` as above."""
    if not walk.aligned or steps * math.prod(sizes) * walk.size < STREAM_BYTES:
        return False
    if beside_time:  # the kernel finds the boundaries by the first output
        return abs(walk.time) == beside_time * walk.size and walk == first
    apart = (walk.offset, walk.time, *walk.outer, sizes[2] * walk.size)
    return walk.column == walk.size and all(n % (lanes * walk.size) == 0 for n in apart)


def _divide(recipe: Recipe, steps: int, sizes: tuple[int, ...], algorithm: str) -> tuple[int, int]:
    """Return (columns per group, steps per chunk) of an algorithm; "auto" is decided here."""
    outer, inner = sizes[0] * sizes[1], sizes[2]
    order, strip, state_bytes = recipe.order, recipe.strip, described(recipe.state_kind).size
    threads, over_time = torch.get_num_threads(), order == "times"
    width = strip if over_time else min(inner, MOST_COLUMNS)
    elements, groups = steps * outer * inner, outer * (inner // width)
    cached = elements * state_bytes < STREAM_BYTES
    # Whether threads may share rows, each with columns of its own. While the rows are in the cache,
    # they should not if a thread's prefetcher would run into the columns of the next thread, or if
    # a thread would have less than two cache lines of each row.
    shared = not over_time and not (cached and (order == "rows" or inner // strip < 2 * threads))
    if algorithm == "auto":
        algorithm = "blocked"
        if threads == 1 or elements < 2 * ELEMENTS_PER_THREAD or groups >= threads:
            algorithm = "serial"
        elif over_time and threads == 2:
            # "blocked" does the arithmetic twice, and one thread alone is nearly as fast as memory.
            algorithm = "blocked" if cached and strip > 1 else "serial"
        elif cached and shared:
            algorithm = "serial"
    if algorithm == "blocked":
        states = CHUNK_BYTES * (2 if order == "rows" else 1) // state_bytes
        least = 16 * (recipe.lanes // strip) if over_time else 1
        return width, max(states // width, least)
    if shared:
        share = max(outer * (inner // strip) // threads, 1) * strip
        return min(width, share), steps
    return width, steps
