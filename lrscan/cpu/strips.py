"""Lanes over columns: neighbouring columns in one register, for an inner axis of columns.

Two orders of the same work, both (reduce, apply) of :mod:`lrscan.cpu.scan`:

    strips   strip after strip, each through all of the piece, its states in registers
    rows     step after step, each through all strips, the states in memory (that is, in L1)

Rows read whole stretches of memory, which the processor fetches ahead; strips have no more work
a step than the arithmetic, which is best for few columns.
"""

from __future__ import annotations

from lrscan.cpu.memory import load, prefetch, store
from lrscan.cpu.steps import A, X, compose, first_column, inlined, make_advance, moved, strips_of
from lrscan.cpu.vector import fill


def _make_parts(v, lanes):
    """(begin, reduce_step, advance): what both orders do to one strip in one step."""
    kind_a, kind_x, state, backward = v.a, v.x, v.state, v.backward
    space_a, space_x = v.spacings[:2]

    @inlined
    def begin(at, lane, opens):
        """The pair before the first step of a piece; after it, if it opens a backward sequence."""
        P, R = fill(state, lanes, 1), fill(state, lanes, 0)
        if backward and opens:  # no coefficient leads here
            R = load(kind_x, lanes, space_x, at[X], lane[X])
        return P, R

    @inlined
    def reduce_step(at, lane, P, R):
        a = load(kind_a, lanes, space_a, at[A], lane[A])
        if backward:
            a = a.conjugate()
        return compose(P, R, a, load(kind_x, lanes, space_x, at[X], lane[X]))

    return begin, reduce_step, make_advance(v, lanes)


def make_strips(v, lanes):
    """(reduce, apply), strip after strip."""
    state, backward = v.state, v.backward
    bytes_a_strip = lanes * v.size
    begin, reduce_step, advance = _make_parts(v, lanes)

    @inlined
    def reduce(at, time, lane, t0, t1, opens, width, product, end):
        for s in range(strips_of(width, lanes)):
            here = moved(at, lane, first_column(s, width, lanes))
            P, R = begin(moved(here, time, t0), lane, opens)
            for t in range(t0 + 1 if backward and opens else t0, t1):
                P, R = reduce_step(moved(here, time, t), lane, P, R)
            store(state, "unit", product + s * bytes_a_strip, 0, P)
            store(state, "unit", end + s * bytes_a_strip, 0, R)

    @inlined
    def apply(at, ahead, time, lane, t0, t1, opens, closes, width, states):
        no, yes = bool(0), bool(1)  # Numba would compile what is called for each literal anew
        for s in range(strips_of(width, lanes)):
            here = moved(at, lane, first_column(s, width, lanes))
            h = load(state, lanes, "unit", states + s * bytes_a_strip, 0)
            t, stop = t0, t1
            if backward:  # the two steps at the ends are special
                if opens:
                    last = closes and t1 - t0 == 1
                    h = advance(moved(here, time, t0), lane, h, yes, last, time[A], no)
                    t += 1
                stop = max(t, t1 - 1 if closes else t1)
            next_a, next_x = ahead[0] + here[A] - at[A], ahead[1] + here[X] - at[X]
            for k in range(t, stop):
                prefetch(next_a + k * time[A])
                prefetch(next_x + k * time[X])
                h = advance(moved(here, time, k), lane, h, no, no, time[A], no)
            if backward and stop < t1:
                h = advance(moved(here, time, stop), lane, h, no, yes, time[A], no)
            store(state, "unit", states + s * bytes_a_strip, 0, h)

    return reduce, apply


def make_rows(v, lanes):
    """(reduce, apply), step after step."""
    state, backward = v.state, v.backward
    bytes_a_strip = lanes * v.size
    begin, reduce_step, advance = _make_parts(v, lanes)

    @inlined
    def reduce(at, time, lane, t0, t1, opens, width, product, end):
        row = moved(at, time, t0)
        for s in range(strips_of(width, lanes)):
            P, R = begin(moved(row, lane, first_column(s, width, lanes)), lane, opens)
            store(state, "unit", product + s * bytes_a_strip, 0, P)
            store(state, "unit", end + s * bytes_a_strip, 0, R)
        for t in range(t0 + 1 if backward and opens else t0, t1):
            row = moved(at, time, t)
            for s in range(strips_of(width, lanes)):
                P = load(state, lanes, "unit", product + s * bytes_a_strip, 0)
                R = load(state, lanes, "unit", end + s * bytes_a_strip, 0)
                here = moved(row, lane, first_column(s, width, lanes))
                P, R = reduce_step(here, lane, P, R)
                store(state, "unit", product + s * bytes_a_strip, 0, P)
                store(state, "unit", end + s * bytes_a_strip, 0, R)

    @inlined
    def advance_end(row, lane, width, states, first, last, a_next):
        for s in range(strips_of(width, lanes)):
            h = load(state, lanes, "unit", states + s * bytes_a_strip, 0)
            here = moved(row, lane, first_column(s, width, lanes))
            h = advance(here, lane, h, first, last, a_next, bool(0))
            store(state, "unit", states + s * bytes_a_strip, 0, h)

    @inlined
    def apply(at, ahead, time, lane, t0, t1, opens, closes, width, states):
        no, yes = bool(0), bool(1)  # Numba would compile what is called for each literal anew
        t, stop = t0, t1
        if backward:
            if opens:
                row = moved(at, time, t0)
                only = closes and t1 - t0 == 1
                advance_end(row, lane, width, states, yes, only, time[A])
                t += 1
            stop = max(t, t1 - 1 if closes else t1)
        for k in range(t, stop):
            row = moved(at, time, k)
            next_a, next_x = ahead[0] + k * time[A], ahead[1] + k * time[X]
            for s in range(strips_of(width, lanes)):
                column = first_column(s, width, lanes)
                prefetch(next_a + column * lane[A])
                prefetch(next_x + column * lane[X])
                h = load(state, lanes, "unit", states + s * bytes_a_strip, 0)
                h = advance(moved(row, lane, column), lane, h, no, no, time[A], no)
                store(state, "unit", states + s * bytes_a_strip, 0, h)
        if backward and stop < t1:
            advance_end(moved(at, time, stop), lane, width, states, no, yes, time[A])

    return reduce, apply
