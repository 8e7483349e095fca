"""Algorithm 1 of Martin and Cundy (2018): time in chunks, three launches.

    time  ->   chunk 0        chunk 1        chunk 2
    reduce     (P0, R0)       (P1, R1)       (P2, R2)       one thread per chunk and column
    carries    h0 ----------> P0 h0 + R0 --> P1 .. + R1     one thread per column
    apply      h h h h h h    h h h h h h    h h h h h h    one thread per chunk and column

(P, R) is the map of a chunk: P the product of its coefficients, R its end state from a zero start.
Neighbouring threads take neighbouring columns, then the next chunk. Bytes per element, float32: 20
forward (a and x are read twice), 28 backward.
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
    columns_of,
    compiled,
    inlined,
    make_steps,
    place_of,
)

THREADS = 128
FEWEST_STEPS = 64  # a chunk is not shorter, unless all of time is
_THREADS_AN_SM = 1024


class Chunks(NamedTuple):
    """Into what time is divided; the sizing of the three kernels.

    length  steps of a chunk; the last one may be shorter
    number  of chunks
    maps    address of the workspace: P of every chunk and column, then R of each. The second
            launch replaces R by the state that the chunk begins with
    """

    length: int
    number: int
    maps: int


@functools.cache
def kernels(variant: Variant) -> tuple[Kernel, Kernel, Kernel]:
    """(reduce, carries, apply)"""
    bodies = make_reduce(variant), make_carries(variant), make_apply(variant)
    return tuple(
        Kernel(body, variant.named(f"blocked_{body.__name__}"), Chunks, THREADS) for body in bodies
    )


def make_reduce(variant: Variant) -> Callable:
    """A thread reads its chunk of a column, and writes the chunk's map."""
    steps_of, algebra = make_steps(variant), compiled(variant)
    coefficient, arriving = steps_of.coefficient, steps_of.arriving
    compose, one, zero = algebra.compose, algebra.one, algebra.zero
    product, state = variant.product, variant.state
    product_at, end_at = _make_slots(variant)

    def reduce(rows, extents, chunks):
        columns = columns_of(extents)
        chunk, column = cuda.grid(1) // columns, cuda.grid(1) % columns
        if chunk >= chunks.number:
            return
        at = addresses_of(rows, place_of(column, extents))
        P, R = one, zero
        for t in range(chunk * chunks.length, _end(chunk, chunks, extents)):
            P, R = compose(P, R, coefficient(rows, at, t), arriving(rows, at, t))
        store(product, product_at(chunks, columns, chunk, column), P)
        store(state, end_at(chunks, columns, chunk, column), R)

    return reduce


def make_carries(variant: Variant) -> Callable:
    """A thread reads the maps of its column, and writes the state that each chunk begins with.

    Where the next state is not finite, it runs the chunk step by step instead: a product may have
    overflowed though the states do not, or be zero by underflow, which would make NaN of an
    infinite state, or hold a coefficient of exactly zero, which forgets a state that is not finite.
    """
    steps_of, algebra = make_steps(variant), compiled(variant)
    begin, coefficient, arriving = steps_of.begin, steps_of.coefficient, steps_of.arriving
    step, remembered, guarded = algebra.step, algebra.remembered, variant.algebra.guarded
    product, state = variant.product, variant.state
    product_at, end_at = _make_slots(variant)

    @inlined
    def end_of_chunk(rows, at, t, stop, h):
        """The state after the steps from t to stop, one by one."""
        for s in range(t, stop):
            a = coefficient(rows, at, s)
            h = step(a, arriving(rows, at, s), remembered(a, h))
        return h

    def carries(rows, extents, chunks):
        column, columns = cuda.grid(1), columns_of(extents)
        if column >= columns:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = begin(rows, at)
        for chunk in range(chunks.number):
            P = load(product, product_at(chunks, columns, chunk, column))
            slot = end_at(chunks, columns, chunk, column)
            R = load(state, slot)
            store(state, slot, h)
            after = step(P, R, h)
            if guarded and not finite(after):
                t, stop = chunk * chunks.length, _end(chunk, chunks, extents)
                after = end_of_chunk(rows, at, t, stop, h)
            h = after

    return carries


def make_apply(variant: Variant) -> Callable:
    """A thread reads its chunk again, from the state that it begins with, and writes results."""
    advance, state = make_steps(variant).advance, variant.state
    _, end_at = _make_slots(variant)

    def apply(rows, extents, chunks):
        columns = columns_of(extents)
        chunk, column = cuda.grid(1) // columns, cuda.grid(1) % columns
        if chunk >= chunks.number:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = load(state, end_at(chunks, columns, chunk, column))
        for t in range(chunk * chunks.length, _end(chunk, chunks, extents)):
            h = advance(rows, at, t, extents.steps, h)

    return apply


@inlined
def _end(chunk, chunks, extents):
    """The step after the last one of a chunk."""
    return min((chunk + 1) * chunks.length, extents.steps)


def _make_slots(variant: Variant) -> tuple[Callable, Callable]:
    """Functions for the addresses of P, and of R, of a chunk and column."""
    P_bytes, R_bytes = described(variant.product).size, described(variant.state).size

    @inlined
    def product_at(chunks, columns, chunk, column):
        return chunks.maps + (chunk * columns + column) * P_bytes

    @inlined
    def end_at(chunks, columns, chunk, column):
        products = chunks.number * columns * P_bytes
        return chunks.maps + products + (chunk * columns + column) * R_bytes

    return product_at, end_at


def chunk_length(steps: int, columns: int, processors: int) -> int:
    """Steps per chunk: chunks enough to fill the device, but not so many that the carries, which
    one thread per column runs through, take longer than a chunk; none under FEWEST_STEPS."""
    chunks = min(processors * _THREADS_AN_SM // columns, 4 * math.isqrt(steps))
    return max(-(-steps // max(chunks, 1)), FEWEST_STEPS)


def prepare(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches the three kernels, given the numbers of real rows and extents."""
    columns = math.prod(extents[1:])
    length = chunk_length(extents.steps, columns, processors)
    number = -(-extents.steps // length)
    tasks = number * columns
    size = tasks * (described(variant.product).size + described(variant.state).size)
    launches = [
        (kernel, blocks(threads, THREADS))
        for kernel, threads in zip(kernels(variant), (tasks, columns, tasks), strict=True)
    ]

    def launch(numbers: list[int], stream: Launches) -> None:
        numbers = [*numbers, *Chunks(length, number, stream.workspace(size))]
        for kernel, grid in launches:
            stream.launch(kernel, grid, THREADS, numbers)

    return launch
