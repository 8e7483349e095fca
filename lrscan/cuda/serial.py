"""One thread a column: the plain loop of the paper, and the same loop as good as it can be.

    thread  ->      column 0   column 1   column 2  ...
    time  |            a,x        a,x        a,x
          v             |          |          |
                        h          h          h

Bytes an element, float32: 12 forward, 20 backward. Neighbouring threads take neighbouring columns
of the inner axis, so accesses are coalesced where that axis is contiguous. The sizing is not used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from numba import cuda

from lrscan.core.dtypes import KINDS
from lrscan.cuda.kinds import STATES
from lrscan.cuda.launch import Kernel, Launches, blocks
from lrscan.cuda.memory import load, store
from lrscan.cuda.steps import (
    BEFORE,
    DA,
    OUT,
    SIZING,
    Variant,
    X,
    addresses_of,
    coefficient_gradient,
    make_steps,
    place_of,
    remembered,
    step,
)

THREADS = 64


@functools.cache
def serial_paper_kernel(variant: Variant) -> Kernel:
    """A step reads, computes and writes, and then the next one does: the paper's baseline."""
    begin, _, _, advance = make_steps(variant)

    def serial_paper(rows, extents, sizing):
        column = cuda.grid(1)
        steps = extents[0]
        if column >= extents[1] * extents[2] * extents[3]:
            return
        at = addresses_of(rows, place_of(column, extents))
        h = begin(rows, at)
        for t in range(steps):
            h = advance(rows, at, t, steps, h)

    return Kernel(serial_paper, variant.named("serial_paper"), THREADS)


@functools.cache
def serial_kernel(variant: Variant) -> Kernel:
    """Reads several steps into registers before it computes them, so that loads overlap."""
    begin, coefficient, _, advance = make_steps(variant)
    backward, kind_a, kind_x = variant.backward, variant.a, variant.x
    state, zero = STATES[variant.state_kind], variant.state.type(0)
    want_dx, want_da = variant.want_dx, variant.want_da
    ahead = steps_ahead(variant)

    def serial(rows, extents, sizing):
        column = cuda.grid(1)
        steps = extents[0]
        if column >= extents[1] * extents[2] * extents[3]:
            return
        at = addresses_of(rows, place_of(column, extents))
        a, x = cuda.local.array(ahead, state), cuda.local.array(ahead, state)
        before = cuda.local.array(ahead, state)
        h = begin(rows, at)
        t = 0
        # Backward, the first and the last step are special.
        if backward:
            h = advance(rows, at, 0, steps, h)
            t = 1
        stop = steps - 1 if backward else steps
        while t + ahead <= stop:
            for k in range(ahead):
                a[k] = coefficient(rows, at, t + k)
                x[k] = load(kind_x, at[X] + (t + k) * rows[X][1])
                if backward and want_da:
                    before[k] = load(kind_x, at[BEFORE] + (t + k) * rows[BEFORE][1])
            for k in range(ahead):
                h = step(a[k], x[k], remembered(a[k], h, zero))
                if want_dx:
                    store(kind_x, at[OUT] + (t + k) * rows[OUT][1], h)
                if backward and want_da:
                    da = coefficient_gradient(before[k], h)
                    store(kind_a, at[DA] + (t + k) * rows[DA][1], da)
            t += ahead
        while t < steps:
            h = advance(rows, at, t, steps, h)
            t += 1

    return Kernel(serial, variant.named("serial"), THREADS)


def steps_ahead(variant: Variant) -> int:
    """Steps that "serial" reads before it computes them: 64 to 96 registers of operands."""
    return (128 if not variant.backward else 64) // KINDS[variant.state_kind].size


def prepare(
    variant: Variant, numbers: tuple[int, ...], extents: tuple[int, ...], processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches "serial" over all columns, given the rows and extents as a list."""
    return _launcher(serial_kernel(variant), extents)


def prepare_paper(
    variant: Variant, numbers: tuple[int, ...], extents: tuple[int, ...], processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches "serial_paper"."""
    return _launcher(serial_paper_kernel(variant), extents)


def _launcher(kernel: Kernel, extents: tuple[int, ...]) -> Callable[[list[int], Launches], None]:
    grid = blocks(math.prod(extents[1:]), THREADS)

    def launch(numbers: list[int], stream: Launches) -> None:
        stream.launch(kernel, grid, THREADS, (*numbers, *[0] * SIZING))

    return launch
