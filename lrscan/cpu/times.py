"""Lanes over time: consecutive steps of one column in one register, where time lies side by side.

(reduce, apply) of :mod:`lrscan.cpu.kernels`, one column after the other.
"""

from __future__ import annotations

from lrscan.cpu.memory import load, prefetch, store
from lrscan.cpu.steps import (
    BEFORE,
    DA,
    OUT,
    A,
    X,
    bytes_of,
    coefficient_gradient,
    compose,
    inlined,
    make_advance,
    moved,
    step,
)
from lrscan.cpu.vector import all_finite, broadcast, fill, shift


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


def _make_aligned(v, lanes):
    """Whether the outputs of the next ``lanes`` steps may be written past the cache."""
    row, spacing = (OUT, v.spacings[2]) if v.want_dx else (DA, v.spacings[4])
    streamed, mirrored = spacing.endswith("stream"), spacing.startswith("mirror")
    element = bytes_of(v.x if v.want_dx else v.a)

    @inlined
    def aligned(at):
        if not streamed:
            return True
        lowest = at[row]
        if mirrored:
            lowest -= (lanes - 1) * element
        return lowest % (lanes * element) == 0

    return aligned


def make_times(v, lanes):
    """Lanes over time: one column after the other, a register of consecutive steps at a time.

    A product of coefficients can overflow where the states do not (1e20 twice, from a zero
    state). Then the register is done step by step, as the serial loop would.
    """
    state, size, kind_a, kind_x = v.state, v.size, v.a, v.x
    backward, want_dx, want_da = v.backward, v.want_dx, v.want_da
    space_a, space_x, space_out, space_before, space_da = v.spacings
    scan_lanes = _make_scan_lanes(state, lanes)
    aligned = _make_aligned(v, lanes)
    advance = make_advance(v.one_by_one(), 1)

    @inlined
    def reduce_column(at, time, t0, t1, P, R):
        t = t0
        while t < t1:
            row = moved(at, time, t)
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
                row = moved(at, time, t)
                a = load(kind_a, 1, "same", row[A], 0)
                if backward:
                    a = a.conjugate()
                P, R = compose(P, R, a, load(kind_x, 1, "same", row[X], 0))
                t += 1
        return P, R

    @inlined
    def apply_column(at, ahead, time, t0, t1, opens, closes, h):
        t = t0
        while t < t1:
            row = moved(at, time, t)
            stop = t + 1
            inside = not backward or not (opens and t == t0 or closes and t + lanes >= t1)
            if inside and t + lanes <= t1 and aligned(row):
                prefetch(ahead[0] + t * time[A])
                prefetch(ahead[1] + t * time[X])
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
                stop = t + lanes
            while t < stop:
                row = moved(at, time, t)
                first, last = opens and t == t0, closes and t == t1 - 1
                h = advance(row, time, h, first, last, time[A])
                t += 1
        return h

    @inlined
    def reduce(at, time, lane, t0, t1, opens, width, product, end):
        for j in range(width):
            P, R = fill(state, 1, 1), fill(state, 1, 0)
            here, t = moved(at, lane, j), t0
            if backward and opens:  # no coefficient leads to the first step
                R = load(kind_x, 1, "same", here[X] + t * time[X], 0)
                t += 1
            P, R = reduce_column(here, time, t, t1, P, R)
            store(state, "unit", product + j * size, 0, P)
            store(state, "unit", end + j * size, 0, R)

    @inlined
    def apply(at, ahead, time, lane, t0, t1, opens, closes, width, states):
        for j in range(width):
            h = load(state, 1, "unit", states + j * size, 0)
            here = moved(at, lane, j)
            following = ahead[0] + here[A] - at[A], ahead[1] + here[X] - at[X]
            h = apply_column(here, following, time, t0, t1, opens, closes, h)
            store(state, "unit", states + j * size, 0, h)

    return reduce, apply
