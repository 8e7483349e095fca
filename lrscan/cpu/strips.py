"""Lanes over columns: neighbouring columns in one register, for an inner axis of columns.

There are two orders of the same work. Both provide (reduce, apply) as described at
``lrscan.cpu.scan._ORDERS``::

    strips   strip after strip, each through all steps of the tile, its states in registers
    rows     step after step, each through all strips, the states in memory (that is, in L1)

             strips                      rows
             strip 0   1   2             strip 0   1   2
    step 0         1   4   7             step 0    1   2   3
    step 1         2   5   8             step 1    4   5   6
    step 2         3   6   9             step 2    7   8   9

Rows read long stretches of memory, which the processor prefetches. Strips keep their states in
registers, so a step is arithmetic only. That is best for few columns.
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
    """Return (seed, after_seed, reduce_step), which compose the steps of a strip to a map."""
    backward, compose = recipe.backward, compiled(recipe.algebra).compose
    read_coefficient, directed, read_input = make_inputs(recipe, lanes)
    identity = make_identity(recipe, lanes)

    @inlined
    def seed(at, over_columns, opens):
        """Return the map before the first step; or after it, if it opens a backward sequence.

        No coefficient leads to such a step. Its map has P = 1 and R = dh. That is right because the
        state before it, where no gradient has arrived yet, is zero.
        """
        P, R = identity()
        if backward and opens:
            R = read_input(at.x, over_columns.x)
        return P, R

    @inlined
    def after_seed(section):
        """Return the first step that is not in the map of seed()."""
        return section.t0 + 1 if backward and section.opens else section.t0

    @inlined
    def reduce_step(at, over_columns, P, R):
        a = directed(read_coefficient(at.a, over_columns.a))
        return compose(P, R, a, read_input(at.x, over_columns.x))

    return seed, after_seed, reduce_step


def make_strips(recipe):
    """Return (reduce, apply) in the order "strips"."""
    return _make_reduce_strips(recipe, recipe.lanes), _make_apply_strips(recipe, recipe.lanes)


def make_rows(recipe):
    """Return (reduce, apply) in the order "rows"."""
    return _make_reduce_rows(recipe, recipe.lanes), _make_apply_rows(recipe, recipe.lanes)


def _make_reduce_strips(recipe, lanes):
    seed, after_seed, reduce_step = _make_reduce_steps(recipe, lanes)
    _, write_P = make_slots(recipe.coefficient_kind, lanes)
    _, write_R = make_slots(recipe.state_kind, lanes)

    @inlined
    def reduce(section, P_at, R_at):
        for s in range(strips_of(section.columns, lanes)):
            here = moved(section.at, section.over_columns, first_column(s, section.columns, lanes))
            P, R = seed(
                moved(here, section.over_time, section.t0), section.over_columns, section.opens
            )
            for t in range(after_seed(section), section.t1):
                P, R = reduce_step(moved(here, section.over_time, t), section.over_columns, P, R)
            write_P(P_at, s, P)
            write_R(R_at, s, R)

    return reduce


def _make_apply_strips(recipe, lanes):
    backward = recipe.backward
    read, write = make_slots(recipe.state_kind, lanes)
    advance = make_advance(recipe, lanes)

    @inlined
    def apply(section, ahead, states):
        no, yes = bool(0), bool(1)  # with literals, Numba would compile advance() for each
        over_time, over_columns, t0, t1 = (
            section.over_time,
            section.over_columns,
            section.t0,
            section.t1,
        )
        for s in range(strips_of(section.columns, lanes)):
            here = moved(section.at, over_columns, first_column(s, section.columns, lanes))
            h = read(states, s)
            t, stop = t0, t1
            if backward:  # the first and the last step need special treatment
                if section.opens:
                    last = section.closes and t1 - t0 == 1
                    h = advance(
                        moved(here, over_time, t0), over_columns, h, yes, last, over_time.a, no
                    )
                    t += 1
                stop = max(t, t1 - 1 if section.closes else t1)
            next_a, next_x = ahead.a + here.a - section.at.a, ahead.x + here.x - section.at.x
            for k in range(t, stop):
                prefetch(next_a + k * over_time.a)
                prefetch(next_x + k * over_time.x)
                h = advance(moved(here, over_time, k), over_columns, h, no, no, over_time.a, no)
            if backward and stop < t1:
                h = advance(moved(here, over_time, stop), over_columns, h, no, yes, over_time.a, no)
            write(states, s, h)

    return apply


def _make_reduce_rows(recipe, lanes):
    seed, after_seed, reduce_step = _make_reduce_steps(recipe, lanes)
    read_P, write_P = make_slots(recipe.coefficient_kind, lanes)
    read_R, write_R = make_slots(recipe.state_kind, lanes)

    @inlined
    def reduce(section, P_at, R_at):
        columns, over_columns = section.columns, section.over_columns
        at_step = moved(section.at, section.over_time, section.t0)
        for s in range(strips_of(columns, lanes)):
            here = moved(at_step, over_columns, first_column(s, columns, lanes))
            P, R = seed(here, over_columns, section.opens)
            write_P(P_at, s, P)
            write_R(R_at, s, R)
        for t in range(after_seed(section), section.t1):
            at_step = moved(section.at, section.over_time, t)
            for s in range(strips_of(columns, lanes)):
                here = moved(at_step, over_columns, first_column(s, columns, lanes))
                P, R = reduce_step(here, over_columns, read_P(P_at, s), read_R(R_at, s))
                write_P(P_at, s, P)
                write_R(R_at, s, R)

    return reduce


def _make_apply_rows(recipe, lanes):
    backward = recipe.backward
    read, write = make_slots(recipe.state_kind, lanes)
    advance = make_advance(recipe, lanes)

    @inlined
    def advance_end(at_step, over_columns, columns, states, first, last, a_stride):
        """Take the first or the last step of a backward sequence, in all columns."""
        for s in range(strips_of(columns, lanes)):
            here = moved(at_step, over_columns, first_column(s, columns, lanes))
            h = advance(here, over_columns, read(states, s), first, last, a_stride, bool(0))
            write(states, s, h)

    @inlined
    def apply(section, ahead, states):
        no, yes = bool(0), bool(1)  # with literals, Numba would compile advance() for each
        over_time, over_columns, columns, t0, t1 = (
            section.over_time,
            section.over_columns,
            section.columns,
            section.t0,
            section.t1,
        )
        t, stop = t0, t1
        if backward:
            if section.opens:
                at_step = moved(section.at, over_time, t0)
                only = section.closes and t1 - t0 == 1
                advance_end(at_step, over_columns, columns, states, yes, only, over_time.a)
                t += 1
            stop = max(t, t1 - 1 if section.closes else t1)
        for k in range(t, stop):
            at_step = moved(section.at, over_time, k)
            next_a, next_x = ahead.a + k * over_time.a, ahead.x + k * over_time.x
            for s in range(strips_of(columns, lanes)):
                c = first_column(s, columns, lanes)
                prefetch(next_a + c * over_columns.a)
                prefetch(next_x + c * over_columns.x)
                h = advance(
                    moved(at_step, over_columns, c),
                    over_columns,
                    read(states, s),
                    no,
                    no,
                    over_time.a,
                    no,
                )
                write(states, s, h)
        if backward and stop < t1:
            advance_end(
                moved(section.at, over_time, stop),
                over_columns,
                columns,
                states,
                no,
                yes,
                over_time.a,
            )

    return apply
