"""Lanes over time: consecutive steps in one register, if they are adjacent in memory.

A register holds steps of one column. If a step has only a few columns, it holds steps of all of
them, which are a *strip*. With 8 lanes and two columns p and q::

    lane         0    1    2    3    4    5    6    7
    holds       p0   q0   p1   q1   p2   q2   p3   q3       steps 0 to 3

    register 0: steps 0 to 3  ->  register 1: steps 4 to 7  ->  ...      each enters with the
                                                                         state that the last left

This module provides (reduce, apply) as described at ``lrscan.cpu.scan._ORDERS``, one strip after
the other. Both scan within a register, which composes the maps of its steps. For a guarded algebra,
a composition may overflow in two ways that the serial loop does not meet:

- A product overflows where the states do not: 1e20 times 1e20, from a zero state. apply checks the
  products, and then does this register step by step.
- A sum overflows, of inputs that the loop never adds: 3e38 and 3e38, from a state of -3e38. A state
  computed from such a sum is not finite. If any state is not, apply gives NaN as the last state,
  and the steps of the section are taken again, one by one, as after any state that is not finite.

reduce checks neither. A map that overflowed leads to no finite carry, and is not used.
"""

from __future__ import annotations

import math

from lrscan.core.algebra import alike
from lrscan.core.dtypes import described
from lrscan.cpu.compile import inlined
from lrscan.cpu.memory import load, prefetch, store, stream_alignment
from lrscan.cpu.steps import (
    Inputs,
    compiled,
    first_column,
    make_advance,
    make_identity,
    make_inputs,
    make_slots,
    moved,
    strips_of,
)
from lrscan.cpu.vector import all_finite, constant, repeat_last, shift, with_trace


def make_times(recipe):
    """Return (reduce, apply): strip after strip, a register of consecutive steps at a time."""
    return _make_reduce(recipe), _make_apply(recipe)


def _make_scan_lanes(recipe):
    """Return an inclusive scan within a register: after it, step i holds the maps 0 to i composed.

    It is the scan of Hillis and Steele (1986). Each round doubles the distance: a step composes
    with the step 1, 2, 4, 8 before it. The distance in lanes is ``strip`` times that in steps.
    """
    lanes = recipe.lanes
    assert lanes <= 16 * recipe.strip, "four rounds are enough for 16 steps"
    one, two, four, eight = (steps * recipe.strip for steps in (1, 2, 4, 8))
    compose = compiled(recipe.algebra).compose
    identity = make_identity(recipe, lanes)

    @inlined
    def scan_lanes(a, x):
        P, R = identity()
        if lanes > one:
            a, x = compose(shift(a, P, one), shift(x, R, one), a, x)
        if lanes > two:
            a, x = compose(shift(a, P, two), shift(x, R, two), a, x)
        if lanes > four:
            a, x = compose(shift(a, P, four), shift(x, R, four), a, x)
        if lanes > eight:
            a, x = compose(shift(a, P, eight), shift(x, R, eight), a, x)
        return a, x

    return scan_lanes


def _make_reduce(recipe):
    lanes, strip, backward = recipe.lanes, recipe.strip, recipe.backward
    count = lanes // strip  # steps in a register
    compose = compiled(recipe.algebra).compose
    read_coefficients, directed, read_inputs = make_inputs(recipe, lanes)
    read_coefficient, _, read_input = make_inputs(recipe.one_by_one, strip)
    scan_lanes, identity = _make_scan_lanes(recipe), make_identity(recipe, strip)
    _, write_P = make_slots(recipe.coefficient_kind, strip)
    _, write_R = make_slots(recipe.state_kind, strip)

    @inlined
    def reduce_strip(at, over_time, t, t1, P, R):
        """Return the map (P, R) followed by the steps from t up to t1 of the strip at ``at``."""
        while t + count <= t1:
            at_step = moved(at, over_time, t)
            a = directed(read_coefficients(at_step.a, over_time.a))
            a, x = scan_lanes(a, read_inputs(at_step.x, over_time.x))
            P, R = compose(P, R, repeat_last(a, strip, strip), repeat_last(x, strip, strip))
            t += count
        while t < t1:
            at_step = moved(at, over_time, t)
            a = directed(read_coefficient(at_step.a, 0))
            P, R = compose(P, R, a, read_input(at_step.x, 0))
            t += 1
        return P, R

    @inlined
    def reduce(section, P_at, R_at):
        for s in range(strips_of(section.columns, strip)):
            P, R = identity()
            here = moved(section.at, section.over_columns, first_column(s, section.columns, strip))
            t = section.t0
            if backward and section.opens:  # as in seed() of lrscan.cpu.strips
                R = read_input(here.x + t * section.over_time.x, 0)
                t += 1
            P, R = reduce_strip(here, section.over_time, t, section.t1, P, R)
            write_P(P_at, s, P)
            write_R(R_at, s, R)

    return reduce


