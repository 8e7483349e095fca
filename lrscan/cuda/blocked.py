"""Algorithm 1 of Martin and Cundy (2018): time in pieces, three launches.

    time  ->   piece 0        piece 1        piece 2
    reduce     (P0, R0)       (P1, R1)       (P2, R2)       one thread a piece and column
    carries    h0 ----------> P0 h0 + R0 --> P1 .. + R1     one thread a column
    apply      h h h h h h    h h h h h h    h h h h h h    one thread a piece and column

P is the product of a piece's coefficients, R its end state from a zero start. Neighbouring
threads take neighbouring columns, then the next piece. Bytes an element, float32: 20 forward (a
and x are read twice), 28 backward.

Where a product overflows though the states do not, the carries kernel runs that piece step by
step instead.
"""

from __future__ import annotations

import functools

from numba import cuda

from lrscan.cuda import launch
from lrscan.cuda.common import (
    START,
    A,
    Variant,
    X,
    base_of,
    bases_of,
    compose,
    make_steps,
    step,
)

THREADS = 128
FEWEST_STEPS = 64  # a piece is not shorter, unless all of time is
_THREADS_AN_SM = 1024


@functools.cache
def _kernels(variant: Variant):
    coefficient, _, advance = make_steps(variant)
    backward, state = variant.backward, variant.state

    @cuda.jit(device=True, inline="always")
    def reduce_piece(a, x, i, j, a_time, x_time, begin, end, P, R):
        """Compose the steps from begin to end, in order, onto (P, R)."""
        for t in range(begin, end):
            P, R = compose(P, R, coefficient(a, i + t * a_time), x[j + t * x_time])
        return P, R

    @cuda.jit(device=True, inline="always")
    def first_step(t):
        """Backward, the coefficient of the very first step lies outside: start after it."""
        return 1 if backward and t == 0 else t

    def reduce(a, x, start, out, before, da, dstart, strides, has, extents, block, products, ends):
        thread = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        piece, column = thread // columns, thread % columns
        if piece * block >= steps:
            return
        begin, end = piece * block, min((piece + 1) * block, steps)
        i, j = base_of(strides, A, column, extents), base_of(strides, X, column, extents)
        R = state(0)
        if first_step(begin) != begin:
            R = x[j]
        P, R = reduce_piece(
            a, x, i, j, strides[A][1], strides[X][1], first_step(begin), end, state(1), R
        )
        products[thread] = P
        ends[thread] = R

    def carries(a, x, start, out, before, da, dstart, strides, has, extents, block, products, ends):
        column = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        if column >= columns:
            return
        i, j = base_of(strides, A, column, extents), base_of(strides, X, column, extents)
        h = state(0)
        if not backward and has[0]:
            h = start[base_of(strides, START, column, extents)]
        for piece in range((steps + block - 1) // block):
            slot = piece * columns + column
            P, R = products[slot], ends[slot]
            ends[slot] = h  # the carry into this piece
            if P - P == state(0):
                h = step(P, R, h)
            else:
                begin, end = piece * block, min((piece + 1) * block, steps)
                if first_step(begin) != begin:
                    h = x[j]
                _, h = reduce_piece(
                    a, x, i, j, strides[A][1], strides[X][1], first_step(begin), end, state(1), h
                )

    def apply(a, x, start, out, before, da, dstart, strides, has, extents, block, products, ends):
        thread = cuda.grid(1)
        steps, columns = extents[0], extents[1] * extents[2] * extents[3]
        piece, column = thread // columns, thread % columns
        if piece * block >= steps:
            return
        at = bases_of(strides, column, extents)
        h = ends[thread]
        for t in range(piece * block, min((piece + 1) * block, steps)):
            h = advance(a, x, start, out, before, da, dstart, at, strides, has, t, steps, h)

    return tuple(
        launch.compiled(kernel, variant.dtype, workspace=2) for kernel in (reduce, carries, apply)
    )


def block_of(steps: int, columns: int, processors: int) -> int:
    """Steps a piece: enough pieces to fill the device, none under FEWEST_STEPS."""
    pieces = max(processors * _THREADS_AN_SM // columns, 1)
    return max(-(-steps // pieces), FEWEST_STEPS)


def run(variant: Variant, arguments, steps: int, columns: int, like) -> None:
    """Launch the three kernels. ``like`` is a tensor on the device."""
    reduce, carries, apply = _kernels(variant)
    block = block_of(steps, columns, launch.processors(like.device))
    tasks = -(-steps // block) * columns
    products, ends = (like.new_empty(tasks) for _ in range(2))
    arguments = (*arguments, block, launch.pointer(products), launch.pointer(ends))
    launch.launch(reduce, launch.blocks(tasks, THREADS), THREADS, arguments, like)
    launch.launch(carries, launch.blocks(columns, THREADS), THREADS, arguments, like)
    launch.launch(apply, launch.blocks(tasks, THREADS), THREADS, arguments, like)
