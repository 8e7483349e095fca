"""Lanes over time: consecutive steps in one register, where they lie side by side.

A register holds steps of one column, or of a *strip* of a few columns if those are all there are
of a step. With 8 lanes and two columns p and q:

    lane         0    1    2    3    4    5    6    7
    holds       p0   q0   p1   q1   p2   q2   p3   q3       steps 0 to 3

    register 0: steps 0 to 3  ->  register 1: steps 4 to 7  ->  ...      each enters with the
                                                                         state that the last left

(reduce, apply) of :mod:`lrscan.cpu.scan`, one strip after the other. Both scan within a register,
which composes the maps of its steps. A product of coefficients can overflow where the states do
not (1e20 twice, from a zero state), and so can a sum of inputs that the serial loop never adds
(3e38 twice, from a state of -3e38). No state computed from either is finite, so where one is not,
the register is done step by step, as the serial loop would. To reduce is to compute no states, so
there nothing is looked at: a map that overflowed leads to no finite carry, and is not used.
"""

from __future__ import annotations

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
from lrscan.cpu.vector import all_finite, repeat_last, shift


def make_times(recipe):
    """(reduce, apply), one strip after the other, a register of consecutive steps at a time."""
    return _make_reduce(recipe), _make_apply(recipe)


def _make_scan_lanes(recipe):
    """An inclusive scan within a register: after it, step i holds the maps 0 to i composed.

    Hillis and Steele (1986): a round for each doubling, composing with the step 1, 2, 4, 8 before,
    which is ``strip`` times as many lanes below.
    """
    lanes = recipe.lanes
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
    coefficients, directed, impulses = make_inputs(recipe, lanes)
    coefficient, _, impulse = make_inputs(recipe.one_by_one, strip)
    scan_lanes, identity = _make_scan_lanes(recipe), make_identity(recipe, strip)
    _, write_product = make_slots(recipe.coefficient, strip)
    _, write_end = make_slots(recipe.state, strip)

    @inlined
    def reduce_strip(at, time, t, t1, P, R):
        """The map (P, R), and then the steps from t up to t1 of the strip at an address."""
        while t + count <= t1:
            row = moved(at, time, t)
            a = directed(coefficients(row.a, time.a))
            a, x = scan_lanes(a, impulses(row.x, time.x))
            P, R = compose(P, R, repeat_last(a, strip, strip), repeat_last(x, strip, strip))
            t += count
        while t < t1:
            row = moved(at, time, t)
            a = directed(coefficient(row.a, 0))
            P, R = compose(P, R, a, impulse(row.x, 0))
            t += 1
        return P, R

    @inlined
    def reduce(section, product, end):
        """Read the inputs of a section; write the maps of its steps, strip after strip."""
        for s in range(strips_of(section.columns, strip)):
            P, R = identity()
            here = moved(section.at, section.column, first_column(s, section.columns, strip))
            t = section.t0
            if backward and section.opens:  # no coefficient leads to the first step
                R = impulse(here.x + t * section.time.x, 0)
                t += 1
            P, R = reduce_strip(here, section.time, t, section.t1, P, R)
            write_product(product, s, P)
            write_end(end, s, R)

    return reduce


def _make_aligned(recipe):
    """Whether the outputs of the next register may be written past the cache."""
    writes_out, spacings = recipe.writes_out, recipe.spacings
    kind, spacing = (recipe.x, spacings.out) if writes_out else (recipe.a, spacings.da)
    streamed, size = spacing.endswith("stream"), described(kind).size
    boundary = stream_alignment(size, recipe.lanes)
    below = (recipe.lanes - recipe.strip) * size if spacing.startswith("mirror") else 0

    @inlined
    def aligned(at):
        if not streamed:
            return True
        lowest = (at.out if writes_out else at.da) - below
        return lowest % boundary == 0

    return aligned


def _make_write_register(recipe):
    """Write the outputs of a register: the states, and the gradients at its coefficients."""
    kind_a, kind_x, lanes, spacings = recipe.a, recipe.x, recipe.lanes, recipe.spacings
    space_out, space_before, space_da = spacings.out, spacings.before, spacings.da
    writes_out, writes_da = recipe.writes_out, recipe.backward and recipe.writes_da
    coefficient_gradient = compiled(recipe.algebra).coefficient_gradient

    @inlined
    def write_register(at, time, states):
        before = states
        if writes_da:  # read before anything is written, see apply_strip
            before = load(kind_x, lanes, space_before, at.before, time.before)
        if writes_out:
            store(kind_x, space_out, at.out, time.out, states)
        if writes_da:
            store(kind_a, space_da, at.da, time.da, coefficient_gradient(before, states))

    return write_register


def _make_apply(recipe):
    lanes, strip, backward = recipe.lanes, recipe.strip, recipe.backward
    count = lanes // strip  # steps in a register
    step = compiled(recipe.algebra).step
    coefficients, directed, impulses = make_inputs(recipe, lanes)
    scan_lanes, guarded = _make_scan_lanes(recipe), recipe.algebra.guarded
    identity, aligned = make_identity(recipe, lanes), _make_aligned(recipe)
    write_register = _make_write_register(recipe)
    advance = make_advance(recipe.one_by_one, strip)
    read, write = make_slots(recipe.state, strip)

    @inlined
    def apply_steps(section, here, t, stop, h):
        """The state after the steps from t up to stop, one by one."""
        while t < stop:
            first, last = section.opens and t == section.t0, section.closes and t == section.t1 - 1
            at = moved(here, section.time, t)
            h = advance(at, section.column, h, first, last, section.time.a, bool(0))
            t += 1
        return h

    @inlined
    def apply_strip(section, here, ahead, h):
        """The state after the section's steps, of the strip that lies here."""
        # Processors tell a load from the stores before it by the last 12 bits of the address first.
        # Large tensors often begin alike in those, and then what is read next would wait for what
        # has just been written beside it. So it is read before that.
        time, t, t1 = section.time, section.t0, section.t1
        begin, end = t, t1  # of steps that are alike: backward, those at both ends are special
        if backward:
            begin, end = t + 1 if section.opens else t, t1 - 1 if section.closes else t1
        held, (a_held, _) = False, identity()
        while t < t1:
            row = moved(here, time, t)
            stop = t + 1
            inside = not backward or begin <= t
            if inside and t + count <= end and aligned(row):
                prefetch(ahead.a + t * time.a)
                prefetch(ahead.x + t * time.x)
                a = a_held if held else coefficients(row.a, time.a)
                held = backward and t + 2 * count <= t1
                if held:
                    a_held = coefficients(row.a + count * time.a, time.a)
                a, x = scan_lanes(directed(a), impulses(row.x, time.x))
                states = step(a, x, repeat_last(h, strip, lanes))
                if not guarded or all_finite(states):
                    write_register(row, time, states)
                    h = repeat_last(states, strip, strip)
                    t += count
                    continue
                stop = t + count
            held = False
            h = apply_steps(section, here, t, stop, h)
            t = stop
        return h

    @inlined
    def apply(section, ahead, states):
        """Take the steps of a section from the states, which become those after it.

        ``ahead``, the inputs that will be read next, are fetched meanwhile.
        """
        for s in range(strips_of(section.columns, strip)):
            here = moved(section.at, section.column, first_column(s, section.columns, strip))
            following = Inputs(ahead.a + here.a - section.at.a, ahead.x + here.x - section.at.x)
            write(states, s, apply_strip(section, here, following, read(states, s)))

    return apply