def _make_may_write(recipe):
    """Return a function that checks whether a register of outputs may be written at an address.

    It may be written anywhere, except that writes that bypass the cache must be aligned.
    """
    writes_out, spacings = recipe.writes_out, recipe.spacings
    kind, spacing = (recipe.x, spacings.out) if writes_out else (recipe.a, spacings.da)
    streamed, size = spacing.endswith("stream"), described(kind).size
    boundary = stream_alignment(size, recipe.lanes)
    below = (recipe.lanes - recipe.strip) * size if spacing.startswith("mirror") else 0

    @inlined
    def may_write(at):
        if not streamed:
            return True
        lowest = (at.out if writes_out else at.da) - below
        return lowest % boundary == 0

    return may_write


def _make_write_register(recipe):
    """Return a function that writes the states of a register and the gradients at a."""
    kind_a, kind_x, lanes, spacings = recipe.a, recipe.x, recipe.lanes, recipe.spacings
    space_out, space_before, space_da = spacings.out, spacings.before, spacings.da
    writes_out, writes_da = recipe.writes_out, recipe.backward and recipe.writes_da
    coefficient_gradient = compiled(recipe.algebra).coefficient_gradient

    @inlined
    def write_register(at, over_time, states):
        before = states  # gives Numba the type
        if writes_da:  # read before anything is written, see apply_strip
            before = load(kind_x, lanes, space_before, at.before, over_time.before)
        if writes_out:
            store(kind_x, space_out, at.out, over_time.out, states)
        if writes_da:
            store(kind_a, space_da, at.da, over_time.da, coefficient_gradient(before, states))

    return write_register


def _make_apply(recipe):
    lanes, strip, backward = recipe.lanes, recipe.strip, recipe.backward
    count = lanes // strip  # steps in a register
    step = compiled(recipe.algebra).step
    read_coefficients, directed, read_inputs = make_inputs(recipe, lanes)
    scan_lanes, guarded = _make_scan_lanes(recipe), recipe.algebra.guarded
    identity, may_write = make_identity(recipe, lanes), _make_may_write(recipe)
    write_register = _make_write_register(recipe)
    advance = make_advance(recipe.one_by_one, strip)
    read, write = make_slots(recipe.state_kind, strip)
    nan = constant(recipe.state_kind, strip, alike(math.nan, recipe.algebra.state_numbers))

    @inlined
    def apply_steps(section, here, t, stop, h):
        """Return the state after the steps from t up to stop, taken one by one."""
        while t < stop:
            first, last = section.opens and t == section.t0, section.closes and t == section.t1 - 1
            at = moved(here, section.over_time, t)
            h = advance(at, section.over_columns, h, first, last, section.over_time.a, bool(0))
            t += 1
        return h

    @inlined
    def apply_strip(section, here, ahead, h):
        """Return the state of a strip after the section's steps.

        It is NaN if any state in a register is not finite.
        """
        # Processors first compare a load with earlier stores by the last 12 bits of the addresses.
        # Large tensors often agree in those. The next load would then wait for a store to another
        # tensor. So the next register is read before this one is written.
        over_time, t, t1 = section.over_time, section.t0, section.t1
        alike, end = t, t1  # the steps without special treatment: backward, both ends need it
        if backward:
            alike, end = t + 1 if section.opens else t, t1 - 1 if section.closes else t1
        # Whether a_held has the coefficients at t. The identity only gives Numba the types.
        held, (a_held, trace) = False, identity()
        while t < t1:
            at_step = moved(here, over_time, t)
            stop = t + 1
            inside = not backward or alike <= t
            if inside and t + count <= end and may_write(at_step):
                prefetch(ahead.a + t * over_time.a)
                prefetch(ahead.x + t * over_time.x)
                a = a_held if held else read_coefficients(at_step.a, over_time.a)
                held = backward and t + 2 * count <= t1
                if held:
                    a_held = read_coefficients(at_step.a + count * over_time.a, over_time.a)
                a, x = scan_lanes(directed(a), read_inputs(at_step.x, over_time.x))
                if not guarded or all_finite(a):
                    states = step(a, x, repeat_last(h, strip, lanes))
                    write_register(at_step, over_time, states)
                    if guarded:  # all_finite() takes two instructions more
                        trace = with_trace(trace, states)
                    h = repeat_last(states, strip, strip)
                    t += count
                    continue
                stop = t + count
            held = False
            h = apply_steps(section, here, t, stop, h)
            t = stop
        if guarded and not all_finite(trace):
            h = nan()
        return h

    @inlined
    def apply(section, ahead, states):
        for s in range(strips_of(section.columns, strip)):
            here = moved(section.at, section.over_columns, first_column(s, section.columns, strip))
            following = Inputs(ahead.a + here.a - section.at.a, ahead.x + here.x - section.at.x)
            write(states, s, apply_strip(section, here, following, read(states, s)))

    return apply
