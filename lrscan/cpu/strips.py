"""Lanes over columns: neighbouring columns in one register, for an inner axis of columns.

Two orders of the same work, both (reduce, apply) of :mod:`lrscan.cpu.scan`:

    strips   strip after strip, each through all steps of the tile, its states in registers
    rows     step after step, each through all strips, the states in memory (that is, in L1)

             strips                      rows
             strip 0   1   2             strip 0   1   2
    step 0         1   4   7             step 0    1   2   3
    step 1         2   5   8             step 1    4   5   6
    step 2         3   6   9             step 2    7   8   9

Rows read whole stretches of memory, which the processor fetches ahead; strips have no more work
a step than the arithmetic, which is best for few columns.
"""

from __future__ import annotations

from lrscan.cpu.compile import inlined
from lrscan.cpu.memory import prefetch
from lrscan.cpu.steps import (
    compiled,
    first_column,
    make_advance,
    make_identity,
    make_inputs,
    make_slots,
    moved,
    strips_of,
)


def _make_reduce_steps(recipe, lanes):
    """(begin, first_step, reduce_step): the map of a strip's steps, one after the other."""
    backward, compose = recipe.backward, compiled(recipe.algebra).compose
    coefficient, directed, impulse = make_inputs(recipe, lanes)
    identity = make_identity(recipe, lanes)

    @inlined
    def begin(at, column, opens):
        """The map before the first step; after it, where a backward sequence opens with it."""
        P, R = identity()
        if backward and opens:  # no coefficient leads here
            R = impulse(at.x, column.x)
        return P, R

    @inlined
    def first_step(section):
        """The step that comes after :func:`begin`."""
        return section.t0 + 1 if backward and section.opens else section.t0

    @inlined
    def reduce_step(at, column, P, R):
        a = directed(coefficient(at.a, column.a))
        return compose(P, R, a, impulse(at.x, column.x))

    return begin, first_step, reduce_step


def make_strips(recipe):
    """(reduce, apply), strip after strip."""
    return _make_reduce_strips(recipe, recipe.lanes), _make_apply_strips(recipe, recipe.lanes)


def make_rows(recipe):
    """(reduce, apply), step after step."""
    return _make_reduce_rows(recipe, recipe.lanes), _make_apply_rows(recipe, recipe.lanes)


def _make_reduce_strips(recipe, lanes):
    begin, first_step, reduce_step = _make_reduce_steps(recipe, lanes)
    _, write_product = make_slots(recipe.coefficient, lanes)
    _, write_end = make_slots(recipe.state, lanes)

    @inlined
    def reduce(section, product, end):
        """Read the inputs of a section; write the maps of its steps, strip after strip."""
        for s in range(strips_of(section.columns, lanes)):
            here = moved(section.at, section.column, first_column(s, section.columns, lanes))
            P, R = begin(moved(here, section.time, section.t0), section.column, section.opens)
            for t in range(first_step(section), section.t1):
                P, R = reduce_step(moved(here, section.time, t), section.column, P, R)
            write_product(product, s, P)
            write_end(end, s, R)

    return reduce


def _make_apply_strips(recipe, lanes):
    backward = recipe.backward
    read, write = make_slots(recipe.state, lanes)
    advance = make_advance(recipe, lanes)

    @inlined
    def apply(section, ahead, states):
        """Take the steps of a section from the states, which become those after it.

        ``ahead``, the inputs that will be read next, are fetched meanwhile.
        """
        no, yes = bool(0), bool(1)  # Numba would compile what is called for each literal anew
        time, column, t0, t1 = section.time, section.column, section.t0, section.t1
        for s in range(strips_of(section.columns, lanes)):
            here = moved(section.at, column, first_column(s, section.columns, lanes))
            h = read(states, s)
            t, stop = t0, t1
            if backward:  # the two steps at the ends are special
                if section.opens:
                    last = section.closes and t1 - t0 == 1
                    h = advance(moved(here, time, t0), column, h, yes, last, time.a, no)
                    t += 1
                stop = max(t, t1 - 1 if section.closes else t1)
            next_a, next_x = ahead.a + here.a - section.at.a, ahead.x + here.x - section.at.x
            for k in range(t, stop):
                prefetch(next_a + k * time.a)
                prefetch(next_x + k * time.x)
                h = advance(moved(here, time, k), column, h, no, no, time.a, no)
            if backward and stop < t1:
                h = advance(moved(here, time, stop), column, h, no, yes, time.a, no)
            write(states, s, h)

    return apply


def _make_reduce_rows(recipe, lanes):
    begin, first_step, reduce_step = _make_reduce_steps(recipe, lanes)
    read_product, write_product = make_slots(recipe.coefficient, lanes)
    read_end, write_end = make_slots(recipe.state, lanes)

    @inlined
    def reduce(section, product, end):
        """Read the inputs of a section; write the maps of its steps, strip after strip."""
        columns, column = section.columns, section.column
        row = moved(section.at, section.time, section.t0)
        for s in range(strips_of(columns, lanes)):
            here = moved(row, column, first_column(s, columns, lanes))
            P, R = begin(here, column, section.opens)
            write_product(product, s, P)
            write_end(end, s, R)
        for t in range(first_step(section), section.t1):
            row = moved(section.at, section.time, t)
            for s in range(strips_of(columns, lanes)):
                here = moved(row, column, first_column(s, columns, lanes))
                P, R = reduce_step(here, column, read_product(product, s), read_end(end, s))
                write_product(product, s, P)
                write_end(end, s, R)

    return reduce


def _make_apply_rows(recipe, lanes):
    backward = recipe.backward
    read, write = make_slots(recipe.state, lanes)
    advance = make_advance(recipe, lanes)

    @inlined
    def advance_end(row, column, columns, states, first, last, a_next):
        """The first or the last step of a backward sequence, in all columns."""
        for s in range(strips_of(columns, lanes)):
            here = moved(row, column, first_column(s, columns, lanes))
            h = advance(here, column, read(states, s), first, last, a_next, bool(0))
            write(states, s, h)

    @inlined
    def apply(section, ahead, states):
        """Take the steps of a section from the states, which become those after it.

        ``ahead``, the inputs that will be read next, are fetched meanwhile.
        """
        no, yes = bool(0), bool(1)  # Numba would compile what is called for each literal anew
        time, column, columns, t0, t1 = (
            section.time,
            section.column,
            section.columns,
            section.t0,
            section.t1,
        )
        t, stop = t0, t1
        if backward:
            if section.opens:
                row = moved(section.at, time, t0)
                only = section.closes and t1 - t0 == 1
                advance_end(row, column, columns, states, yes, only, time.a)
                t += 1
            stop = max(t, t1 - 1 if section.closes else t1)
        for k in range(t, stop):
            row = moved(section.at, time, k)
            next_a, next_x = ahead.a + k * time.a, ahead.x + k * time.x
            for s in range(strips_of(columns, lanes)):
                c = first_column(s, columns, lanes)
                prefetch(next_a + c * column.a)
                prefetch(next_x + c * column.x)
                h = advance(moved(row, column, c), column, read(states, s), no, no, time.a, no)
                write(states, s, h)
        if backward and stop < t1:
            advance_end(moved(section.at, time, stop), column, columns, states, no, yes, time.a)

    return apply
