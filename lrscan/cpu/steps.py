"""What the CPU kernels share: a time step of a few lanes, and the states of a group of columns.

An operand is a row of an int64 table, in bytes: address of the first step, then the strides over
time (START and DSTART: over sequences), over the two outer column axes, and over the inner one.
:mod:`lrscan.core.sweep` says what the rows are; running from the end is a matter of addresses and
negative strides.

Columns are taken in *strips* of as many as there are lanes. Where the width of a group is no
multiple of that, its last strip ends with it and overlaps the one before: the columns of both are
done twice, with the same result. States lie strip after strip.
"""

from __future__ import annotations

import functools

from numba import njit

from lrscan.core import algebra
from lrscan.core.dtypes import KINDS
from lrscan.core.sweep import Rows
from lrscan.cpu.memory import load, store
from lrscan.cpu.vector import all_finite, fill, remembered

A, X, START, OUT, BEFORE, DA, DSTART = range(len(Rows._fields))

# Inlined by LLVM, so that flags known at compile time prune the branches of a kernel.
inlined = njit(forceinline=True, error_model="numpy")

step = njit(inline="always")(algebra.step)
compose = njit(inline="always")(algebra.compose)
coefficient_gradient = njit(inline="always")(algebra.coefficient_gradient)


class Variant:
    """What distinguishes one compiled kernel from another.

    kinds     element types of a, x and h0
    spacings  spacings of the rows A, X, OUT, BEFORE, DA along the lanes (see memory.load)
    wanted    which of dx and da are written (backward)
    """

    def __init__(self, backward, kinds, spacings, wanted=(True, True)):
        self.backward = backward
        self.a, self.x, self.start = kinds
        self.spacings = spacings
        self.want_dx, self.want_da = wanted
        self.state = KINDS[self.x].state
        self.size = KINDS[self.state].size

    @functools.cached_property
    def one_by_one(self):
        """The variant that takes single steps where the lanes run over time."""
        kinds, wanted = (self.a, self.x, self.start), (self.want_dx, self.want_da)
        return Variant(self.backward, kinds, ("unit",) * len(self.spacings), wanted)


@inlined
def moved(at, stride, n):
    """The seven addresses, ``n`` strides further."""
    return (
        at[0] + n * stride[0],
        at[1] + n * stride[1],
        at[2] + n * stride[2],
        at[3] + n * stride[3],
        at[4] + n * stride[4],
        at[5] + n * stride[5],
        at[6] + n * stride[6],
    )


@inlined
def strips_of(width, lanes):
    """How many strips a group of ``width`` columns has."""
    return (width + lanes - 1) // lanes


@inlined
def slots_of(width, lanes):
    """How many states the strips of a group hold, those done twice counted twice."""
    return strips_of(width, lanes) * lanes


@inlined
def first_column(strip, width, lanes):
    """The column, within the group, where a strip begins."""
    return min(strip * lanes, width - lanes)


@functools.cache
def make_states(v, lanes):
    """(begin, copy, carry_over, finite): loops over the states of a group."""
    state, start_kind = v.state, v.start
    bytes_a_strip = lanes * v.size

    @inlined
    def begin(to, start, stride, width):
        """The states before the first step, from the addresses of h0, or zero."""
        for s in range(strips_of(width, lanes)):
            h = fill(state, lanes, 0)
            if start != 0:
                first = start + first_column(s, width, lanes) * stride
                h = load(start_kind, lanes, "strided", first, stride)
            store(state, "unit", to + s * bytes_a_strip, 0, h)

    @inlined
    def copy(to, source, width):
        for s in range(strips_of(width, lanes)):
            at = s * bytes_a_strip
            store(state, "unit", to + at, 0, load(state, lanes, "unit", source + at, 0))

    @inlined
    def carry_over(to, product, end, carry, width):
        """to = product * carry + end; whether all of that is finite."""
        finite = True
        for s in range(strips_of(width, lanes)):
            at = s * bytes_a_strip
            P = load(state, lanes, "unit", product + at, 0)
            R = load(state, lanes, "unit", end + at, 0)
            h = step(P, R, load(state, lanes, "unit", carry + at, 0))
            finite &= all_finite(h)
            store(state, "unit", to + at, 0, h)
        return finite

    @inlined
    def finite(states, width):
        """Whether all of them are."""
        yes = True
        for s in range(strips_of(width, lanes)):
            yes &= all_finite(load(state, lanes, "unit", states + s * bytes_a_strip, 0))
        return yes

    return begin, copy, carry_over, finite


@functools.cache
def make_advance(v, lanes):
    """One step of ``lanes`` neighbouring columns: load, compute, store; returns the new state.

    Its last argument is whether a coefficient of zero forgets also a state that is not finite.
    """
    backward, want_dx, want_da = v.backward, v.want_dx, v.want_da
    kind_a, kind_x, kind_start, state = v.a, v.x, v.start, v.state
    space_a, space_x, space_out, space_before, space_da = v.spacings

    @inlined
    def advance(at, lane, h, first, last, a_next, forgets):
        x = load(kind_x, lanes, space_x, at[X], lane[X])
        if not backward:
            a = load(kind_a, lanes, space_a, at[A], lane[A])
            if forgets:
                h = remembered(a, h)
            h = step(a, x, h)
            store(kind_x, space_out, at[OUT], lane[OUT], h)
            return h
        g = x
        if not first:
            a = load(kind_a, lanes, space_a, at[A], lane[A])
            if forgets:
                h = remembered(a, h)
            g = step(a.conjugate(), x, h)
        if want_dx:
            store(kind_x, space_out, at[OUT], lane[OUT], g)
        if want_da:
            before = fill(state, lanes, 0)
            if not last:
                before = load(kind_x, lanes, space_before, at[BEFORE], lane[BEFORE])
            elif at[START] != 0:
                before = load(kind_start, lanes, "strided", at[START], lane[START])
            store(kind_a, space_da, at[DA], lane[DA], coefficient_gradient(before, g))
        if last and at[DSTART] != 0:
            a = load(kind_a, lanes, space_a, at[A] + a_next, lane[A])
            dstart = coefficient_gradient(a, remembered(a, g))
            store(kind_start, "strided", at[DSTART], lane[DSTART], dstart)
        return g

    return advance


def make_apply_again(v, lanes):
    """All steps of a group from t0 up to t1, one by one: coefficients of zero forget all."""
    state, bytes_a_strip = v.state, lanes * v.size
    advance = make_advance(v, lanes)

    @inlined
    def apply_again(at, time, lane, t0, t1, opens, closes, width, states):
        for s in range(strips_of(width, lanes)):
            h = load(state, lanes, "unit", states + s * bytes_a_strip, 0)
            here = moved(at, lane, first_column(s, width, lanes))
            for t in range(t0, t1):
                first, last = opens and t == t0, closes and t == t1 - 1
                h = advance(moved(here, time, t), lane, h, first, last, time[A], bool(1))
            store(state, "unit", states + s * bytes_a_strip, 0, h)

    return apply_again
