"""The scan kernel for the CPU: a grid of columns x time, handed out to threads.

A *group* is a set of columns that one thread takes together, a *piece* a stretch of time of a
group. With one piece a group this is the serial algorithm, parallel over columns only. With more
it is Algorithm 1 of Martin and Cundy (2018), chained:

    time ->      piece 0          piece 1          piece 2
    group 0   reduce, apply -> reduce, apply -> reduce, apply      -> is the carry: the state
    group 1   reduce, apply -> reduce, apply -> reduce, apply         between two pieces

A thread takes the next piece from a shared counter, earlier times first. It reduces the piece to
a pair (P, R), waits for the carry of the piece before, passes its own carry P * carry + R on, and
then applies: runs the piece again, from the carry, and writes. Pieces are small enough to be still
in the cache then, so memory is read once. A thread waits only for pieces that were taken earlier,
and the result does not depend on how many threads there are.

**States that are not finite.** A product P may overflow where the states do not, may be zero by
underflow, of which an infinite state would become NaN, and takes a coefficient of exactly zero,
which forgets NaN and infinity (:mod:`lrscan.core.algebra`), for a number as any other. None of them
gives a finite carry; a piece without one passes on the state that it has applied its steps to. Nor
do the steps ask for zeros while they are applied. They never lead from a state that is not finite
to one that is; so where the last is not finite, they are applied again, one by one, and ask.

Bytes moved an element, float32: 12 forward (a, x, h), 20 backward (a, dh, h, dx, da).
"""

from __future__ import annotations

import functools

from lrscan.core.sweep import Rows
from lrscan.cpu.compile import kernel
from lrscan.cpu.lanes_over_time import make_times
from lrscan.cpu.memory import fence, fetch_add, load_acquire, store_release
from lrscan.cpu.steps import (
    DSTART,
    START,
    A,
    Variant,
    X,
    inlined,
    make_apply_again,
    make_states,
    moved,
    slots_of,
)
from lrscan.cpu.strips import make_rows, make_strips

_TABLE = 5 * len(Rows._fields)
HEAD = _TABLE + 9


@inlined
def _number(address, index):
    return load_acquire(address + 8 * index)


@inlined
def _entries(address, column):
    """A column of the operand table: what it says of every row."""
    return (
        _number(address, column),
        _number(address, column + 5),
        _number(address, column + 10),
        _number(address, column + 15),
        _number(address, column + 20),
        _number(address, column + 25),
        _number(address, column + 30),
    )


@inlined
def _steps_apart(strides):
    """Strides over time: START and DSTART have none."""
    return strides[0], strides[1], 0, strides[3], strides[4], strides[5], 0


@inlined
def _sequences_apart(strides):
    """Strides from one of several sequences to the next, which START and DSTART alone have."""
    return 0, 0, strides[START], 0, 0, 0, strides[DSTART]


@inlined
def _sequence_of(t, cu, sequences):
    """The sequence that step t belongs to."""
    low, high = 0, sequences
    while high - low > 1:
        middle = (low + high) // 2
        if _number(cu, middle) <= t:
            low = middle
        else:
            high = middle
    return low


