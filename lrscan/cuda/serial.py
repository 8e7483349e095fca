"""One thread per column: the plain loop of the paper, and an optimized version of it::

    thread  ->      column 0   column 1   column 2  ...
    time  |            a,x        a,x        a,x
          v             |          |          |
                        h          h          h

Bytes per element, float32: 12 forward, 20 backward. Neighbouring threads take neighbouring columns
of the inner axis, so accesses are coalesced if that axis is contiguous. A launch has one thread per
column and an empty sizing. (The kernels of all algorithms have the same parameters, and so do the
functions that prepare them. Some ignore a parameter.)
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
from lrscan.cuda.memory import get, load, put, store
from lrscan.cuda.steps import (
    Extents,
    Variant,
    addresses_of,
    column_count,
    compiled,
    make_steps,
    place_of,
)

THREADS = 64


class NoSizing(NamedTuple):
    """The empty sizing of a kernel that does not divide columns."""


@functools.cache
def serial_paper_kernel(variant: Variant) -> Kernel:
    """Return the paper's baseline: each step reads, computes and writes before the next begins."""
    steps_of = make_steps(variant)
    initial_state, advance = steps_of.initial_state, steps_of.advance

    def serial_paper(rows, extents, sizing):
        column = cuda.grid(1)
        if column >= column_count(extents):
            return
        at = addresses_of(rows, place_of(column, extents))
        h = initial_state(rows, at)
        for t in range(extents.steps):
            h = advance(rows, at, t, extents.steps, h)

    return Kernel(serial_paper, variant.named("serial_paper"), NoSizing, THREADS)


@functools.cache
def serial_kernel(variant: Variant) -> Kernel:
    """Return the kernel that reads several steps into registers before it computes them.

    So their loads overlap::

        arrays in registers    a[0] .. a[ahead - 1]        read together
                               x[0] .. x[ahead - 1]
                               before[0] ..                backward
        then                   step, write; step, write; ..

    Steps that remain are done one by one. A backward sweep also does its first and last step this
    way, because no coefficient leads into the first, and the state before the last is h0.
    """
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x = variant.a, variant.x
    coefficient, state = variant.coefficient, variant.state
    number, ahead = variant.number_type, steps_ahead(variant)
    for_a = ahead * variant.algebra.coefficient_numbers
    for_h = ahead * variant.algebra.state_numbers
    steps_of, algebra = make_steps(variant), compiled(variant)
    initial_state, advance = steps_of.initial_state, steps_of.advance
    read_coefficient, read_input = steps_of.read_coefficient, steps_of.read_input
    step, remembered = algebra.step, algebra.remembered
    coefficient_gradient = algebra.coefficient_gradient

    def serial(rows, extents, sizing):
        column = cuda.grid(1)
        steps = extents.steps
        if column >= column_count(extents):
            return
        at = addresses_of(rows, place_of(column, extents))
        a = cuda.local.array(for_a, number)
        x, before = cuda.local.array(for_h, number), cuda.local.array(for_h, number)
        h = initial_state(rows, at)
        t = 0
        if backward:
            h = advance(rows, at, 0, steps, h)
            t = 1
        stop = steps - 1 if backward else steps
        while t + ahead <= stop:
            for k in range(ahead):
                put(a, k, read_coefficient(rows, at, t + k))
                put(x, k, read_input(rows, at, t + k))
                if backward and want_da:
                    put(before, k, load(kind_x, at.before + (t + k) * rows.before.time))
            for k in range(ahead):
                a_k = get(coefficient, a, k)
                h = step(a_k, get(state, x, k), remembered(a_k, h))
                if want_dx:
                    store(kind_x, at.out + (t + k) * rows.out.time, h)
                if backward and want_da:
                    da = coefficient_gradient(get(state, before, k), h)
                    store(kind_a, at.da + (t + k) * rows.da.time, da)
            t += ahead
        while t < steps:
            h = advance(rows, at, t, steps, h)
            t += 1

    return Kernel(serial, variant.named("serial"), NoSizing, THREADS)


def steps_ahead(variant: Variant) -> int:
    """Return how many steps "serial" reads ahead. Their operands fill up to 64 registers."""
    size = max(described(variant.coefficient).size, described(variant.state).size)
    return max((64 if variant.backward else 128) // size, 1)


def prepare(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """Return a function that launches "serial" over all columns.

    It takes the integers of the real rows and extents, and the target of the launch.
    """
    return _launcher(serial_kernel(variant), extents)


def prepare_paper(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """Return the same for "serial_paper"."""
    return _launcher(serial_paper_kernel(variant), extents)


def _launcher(kernel: Kernel, extents: Extents) -> Callable[[list[int], Launches], None]:
    grid = blocks(math.prod(extents[1:]), THREADS)

    def launch(numbers: list[int], stream: Launches) -> None:
        stream.launch(kernel, grid, THREADS, numbers)

    return launch
