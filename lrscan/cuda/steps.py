"""What all CUDA kernels share: their arguments, and one time step.

A kernel takes three tuples of integers, ``(rows, extents, sizing)``:

    rows     for each row of :mod:`lrscan.core.sweep`: the address of its first step, then its
             strides over time and over the outer, middle and inner column axis, all in bytes; zeros
             where an operand is missing
    extents  (steps, n2, n1, n0)
    sizing   six numbers whose meaning is the algorithm's, the last one the address of a workspace

Columns are counted with the inner axis fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import cuda, types

from lrscan.core import algebra
from lrscan.core.dtypes import KINDS
from lrscan.core.sweep import Rows
from lrscan.cuda.kinds import state_of
from lrscan.cuda.memory import SIMULATED, load, store

A, X, START, OUT, BEFORE, DA, DSTART = range(len(Rows._fields))
SIZING = 6
SIGNATURE = types.void(
    types.UniTuple(types.UniTuple(types.int64, 5), len(Rows._fields)),
    types.UniTuple(types.int64, 4),
    types.UniTuple(types.int64, SIZING),
)


def inlined(function: Callable) -> Callable:
    """A function for kernels to call. LLVM inlines it; Numba's own inlining takes twice as long.

    The simulator runs it as it is.
    """
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


step = inlined(algebra.step)
remembered = inlined(algebra.remembered)
compose = inlined(algebra.compose)
coefficient_gradient = inlined(algebra.coefficient_gradient)


class Variant(NamedTuple):
    """What distinguishes one compiled kernel from another of the same algorithm.

    backward       whether it sweeps for the gradients
    a, x, start    kinds of the coefficients, the inputs and the state before the first step
    want_dx, _da   whether dx and da are written
    """

    backward: bool
    a: str
    x: str
    start: str
    want_dx: bool = True
    want_da: bool = True

    @property
    def state(self) -> np.dtype:
        return state_of(self.x)

    @property
    def state_kind(self) -> str:
        return KINDS[self.x].state

    def named(self, algorithm: str, *more: object) -> str:
        """The name of its kernel of an algorithm."""
        direction = "backward" if self.backward else "forward"
        wanted = "-dx" * self.want_dx + "-da" * self.want_da if self.backward else ""
        kinds = (self.a, self.x, self.start)
        return "-".join(map(str, (algorithm, *more, *kinds, direction))) + wanted


@cuda.jit(device=True)
def barrier():
    """Wait for all threads of the block."""
    cuda.syncthreads()


@inlined
def finite(value):
    """Whether a number is neither infinite nor NaN."""
    return value - value == 0


@inlined
def place_of(column, extents):
    """(outer, middle, inner) index of a column."""
    rest = column // extents[3]
    return rest // extents[2], rest % extents[2], column % extents[3]


@inlined
def address_of(row, place):
    """Address of a row's first step in a column."""
    return row[0] + place[0] * row[2] + place[1] * row[3] + place[2] * row[4]


@inlined
def addresses_of(rows, place):
    """:func:`address_of` for all rows."""
    return (
        address_of(rows[0], place),
        address_of(rows[1], place),
        address_of(rows[2], place),
        address_of(rows[3], place),
        address_of(rows[4], place),
        address_of(rows[5], place),
        address_of(rows[6], place),
    )


def make_steps(variant: Variant):
    """(begin, coefficient, write, advance): one column, one step at a time.

    begin(rows, at)           the state before the first step
    coefficient(rows, at, t)  of step t, conjugated backward; zero where none leads into it
    write(...)                stores what step t yields: h, or dx, da and at the last step dh0
    advance(...)              the whole of step t, from reading to writing; returns the new state
    """
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, kind_start = variant.a, variant.x, variant.start
    zero = variant.state.type(0)

    @inlined
    def begin(rows, at):
        h = zero
        if not backward and rows[START][0] != 0:
            h = load(kind_start, at[START])
        return h

    @inlined
    def coefficient(rows, at, t):
        if not backward:
            return load(kind_a, at[A] + t * rows[A][1])
        a = zero
        if t > 0:  # nothing comes after the last step in forward time
            a = load(kind_a, at[A] + t * rows[A][1])
        return a.conjugate()

    @inlined
    def write(rows, at, t, steps, h):
        if want_dx:
            store(kind_x, at[OUT] + t * rows[OUT][1], h)
        if backward:
            last = t == steps - 1
            if want_da:
                before = zero
                if not last:
                    before = load(kind_x, at[BEFORE] + t * rows[BEFORE][1])
                elif rows[START][0] != 0:
                    before = load(kind_start, at[START])
                store(kind_a, at[DA] + t * rows[DA][1], coefficient_gradient(before, h))
            if last and rows[DSTART][0] != 0:
                first_a = load(kind_a, at[A] + steps * rows[A][1])
                h = remembered(first_a, h, zero)
                store(kind_start, at[DSTART], coefficient_gradient(first_a, h))

    @inlined
    def advance(rows, at, t, steps, h):
        a = coefficient(rows, at, t)
        h = step(a, load(kind_x, at[X] + t * rows[X][1]), remembered(a, h, zero))
        write(rows, at, t, steps, h)
        return h

    return begin, coefficient, write, advance
