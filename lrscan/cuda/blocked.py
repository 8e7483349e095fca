"""Algorithm 1 of Martin and Cundy (2018): time in chunks, and three launches::

    time  ->   chunk 0        chunk 1        chunk 2
    reduce     (P0, R0)       (P1, R1)       (P2, R2)       one thread per chunk and column
    carries    h0 ----------> P0 h0 + R0 --> P1 .. + R1     one thread per column
    apply      h h h h h h    h h h h h h    h h h h h h    one thread per chunk and column

(P, R) is the map of a chunk: P is the product of its coefficients, and R is its end state if it
starts from zero. Neighbouring threads take neighbouring columns, and after the last column, the
next chunk. Bytes per element, float32: 20 forward (a and x are read twice), 28 backward.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from numba import cuda

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cuda.launch import Kernel, Launches, blocks
from lrscan.cuda.memory import finite, load, store
from lrscan.cuda.steps import (
    Extents,
    Variant,
    addresses_of,
    column_count,
    compiled,
    inlined,
    make_steps,
    place_of,
)

THREADS = 128
FEWEST_STEPS = 64  # of a chunk, unless the whole sequence is shorter
_THREADS_PER_SM = 1024  # enough to fill a multiprocessor


class Chunks(NamedTuple):
    """Division of time into chunks: the sizing of the three kernels.

    Attributes:
        length: steps per chunk; the last chunk may be shorter
        total: number of chunks
        workspace: address of the workspace. It holds P of every chunk and column, then R of every
            chunk and column. The second launch replaces R by the state that the chunk starts from.
    """

    length: int
    total: int
    workspace: int


@functools.cache
def kernels(variant: Variant) -> tuple[Kernel, Kernel, Kernel]:
    """Return the kernels ``(reduce, carries, apply)`` of a variant."""
    bodies = make_reduce(variant), make_carries(variant), make_apply(variant)
    return tuple(
        Kernel(body, variant.named(f"blocked_{body.__name__}"), Chunks, THREADS) for body in bodies
    )


def make_reduce(variant: Variant) -> Callable:
    """Return the first kernel: each thread reads one chunk of a column and writes its map."""
    steps_of, algebra = make_steps(variant), compiled(variant)
    read_coefficient, read_input = steps_of.read_coefficient, steps_of.read_input
    compose, one, zero = algebra.compose, algebra.one, algebra.zero
    coefficient, state = variant.coefficient, variant.state
    P_at, R_at = _make_slots(variant)

    def reduce(rows, extents, chunks):
        columns = column_count(extents)
        chunk, column = cuda.grid(1) // columns, cuda.grid(1) % columns
        if chunk >= chunks.total:
            return
        at = addresses_of(rows, place_of(column, extents))
        P, R = one, zero
        for t in range(chunk * chunks.length, _end(chunk, chunks, extents)):
            P, R = compose(P, R, read_coefficient(rows, at, t), read_input(rows, at, t))
        store(coefficient, P_at(chunks, columns, chunk, column), P)
        store(state, R_at(chunks, columns, chunk, column), R)

    return reduce


def make_carries(variant: Variant) -> Callable:
    """Return the second kernel: each thread computes the state that each chunk starts from.

    It reads the maps of its column. If a map leads to a state that is not finite, the thread runs
    the chunk step by step instead, for three reasons:

    - The product may have overflowed although the states do not.
    - The product may be zero by underflow. Multiplied by an infinite state, it would give NaN.
    - The product may contain a coefficient of exactly zero, which forgets a state that is not
      finite.
    """
    steps_of, algebra = make_steps(variant), compiled(variant)
    initial_state = steps_of.initial_state
    read_coefficient, read_input = steps_of.read_coefficient, steps_of.read_input
    step, remembered, guarded = algebra.step, algebra.remembered, variant.algebra.guarded
    coefficient, state = variant.coefficient, variant.state
    P_at, R_at = _make_slots(variant)

    @inlined
    def end_of_chunk(rows, at, t, stop, h):
        """Return the state after steps t to stop - 1, computed one by one."""
        for s in range(t, stop):
            a = read_coefficient(rows, at, s)
            h = step(a, read_input(rows, at, s), remembered(a, h))
        return h

    def carries(rows, extents, chunks):
        column, columns = cuda.grid(1), column_count(extents)
        if column >= columns:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = initial_state(rows, at)
        for chunk in range(chunks.total):
            P = load(coefficient, P_at(chunks, columns, chunk, column))
            at_R = R_at(chunks, columns, chunk, column)
            R = load(state, at_R)
            store(state, at_R, h)
            after = step(P, R, h)
            if guarded and not finite(after):
                t, stop = chunk * chunks.length, _end(chunk, chunks, extents)
                after = end_of_chunk(rows, at, t, stop, h)
            h = after

    return carries


def make_apply(variant: Variant) -> Callable:
    """Return the third kernel: each thread runs its chunk again and writes the results.

    It starts from the state that the second kernel has computed.
    """
    advance, state = make_steps(variant).advance, variant.state
    _, R_at = _make_slots(variant)

    def apply(rows, extents, chunks):
        columns = column_count(extents)
        chunk, column = cuda.grid(1) // columns, cuda.grid(1) % columns
        if chunk >= chunks.total:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = load(state, R_at(chunks, columns, chunk, column))
        for t in range(chunk * chunks.length, _end(chunk, chunks, extents)):
            h = advance(rows, at, t, extents.steps, h)

    return apply


@inlined
def _end(chunk, chunks, extents):
    """Return the end of a chunk: the number of its last step, plus 1."""
    return min((chunk + 1) * chunks.length, extents.steps)


def _make_slots(variant: Variant) -> tuple[Callable, Callable]:
    """Return functions ``(P_at, R_at)`` for the addresses of P and R of a chunk and column."""
    P_bytes, R_bytes = described(variant.coefficient).size, described(variant.state).size

    @inlined
    def P_at(chunks, columns, chunk, column):
        return chunks.workspace + (chunk * columns + column) * P_bytes

    @inlined
    def R_at(chunks, columns, chunk, column):
        products = chunks.total * columns * P_bytes
        return chunks.workspace + products + (chunk * columns + column) * R_bytes

    return P_at, R_at


def chunk_length(steps: int, columns: int, processors: int) -> int:
    """Return the number of steps per chunk, at least ``FEWEST_STEPS``.

    There should be enough chunks to fill the device. But there are at most 4 sqrt(T), because one
    thread per column goes through the carries of all chunks.
    """
    chunks = min(processors * _THREADS_PER_SM // columns, 4 * math.isqrt(steps))
    return max(-(-steps // max(chunks, 1)), FEWEST_STEPS)


def prepare(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """Return a function that launches the three kernels.

    It takes the integers of the real rows and extents, and the target of the launches.
    """
    columns = math.prod(extents[1:])
    length = chunk_length(extents.steps, columns, processors)
    number = -(-extents.steps // length)
    tasks = number * columns
    size = tasks * (described(variant.coefficient).size + described(variant.state).size)
    launches = [
        (kernel, blocks(threads, THREADS))
        for kernel, threads in zip(kernels(variant), (tasks, columns, tasks), strict=True)
    ]

    def launch(numbers: list[int], stream: Launches) -> None:
        numbers = [*numbers, *Chunks(length, number, stream.workspace(size))]
        for kernel, grid in launches:
            stream.launch(kernel, grid, THREADS, numbers)

    return launch
