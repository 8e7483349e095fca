"""The scan kernels for the CPU: one for vector lanes over columns, one for lanes over time.

Both run a grid of columns x time. A *group* is a set of columns that one thread takes together, a
*piece* a stretch of time of a group. With one piece a group this is the serial algorithm, parallel
over columns only. With more it is Algorithm 1 of Martin and Cundy (2018), chained:

    time ->      piece 0          piece 1          piece 2
    group 0   reduce, apply -> reduce, apply -> reduce, apply      -> is the carry: the state
    group 1   reduce, apply -> reduce, apply -> reduce, apply         between two pieces

A thread takes the next piece from a shared counter, earlier times first. It reduces the piece to
a pair (P, R), waits for the carry of the piece before, passes its own carry P * carry + R on, and
then applies: runs the piece again, from the carry, and writes. Pieces are small enough to be still
in the cache then, so memory is read once. A thread waits only for pieces that were taken earlier,
and the result does not depend on how many threads there are.

An operand is a row of an int64 table, in bytes: address of the first step, then the strides over
time, over the two outer column axes, and over the inner one. :mod:`lrscan.sweep` says what the
rows are; running from the end is a matter of addresses and negative strides.

Bytes moved an element, float32: 12 forward (a, x, h), 20 backward (a, dh, h, dx, da).
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit

from lrscan import algebra
from lrscan.cpu.compile import kernel
from lrscan.cpu.memory import fetch_add, load, load_acquire, store, store_release
from lrscan.cpu.vector import KINDS, all_finite, broadcast, fill, shift
from lrscan.sweep import ROWS

A, X, START, OUT, BEFORE, DA, DSTART = range(len(ROWS))

# Inlined by LLVM, so that flags known at compile time prune the branches of a kernel.
inlined = njit(forceinline=True, error_model="numpy")

step = njit(inline="always")(algebra.step)
compose = njit(inline="always")(algebra.compose)
coefficient_gradient = njit(inline="always")(algebra.coefficient_gradient)


def state_kind(kind: str) -> str:
    """The kind that a state is carried in: half precision is carried in float32."""
    return "float32" if kind in ("float16", "bfloat16") else kind


def state_bytes(kind: str) -> int:
    """Size of a carried state."""
    state = KINDS[state_kind(kind)]
    return state.bytes * state.planes


class _Variant:
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
        self.state = state_kind(self.x)
        self.size = state_bytes(self.x)


def _make_state_loops(v):
    """Loops over the states of a group, which lie side by side in memory."""
    state, size, start_kind = v.state, v.size, v.start

    @inlined
    def begin(to, start, stride, width):
        for j in range(width):
            h = fill(state, 1, 0)
            if start != 0:
                h = load(start_kind, 1, "same", start + j * stride, 0)
            store(state, "unit", to + j * size, 0, h)

    @inlined
    def copy(to, source, width):
        for j in range(width):
            store(state, "unit", to + j * size, 0, load(state, 1, "unit", source + j * size, 0))

    @inlined
    def carry_over(to, product, end, carry, width):
        """to = product * carry + end"""
        for j in range(width):
            P = load(state, 1, "unit", product + j * size, 0)
            R = load(state, 1, "unit", end + j * size, 0)
            h = load(state, 1, "unit", carry + j * size, 0)
            store(state, "unit", to + j * size, 0, step(P, R, h))

    @inlined
    def finite(product, width):
        for j in range(width):
            if not all_finite(load(state, 1, "unit", product + j * size, 0)):
                return False
        return True

    return begin, copy, carry_over, finite


def _make_advance(v, lanes):
    """One step of ``lanes`` neighbouring columns: load, compute, store; returns the new state."""
    backward, want_dx, want_da = v.backward, v.want_dx, v.want_da
    kind_a, kind_x, kind_start, state = v.a, v.x, v.start, v.state
    space_a, space_x, space_out, space_before, space_da = v.spacings

    @inlined
    def advance(at, lane, h, first, last, a_next):
        x = load(kind_x, lanes, space_x, at[X], lane[X])
        if not backward:
            a = load(kind_a, lanes, space_a, at[A], lane[A])
            h = step(a, x, h)
            store(kind_x, space_out, at[OUT], lane[OUT], h)
            return h
        g = x
        if not first:
            a = load(kind_a, lanes, space_a, at[A], lane[A])
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
            dstart = coefficient_gradient(a, g)
            store(kind_start, "strided", at[DSTART], lane[DSTART], dstart)
        return g

    return advance


@inlined
def _moved(at, stride, n):
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


def _make_columns(v, lanes):
    """Lanes over columns: a strip of columns runs through time with its states in a register.

    The last strip of a group ends with it and may overlap the one before: those columns are done
    twice, with the same result.
    """
    state, size, kind_a, kind_x, backward = v.state, v.size, v.a, v.x, v.backward
    space_a, space_x = v.spacings[:2]
    advance = _make_advance(v, lanes)

    @inlined
    def next_strip(j, width):
        return width if j + lanes == width else min(j + lanes, width - lanes)

    @inlined
    def reduce(at, time, lane, t0, t1, width, product, end):
        j = 0
        while j < width:
            here = _moved(at, lane, j)
            P, R = fill(state, lanes, 1), fill(state, lanes, 0)
            for t in range(t0, t1):
                row = _moved(here, time, t)
                a = load(kind_a, lanes, space_a, row[A], lane[A])
                if backward:
                    a = a.conjugate()
                P, R = compose(P, R, a, load(kind_x, lanes, space_x, row[X], lane[X]))
            store(state, "unit", product + j * size, 0, P)
            store(state, "unit", end + j * size, 0, R)
            j = next_strip(j, width)

    @inlined
    def apply(at, time, lane, t0, t1, steps, width, states, ends):
        j = 0
        while j < width:
            here = _moved(at, lane, j)
            h = load(state, lanes, "unit", states + j * size, 0)
            t, stop = t0, t1
            if backward:  # the two steps at the ends are special
                if t == 0:
                    h = advance(here, lane, h, True, steps == 1, time[A])
                    t = 1
                stop = max(t, t1 - 1 if t1 == steps else t1)
            for k in range(t, stop):
                h = advance(_moved(here, time, k), lane, h, False, False, 0)
            if stop < t1:
                h = advance(_moved(here, time, stop), lane, h, False, True, time[A])
            store(state, "unit", ends + j * size, 0, h)
            j = next_strip(j, width)

    return reduce, apply


def _make_scan_lanes(kind, lanes):
    """An inclusive scan within a register: after it, lane i holds the maps 0 to i composed.

    Hillis and Steele (1986): log2(lanes) rounds, each composing with the lane 1, 2, 4, 8 below.
    """

    @inlined
    def scan_lanes(a, x):
        identity, zero = fill(kind, lanes, 1), fill(kind, lanes, 0)
        if lanes > 1:
            a, x = compose(shift(a, identity, 1), shift(x, zero, 1), a, x)
        if lanes > 2:
            a, x = compose(shift(a, identity, 2), shift(x, zero, 2), a, x)
        if lanes > 4:
            a, x = compose(shift(a, identity, 4), shift(x, zero, 4), a, x)
        if lanes > 8:
            a, x = compose(shift(a, identity, 8), shift(x, zero, 8), a, x)
        return a, x

    return scan_lanes


def _make_times(v, lanes):
    """Lanes over time: one column after the other, a register of consecutive steps at a time.

    A product of coefficients can overflow where the states do not (1e20 twice, from a zero
    state). Then the register is done step by step, as the serial loop would.
    """
    state, size, kind_a, kind_x = v.state, v.size, v.a, v.x
    backward, want_dx, want_da = v.backward, v.want_dx, v.want_da
    space_a, space_x, space_out, space_before, space_da = v.spacings
    scan_lanes = _make_scan_lanes(state, lanes)
    advance = _make_advance(v, 1)

    @inlined
    def reduce_column(at, time, t0, t1, P, R):
        t = t0
        while t < t1:
            row = _moved(at, time, t)
            if t + lanes <= t1:
                a = load(kind_a, lanes, space_a, row[A], time[A])
                if backward:
                    a = a.conjugate()
                x = load(kind_x, lanes, space_x, row[X], time[X])
                a, x = scan_lanes(a, x)
                if all_finite(a):
                    P, R = compose(P, R, broadcast(a, 1), broadcast(x, 1))
                    t += lanes
                    continue
            stop = min(t + lanes, t1)
            while t < stop:
                row = _moved(at, time, t)
                a = load(kind_a, 1, "same", row[A], 0)
                if backward:
                    a = a.conjugate()
                P, R = compose(P, R, a, load(kind_x, 1, "same", row[X], 0))
                t += 1
        return P, R

    @inlined
    def apply_column(at, time, t0, t1, steps, h):
        t = t0
        while t < t1:
            row = _moved(at, time, t)
            inside = not backward or (t > 0 and t + lanes < steps)
            if inside and t + lanes <= t1:
                a = load(kind_a, lanes, space_a, row[A], time[A])
                if backward:
                    a = a.conjugate()
                x = load(kind_x, lanes, space_x, row[X], time[X])
                a, x = scan_lanes(a, x)
                if all_finite(a):
                    states = step(a, x, broadcast(h, lanes))
                    if want_dx:
                        store(kind_x, space_out, row[OUT], time[OUT], states)
                    if backward and want_da:
                        before = load(kind_x, lanes, space_before, row[BEFORE], time[BEFORE])
                        da = coefficient_gradient(before, states)
                        store(kind_a, space_da, row[DA], time[DA], da)
                    h = broadcast(states, 1)
                    t += lanes
                    continue
            stop = min(t + (lanes if t > 0 else 1), t1)
            while t < stop:
                row = _moved(at, time, t)
                h = advance(row, time, h, t == 0, t == steps - 1, time[A])
                t += 1
        return h

    @inlined
    def reduce(at, time, lane, t0, t1, width, product, end):
        for j in range(width):
            P, R = fill(state, 1, 1), fill(state, 1, 0)
            P, R = reduce_column(_moved(at, lane, j), time, t0, t1, P, R)
            store(state, "unit", product + j * size, 0, P)
            store(state, "unit", end + j * size, 0, R)

    @inlined
    def apply(at, time, lane, t0, t1, steps, width, states, ends):
        for j in range(width):
            h = load(state, 1, "unit", states + j * size, 0)
            h = apply_column(_moved(at, lane, j), time, t0, t1, steps, h)
            store(state, "unit", ends + j * size, 0, h)

    return reduce, apply


@inlined
def _row(table, column):
    return (
        table[0, column],
        table[1, column],
        table[2, column],
        table[3, column],
        table[4, column],
        table[5, column],
        table[6, column],
    )


def groups_of(sizes: tuple[int, ...], width: int) -> int:
    """How many groups of ``width`` columns the column axes are cut into."""
    n2, n1, n0 = sizes
    return n2 * n1 * max(n0 // width, 1)


@functools.cache
def sweep_kernel(axis: str, lanes: int, backward: bool, kinds, spacings, wanted=(True, True)):
    """The compiled kernel of a variant. ``axis`` is what the lanes run over: "columns", "time".

    It is called as ``sweep(table, steps, n2, n1, n0, width, block, shared, carries)``: the operand
    table; the extents of time and of the column axes; columns a group (the last group of the inner
    axis takes what is left too, and none is narrower than the lanes) and steps a piece; int64
    zeros, one counter and one flag a piece; and the address of room for the carries of
    :func:`groups_of` groups, two widths each.
    """
    v = _Variant(backward, kinds, spacings, wanted)
    size, wanted_start = v.size, not backward
    begin, copy, carry_over, finite = _make_state_loops(v)
    reduce, apply = (_make_columns if axis == "columns" else _make_times)(v, lanes)

    @kernel(f"{axis} {lanes} {backward} {kinds} {spacings} {wanted}")
    def sweep(table, steps, n2, n1, n0, width, block, shared, carries):
        base, time, outer2, outer1, lane = (
            _row(table, 0),
            _row(table, 1),
            _row(table, 2),
            _row(table, 3),
            _row(table, 4),
        )
        strips = max(n0 // width, 1)
        groups = n2 * n1 * strips
        pieces = max((steps + block - 1) // block, 1)
        counter = shared.ctypes.data
        room = 2 * width * size
        scratch = np.empty(4 * room, np.uint8)
        product = scratch.ctypes.data
        end, states, ends = product + room, product + 2 * room, product + 3 * room
        while True:
            ticket = fetch_add(counter, 1)
            if ticket >= groups * pieces:
                break
            piece, group = ticket // groups, ticket % groups
            outer, strip = group // strips, group % strips
            at = _moved(base, outer2, outer // n1)
            at = _moved(at, outer1, outer % n1)
            at = _moved(at, lane, strip * width)
            count = width if strip + 1 < strips else n0 - strip * width
            t0, t1 = piece * block, min((piece + 1) * block, steps)
            here = carries + (group * pieces + piece) * room
            flag = counter + 8 * (1 + group * pieces + piece)
            passed_on = piece == pieces - 1
            if piece == 0:
                begin(states, at[START] if wanted_start else 0, lane[START], count)
            else:
                early = False
                if not passed_on:
                    reduce(at, time, lane, t0, t1, count, product, end)
                    early = finite(product, count)
                while load_acquire(flag - 8) == 0:
                    pass
                copy(states, here - room, count)
                if early:
                    carry_over(here, product, end, states, count)
                    store_release(flag, 1)
                    passed_on = True
            apply(at, time, lane, t0, t1, steps, count, states, ends)
            if not passed_on:
                copy(here, ends, count)
                store_release(flag, 1)

    return sweep
