"""Lanes over time: consecutive steps in one register, where they lie side by side.

A register holds steps of one column, or of a *strip* of a few columns if those are all there are
of a step: with two columns p and q, lanes p0 q0 p1 q1 p2 q2 and so on.

(reduce, apply) of :mod:`lrscan.cpu.scan`, one strip after the other.
"""

from __future__ import annotations

from lrscan.core.dtypes import KINDS
from lrscan.cpu.memory import load, prefetch, store
from lrscan.cpu.steps import (
    BEFORE,
    DA,
    OUT,
    A,
    X,
    coefficient_gradient,
    compose,
    first_column,
    inlined,
    make_advance,
    moved,
    step,
    strips_of,
)
from lrscan.cpu.vector import all_finite, fill, repeat_last, shift


def _make_scan_lanes(kind, lanes, strip):
    """An inclusive scan within a register: after it, step i holds the maps 0 to i composed.

    Hillis and Steele (1986): a round for each doubling, composing with the step 1, 2, 4, 8 before,
    which is ``strip`` times as many lanes below.
    """
    one, two, four, eight = (k * strip for k in (1, 2, 4, 8))

    @inlined
    def scan_lanes(a, x):
        identity, zero = fill(kind, lanes, 1), fill(kind, lanes, 0)
        if lanes > one:
            a, x = compose(shift(a, identity, one), shift(x, zero, one), a, x)
        if lanes > two:
            a, x = compose(shift(a, identity, two), shift(x, zero, two), a, x)
        if lanes > four:
            a, x = compose(shift(a, identity, four), shift(x, zero, four), a, x)
        if lanes > eight:
            a, x = compose(shift(a, identity, eight), shift(x, zero, eight), a, x)
        return a, x

    return scan_lanes


def _make_aligned(v, lanes, strip):
    """Whether the outputs of the next register may be written past the cache."""
    row, spacing = (OUT, v.spacings[2]) if v.want_dx else (DA, v.spacings[4])
    streamed, mirrored = spacing.endswith("stream"), spacing.startswith("mirror")
    element = KINDS[v.x if v.want_dx else v.a].size

    @inlined
    def aligned(at):
        if not streamed:
            return True
        lowest = at[row]
        if mirrored:
            lowest -= (lanes - strip) * element
        return lowest % (lanes * element) == 0

    return aligned


def make_times(v, lanes, strip):
    """One strip of columns after the other, a register of consecutive steps at a time.

    A product of coefficients can overflow where the states do not (1e20 twice, from a zero
    state). Then the register is done step by step, as the serial loop would.
    """
    state, size, kind_a, kind_x = v.state, v.size, v.a, v.x
    backward, want_dx, want_da = v.backward, v.want_dx, v.want_da
    space_a, space_x, space_out, space_before, space_da = v.spacings
    count = lanes // strip  # steps in a register
    bytes_a_strip = strip * size
    scan_lanes = _make_scan_lanes(state, lanes, strip)
    aligned = _make_aligned(v, lanes, strip)
    advance = make_advance(v.one_by_one, strip)

    @inlined
    def reduce_strip(at, time, t0, t1, P, R):
        t = t0
        while t < t1:
            row = moved(at, time, t)
            if t + count <= t1:
                a = load(kind_a, lanes, space_a, row[A], time[A])
                if backward:
                    a = a.conjugate()
                x = load(kind_x, lanes, space_x, row[X], time[X])
                a, x = scan_lanes(a, x)
                if all_finite(a):
                    a, x = repeat_last(a, strip, strip), repeat_last(x, strip, strip)
                    P, R = compose(P, R, a, x)
                    t += count
                    continue
            stop = min(t + count, t1)
            while t < stop:
                row = moved(at, time, t)
                a = load(kind_a, strip, "unit", row[A], 0)
                if backward:
                    a = a.conjugate()
                P, R = compose(P, R, a, load(kind_x, strip, "unit", row[X], 0))
                t += 1
        return P, R

    @inlined
    def advance_to(at, time, lane, t, t0, t1, opens, closes, h):
        """The state after step t of those from t0 up to t1."""
        first, last = opens and t == t0, closes and t == t1 - 1
        return advance(moved(at, time, t), lane, h, first, last, time[A], bool(0))

    @inlined
    def apply_strip(at, ahead, time, lane, t0, t1, opens, closes, h):
        # Processors tell a load from the stores before it by the last 12 bits of the address first.
        # Large tensors often begin alike in those, and then what is read next would wait for what
        # has just been written beside it. So it is read before that.
        t, held, a_held = t0, False, fill(state, lanes, 1)
        while t < t1:
            row = moved(at, time, t)
            stop = t + 1
            inside = not backward or not (opens and t == t0 or closes and t + count >= t1)
            if inside and t + count <= t1 and aligned(row):
                prefetch(ahead[0] + t * time[A])
                prefetch(ahead[1] + t * time[X])
                a = a_held if held else load(kind_a, lanes, space_a, row[A], time[A])
                held = backward and t + 2 * count <= t1
                if held:
                    a_held = load(kind_a, lanes, space_a, row[A] + count * time[A], time[A])
                if backward:
                    a = a.conjugate()
                x = load(kind_x, lanes, space_x, row[X], time[X])
                a, x = scan_lanes(a, x)
                if all_finite(a):
                    states = step(a, x, repeat_last(h, strip, lanes))
                    before = x
                    if backward and want_da:
                        before = load(kind_x, lanes, space_before, row[BEFORE], time[BEFORE])
                    if want_dx:
                        store(kind_x, space_out, row[OUT], time[OUT], states)
                    if backward and want_da:
                        da = coefficient_gradient(before, states)
                        store(kind_a, space_da, row[DA], time[DA], da)
                    h = repeat_last(states, strip, strip)
                    t += count
                    continue
                stop = t + count
            held = False
            while t < stop:
                h = advance_to(at, time, lane, t, t0, t1, opens, closes, h)
                t += 1
        return h

    @inlined
    def reduce(at, time, lane, t0, t1, opens, width, product, end):
        for s in range(strips_of(width, strip)):
            P, R = fill(state, strip, 1), fill(state, strip, 0)
            here, t = moved(at, lane, first_column(s, width, strip)), t0
            if backward and opens:  # no coefficient leads to the first step
                R = load(kind_x, strip, "unit", here[X] + t * time[X], 0)
                t += 1
            P, R = reduce_strip(here, time, t, t1, P, R)
            store(state, "unit", product + s * bytes_a_strip, 0, P)
            store(state, "unit", end + s * bytes_a_strip, 0, R)

    @inlined
    def apply(at, ahead, time, lane, t0, t1, opens, closes, width, states):
        for s in range(strips_of(width, strip)):
            h = load(state, strip, "unit", states + s * bytes_a_strip, 0)
            here = moved(at, lane, first_column(s, width, strip))
            following = ahead[0] + here[A] - at[A], ahead[1] + here[X] - at[X]
            h = apply_strip(here, following, time, lane, t0, t1, opens, closes, h)
            store(state, "unit", states + s * bytes_a_strip, 0, h)

    return reduce, apply
