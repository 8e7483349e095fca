"""Algorithm 1 of Martin and Cundy (2018): time in pieces, three launches.

    time  ->   piece 0        piece 1        piece 2
    reduce     (P0, R0)       (P1, R1)       (P2, R2)       one thread a piece and column
    carries    h0 ----------> P0 h0 + R0 --> P1 .. + R1     one thread a column
    apply      h h h h h h    h h h h h h    h h h h h h    one thread a piece and column

P is the product of a piece's coefficients, R its end state from a zero start. Neighbouring
threads take neighbouring columns, then the next piece. Bytes an element, float32: 20 forward (a
and x are read twice), 28 backward.

The sizing is (steps a piece, pieces, 0, 0, 0, workspace); the workspace holds P of every piece and
column, then R, which the second launch replaces by the carry into the piece. Where the next carry
is not finite, that launch runs the piece step by step instead: a product may have overflowed though
the states do not, or be zero by underflow, which would make NaN of an infinite state, or hold a
coefficient of exactly zero, which forgets a state that is not finite.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from numba import cuda

from lrscan.core.dtypes import KINDS
from lrscan.cuda.launch import Kernel, Launches, blocks
from lrscan.cuda.memory import load, store
from lrscan.cuda.steps import (
    Variant,
    X,
    addresses_of,
    compose,
    finite,
    inlined,
    make_steps,
    place_of,
    remembered,
    step,
)

THREADS = 128
FEWEST_STEPS = 64  # a piece is not shorter, unless all of time is
_THREADS_AN_SM = 1024


@functools.cache
def kernels(variant: Variant) -> tuple[Kernel, Kernel, Kernel]:
    """(reduce, carries, apply)"""
    begin, coefficient, _, advance = make_steps(variant)
    kind_x, kind = variant.x, variant.state_kind
    size = KINDS[kind].size
    one, zero = variant.state.type(1), variant.state.type(0)

    @inlined
    def end_of_piece(rows, at, t, stop, h):
        """The state after the steps from t to stop, one by one."""
        for s in range(t, stop):
            a = coefficient(rows, at, s)
            h = step(a, load(kind_x, at[X] + s * rows[X][1]), remembered(a, h, zero))
        return h

    def reduce(rows, extents, sizing):
        thread = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        block, pieces, _, _, _, products = sizing
        piece, column = thread // columns, thread % columns
        if piece >= pieces:
            return
        at = addresses_of(rows, place_of(column, extents))
        P, R = one, zero
        for t in range(piece * block, min((piece + 1) * block, steps)):
            x = load(kind_x, at[X] + t * rows[X][1])
            P, R = compose(P, R, coefficient(rows, at, t), x)
        store(kind, products + thread * size, P)
        store(kind, products + (pieces * columns + thread) * size, R)

    def carries(rows, extents, sizing):
        column = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        block, pieces, _, _, _, products = sizing
        if column >= columns:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = begin(rows, at)
        for piece in range(pieces):
            slot = products + (piece * columns + column) * size
            end = slot + pieces * columns * size
            P, R = load(kind, slot), load(kind, end)
            store(kind, end, h)  # the carry into this piece
            after = step(P, R, h)
            if not finite(after):
                t, stop = piece * block, min((piece + 1) * block, steps)
                after = end_of_piece(rows, at, t, stop, h)
            h = after

    def apply(rows, extents, sizing):
        thread = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        block, pieces, _, _, _, products = sizing
        piece, column = thread // columns, thread % columns
        if piece >= pieces:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = load(kind, products + (pieces * columns + thread) * size)
        for t in range(piece * block, min((piece + 1) * block, steps)):
            h = advance(rows, at, t, steps, h)

    return tuple(
        Kernel(body, variant.named(f"blocked_{body.__name__}"), THREADS)
        for body in (reduce, carries, apply)
    )


def block_of(steps: int, columns: int, processors: int) -> int:
    """Steps a piece: pieces enough to fill the device, but not so many that the carries, which
    one thread a column runs through, take longer than a piece; none under FEWEST_STEPS."""
    pieces = min(processors * _THREADS_AN_SM // columns, 4 * math.isqrt(steps))
    return max(-(-steps // max(pieces, 1)), FEWEST_STEPS)


def prepare(
    variant: Variant, numbers: tuple[int, ...], extents: tuple[int, ...], processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches the three kernels, given the rows and extents as a list."""
    steps, columns = extents[0], math.prod(extents[1:])
    block = block_of(steps, columns, processors)
    pieces = -(-steps // block)
    tasks = pieces * columns
    size = 2 * tasks * KINDS[variant.state_kind].size
    launches = [
        (kernel, blocks(threads, THREADS))
        for kernel, threads in zip(kernels(variant), (tasks, columns, tasks), strict=True)
    ]

    def launch(numbers: list[int], stream: Launches) -> None:
        numbers = (*numbers, block, pieces, 0, 0, 0, stream.workspace(size))
        for kernel, grid in launches:
            stream.launch(kernel, grid, THREADS, numbers)

    return launch