@inlined
def _first_step(base, outer2, outer1, lane, group, across, n1, width):
    """The addresses of a group's first column at the first step."""
    outer, nth = group // across, group % across
    at = moved(moved(base, outer2, outer // n1), outer1, outer % n1)
    return moved(at, lane, nth * width)


def groups_of(sizes: tuple[int, ...], width: int) -> int:
    """How many groups of ``width`` columns the column axes are cut into."""
    n2, n1, n0 = sizes
    return n2 * n1 * max(n0 // width, 1)


def workspace_bytes(
    sizes: tuple[int, ...], width: int, strip: int, state: int, threads: int
) -> int:
    """Room for the states of every thread and two carries of every group, ``state`` bytes each."""
    n2, n1, n0 = sizes
    return state * (threads * 3 * 2 * width + 2 * n2 * n1 * (n0 + strip)) + 64


@functools.cache
def sweep_kernel(
    order: str, lanes: int, strip: int, backward: bool, kinds, spacings, wanted=(True, True)
):
    """The compiled kernel of a variant.

    ``order`` is that in which the elements of a piece are visited: "strips" and "rows" of columns
    (:mod:`lrscan.cpu.strips`), or "times" (:mod:`lrscan.cpu.lanes_over_time`). A strip is so many
    columns carried together: as many as there are lanes, if those are not consecutive "times".

    It is called as ``sweep(address)``, on every thread that takes part, with the address of int64
    numbers: the operand table (:mod:`lrscan.cpu.steps`); steps, then the extents of the column
    axes; columns a group (the last group of the inner axis takes what is left too, and none is
    narrower than a strip); steps a piece; threads; how many sequences lie end to end, and the
    address of the steps where they begin, with the end of the last; zeros: two counters and, for
    each of :func:`groups_of` groups, how many of its carries are there; and room for
    :func:`workspace_bytes`.
    """
    v = Variant(backward, kinds, spacings, wanted)
    size, wanted_start = v.size, not backward
    begin, copy, carry_over, finite = make_states(v, strip)
    apply_again = make_apply_again(v.one_by_one if order == "times" else v, strip)
    if order == "times":
        reduce, apply = make_times(v, lanes, strip)
    else:
        reduce, apply = (make_rows if order == "rows" else make_strips)(v, strip)

    direction = "backward" if backward else "forward"
    variant = f"{order} {lanes} {strip} {backward} {kinds} {spacings} {wanted}"

    @kernel(variant, f"for {kinds[1]}, {direction}, by {order}")
    def sweep(address):
        base, time, apart, outer2, outer1, lane = (
            _entries(address, 0),
            _steps_apart(_entries(address, 1)),
            _sequences_apart(_entries(address, 1)),
            _entries(address, 2),
            _entries(address, 3),
            _entries(address, 4),
        )
        steps = _number(address, _TABLE)
        n2, n1, n0 = (
            _number(address, _TABLE + 1),
            _number(address, _TABLE + 2),
            _number(address, _TABLE + 3),
        )
        width, block, threads, sequences, cu = (
            _number(address, _TABLE + 4),
            _number(address, _TABLE + 5),
            _number(address, _TABLE + 6),
            _number(address, _TABLE + 7),
            _number(address, _TABLE + 8),
        )
        across = max(n0 // width, 1)
        groups = n2 * n1 * across
        pieces = max((steps + block - 1) // block, 1)
        counter = address + 8 * HEAD
        done = counter + 16
        room = 2 * width * size
        carries = (done + 8 * groups + 63) // 64 * 64
        product = carries + 2 * size * n2 * n1 * (n0 + strip)
        product += 3 * room * fetch_add(counter + 8, 1)
        end, states = product + room, product + 2 * room
        while True:
            ticket = fetch_add(counter, 1)
            if ticket >= groups * pieces:
                break
            piece, group = ticket // groups, ticket % groups
            outer, nth = group // across, group % across
            at = _first_step(base, outer2, outer1, lane, group, across, n1, width)
            # What this thread will probably do next is fetched from memory meanwhile.
            likely = ticket + threads if pieces > 1 else ticket
            ahead = _first_step(base, outer2, outer1, lane, likely % groups, across, n1, width)
            ahead = moved(ahead, time, (likely // groups - piece) * block)
            count = width if nth + 1 < across else n0 - nth * width
            t0, t1 = piece * block, min((piece + 1) * block, steps)
            # Two carries a group take turns: one is written when the other has been read.
            before = carries + 2 * size * (outer * (n0 + strip) + nth * width)
            here = before + size * slots_of(count, strip)
            if piece % 2 == 0:
                before, here = here, before
            last = _sequence_of(t1 - 1, cu, sequences)
            inside = _number(cu, last) >= t0  # a sequence begins in this piece
            passed_on = piece == pieces - 1
            if piece > 0:
                if not passed_on:
                    cut = max(t0, _number(cu, last))
                    reduce(at, time, lane, cut, t1, inside, count, product, end)
                while load_acquire(done + 8 * group) < piece:
                    pass
                copy(states, before, count)
                if not passed_on:
                    if inside:
                        h0 = at[START] + last * apart[START] if wanted_start else 0
                        begin(states, h0, lane[START], count)
                    passed_on = carry_over(here, product, end, states, count)
                    copy(states, before, count)
                    if passed_on:  # the next piece but one may write to ``before`` from now on
                        store_release(done + 8 * group, piece + 1)
            kept = product  # which is not needed any more
            t, n = t0, _sequence_of(t0, cu, sequences)
            while t < t1:
                opens = _number(cu, n) == t
                stop = min(_number(cu, n + 1), t1)
                own = moved(at, apart, n)
                h0 = own[START] if wanted_start else 0
                if opens:
                    begin(states, h0, lane[START], count)
                else:
                    copy(kept, states, count)
                closes = _number(cu, n + 1) == stop
                following = ahead[A], ahead[X]
                apply(own, following, time, lane, t, stop, opens, closes, count, states)
                if not finite(states, count):
                    if opens:
                        begin(states, h0, lane[START], count)
                    else:
                        copy(states, kept, count)
                    apply_again(own, time, lane, t, stop, opens, closes, count, states)
                t = stop
                n += 1
                while n < sequences and _number(cu, n + 1) == t:  # an empty one
                    n += 1
            if not passed_on:
                copy(here, states, count)
                store_release(done + 8 * group, piece + 1)
        fence()

    return sweep
