"""One thread a column: the plain loop of the paper, and the same loop as good as it can be.

    thread  ->      column 0   column 1   column 2  ...
    time  |            a,x        a,x        a,x
          v             |          |          |
                        h          h          h

Bytes an element, float32: 12 forward, 20 backward. Neighbouring threads take neighbouring columns
of the inner axis, so accesses are coalesced where that axis is contiguous.
"""

from __future__ import annotations

import functools

from numba import cuda

from lrscan.cuda import launch
from lrscan.cuda.common import START, A, Variant, X, bases_of, make_steps, step

THREADS = 64
AHEAD = 8  # steps that "serial" reads before it computes them


@functools.cache
def _serial_paper(variant: Variant):
    """A step reads, computes and writes, and then the next one does: the paper's baseline."""
    _, _, advance = make_steps(variant)
    backward, state = variant.backward, variant.state

    def serial_paper(a, x, start, out, before, da, dstart, strides, has, extents):
        column = cuda.grid(1)
        steps = extents[0]
        if column >= extents[1] * extents[2] * extents[3]:
            return
        at = bases_of(strides, column, extents)
        h = state(0)
        if not backward and has[0]:
            h = start[at[START]]
        for t in range(steps):
            h = advance(a, x, start, out, before, da, dstart, at, strides, has, t, steps, h)

    return launch.compiled(serial_paper, variant.dtype)


@functools.cache
def _serial(variant: Variant):
    """Reads several steps into registers before it computes them, so that loads overlap."""
    coefficient, write, advance = make_steps(variant)
    backward, state = variant.backward, variant.state

    def serial(a, x, start, out, before, da, dstart, strides, has, extents):
        column = cuda.grid(1)
        steps = extents[0]
        if column >= extents[1] * extents[2] * extents[3]:
            return
        at = bases_of(strides, column, extents)
        a_next = cuda.local.array(AHEAD, state)
        x_next = cuda.local.array(AHEAD, state)
        h = state(0)
        if not backward and has[0]:
            h = start[at[START]]
        t = 0
        if backward:
            h = advance(a, x, start, out, before, da, dstart, at, strides, has, 0, steps, h)
            t = 1
        while t + AHEAD <= steps:
            for k in range(AHEAD):
                a_next[k] = coefficient(a, at[A] + (t + k) * strides[A][1])
                x_next[k] = x[at[X] + (t + k) * strides[X][1]]
            for k in range(AHEAD):
                h = step(a_next[k], x_next[k], h)
                write(a, start, out, before, da, dstart, at, strides, has, t + k, steps, h)
            t += AHEAD
        while t < steps:
            h = advance(a, x, start, out, before, da, dstart, at, strides, has, t, steps, h)
            t += 1

    return launch.compiled(serial, variant.dtype)


def run(variant: Variant, arguments, columns: int, like, *, plain: bool) -> None:
    """Launch over all columns. ``like`` is a tensor on the device."""
    kernel = (_serial_paper if plain else _serial)(variant)
    launch.launch(kernel, launch.blocks(columns, THREADS), THREADS, arguments, like)
