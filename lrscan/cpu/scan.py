"""The scan kernel for the CPU: a grid of columns x time, handed out to threads.

A *group* is a set of columns that one thread takes together, a *chunk* consecutive steps, and a
*tile* a chunk of a group. With one chunk this is the serial algorithm, parallel over columns only.
With more it is Algorithm 1 of Martin and Cundy (2018), chained:

    time ->  chunk 0          chunk 1                        chunk 2
    group 0  apply, leave ->  reduce, wait, pass, apply  ->  wait, apply      -> is the carry: the
    group 1  apply, leave ->  reduce, wait, pass, apply  ->  wait, apply         state between two

A thread takes the next tile from a shared counter, earlier times first. It reduces the tile to a
map (P, R), waits for the carry of the chunk before, passes its own carry P * carry + R on, and then
applies: runs the tile again, from the carry, and writes. The first chunk waits for nothing: it
applies at once, and leaves its state to the next. The last has nobody to pass a carry to. Tiles are
small enough to be still in the cache then, so memory is read once. A thread waits only for tiles
that were taken earlier, and the result does not depend on how many threads there are.

**States that are not finite.** Of an algebra that is guarded (:mod:`lrscan.core.algebra`): P or R
may overflow where the states do not, P may be zero by underflow, of which an infinite state would
become NaN, and it takes a coefficient of exactly zero, which forgets NaN and infinity, for a number
as any other. None of these gives a finite carry; a tile without one leaves the state that it has
applied its steps to. Nor do the steps ask for zeros while they are applied. They never lead from a
state that is not finite to one that is; so where the last is not finite, they are applied again,
one by one, and ask.

A P that underflows where the state is finite does give a finite carry, which differs from the
loop's: 1e38 through two coefficients of 1e-23 is 1e-8, through their product 0. That is accepted as
rounding is: the product is wrong by less than the smallest normal number, the carry by that times
the state and the coefficients that come after.

Bytes moved per element, float32: 12 forward (a, x, h), 20 backward (a, dh, h, dx, da).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cpu.compile import inlined, kernel
from lrscan.cpu.lanes_over_time import make_times
from lrscan.cpu.memory import (
    LINE,
    fence,
    fetch_add,
    int64_at,
    load_acquire,
    reader,
    store_release,
)
from lrscan.cpu.steps import (
    Inputs,
    Recipe,
    Section,
    make_apply_again,
    make_states,
    moved,
    slots_of,
)
from lrscan.cpu.strips import make_rows, make_strips
from lrscan.cpu.structures import INT64_BYTES, offset_of
from lrscan.cpu.task import Task

_read_task = reader(Task)
_TAKEN, _ARRIVED = offset_of(Task, "taken"), offset_of(Task, "arrived")
# From one lane to the next, in what the spacings of :func:`lrscan.cpu.memory.load` count.
_SPACED = {"unit": 1, "mirror": -1, "same": 0}
# By the name of an order, what makes of a recipe (reduce, apply), functions of a Section:
#
#   reduce(section, P_at, R_at)    reads its inputs; writes the maps (P, R) of all its steps, strip
#                                  after strip, to these addresses; does not look at ``closes``
#   apply(section, ahead, states)  takes its steps from the states at an address, which become those
#                                  after it; reads its inputs, writes its outputs; meanwhile fetches
#                                  the inputs ``ahead``, see _Tile
_ORDERS = {"strips": make_strips, "rows": make_rows, "times": make_times}


class _Room(NamedTuple):
    """Addresses of what a thread has for itself, see :class:`lrscan.cpu.task.Places`."""

    P: int
    R: int
    states: int


class _Tile(NamedTuple):
    """A chunk of a group.

    at          addresses of the group's first column at the first step of all
    ahead       where a and x are read next, probably: ahead.a + t * time.a, for a step t of this
                tile, is the same step of the tile that this thread will take then
    columns     of the group
    chunk       which of the group's
    t0, t1      its steps, from t0 up to t1
    last_chunk  whether it is the last one
    done        address of the number of the group's carries that are there
    carry_in    address of the carry that leads into the tile
    carry_out   address of the one that leads out of it
    """

    at: Rows
    ahead: Inputs
    columns: int
    chunk: int
    t0: int
    t1: int
    last_chunk: bool
    done: int
    carry_in: int
    carry_out: int


@inlined
def _over_steps(strides):
    """Of strides over time, those from one step to the next: start and dstart have none."""
    return Rows(strides.a, strides.x, 0, strides.out, strides.before, strides.da, 0)


@inlined
def _over_sequences(strides):
    """Of strides over time, those from one sequence to the next: only start and dstart have any."""
    return Rows(0, 0, strides.start, 0, 0, 0, strides.dstart)


def _make_strides(recipe):
    """(over time, over columns): functions of a task's strides.

    Along the lanes, most strides follow from the spacings that the kernel is made for. As constants
    they take no multiplications, in the loop over the steps of "times" and the strips of "rows".
    "strips" adds a stride over time in its inner loop, and gains nothing.
    """
    values_apart = recipe.strip if recipe.order == "times" else 1

    def along_lanes(row):
        """(whether the stride is known, the stride)"""
        spacing = getattr(recipe.spacings, row).split(" ")[0]
        size = described(recipe.a if row in ("a", "da") else recipe.x).size
        return spacing in _SPACED, _SPACED.get(spacing, 0) * values_apart * size

    (known_a, a), (known_x, x) = along_lanes("a"), along_lanes("x")
    (known_out, out), (known_da, da) = along_lanes("out"), along_lanes("da")
    known_before, before = along_lanes("before")
    of_time, of_columns = recipe.order == "times", recipe.order == "rows"

    @inlined
    def known_or(given):
        return Rows(
            a=a if known_a else given.a,
            x=x if known_x else given.x,
            start=given.start,
            out=out if known_out else given.out,
            before=before if known_before else given.before,
            da=da if known_da else given.da,
            dstart=given.dstart,
        )

    @inlined
    def over_time(strides):
        time = _over_steps(strides.time)
        return known_or(time) if of_time else time

    @inlined
    def over_columns(strides):
        return known_or(strides.inner) if of_columns else strides.inner

    return over_time, over_columns


@inlined
def _sequence_of(t, call):
    """The sequence that step t belongs to."""
    low, high = 0, call.sequences
    while high - low > 1:
        middle = (low + high) // 2
        if int64_at(call.cu_seqlens, middle) <= t:
            low = middle
        else:
            high = middle
    return low


@inlined
def _group_address(task, group):
    """The addresses of a group's first column at the first step."""
    strides = task.strides
    outer, nth = group // task.across, group % task.across
    at = moved(task.call.first, strides.outer2, outer // task.n1)
    at = moved(at, strides.outer1, outer % task.n1)
    return moved(at, strides.inner, nth * task.width)


@inlined
def _aligned(address):
    return (address + LINE - 1) // LINE * LINE


@inlined
def _take_room(task, address):
    """The room of a thread that has just come."""
    places = task.places
    own = _aligned(address) + places.rooms
    own += places.room * fetch_add(address + _ARRIVED, 1)
    return _Room(own + places.P, own + places.R, own + places.states)


def _make_tile(recipe):
    """Which tile is meant by its number: all groups' first chunks, then all second ones, ..."""
    size, strip = described(recipe.state_kind).size, recipe.strip

    @inlined
    def tile_of(task, address, number):
        across, groups = task.across, task.groups
        chunk, group = number // groups, number % groups
        outer, nth = group // across, group % across
        # What this thread will probably do next is fetched from memory meanwhile. With one chunk it
        # is the tile itself: one that is all of time may be larger than the cache, so nothing more
        # is fetched.
        likely = number + task.threads if task.chunks > 1 else number
        later, time = (likely // groups - chunk) * task.chunk, task.strides.time
        ahead = _group_address(task, likely % groups)
        ahead = Inputs(ahead.a + later * time.a, ahead.x + later * time.x)
        columns = task.width if nth + 1 < across else task.n0 - nth * task.width
        t0, t1 = chunk * task.chunk, min((chunk + 1) * task.chunk, task.steps)
        # Two carries per group take turns: even chunks read slot 1 and write slot 0, odd ones read
        # slot 0 and write slot 1. Chunk c has copied the one it reads before it sets done = c + 1;
        # only then does chunk c + 1 write over it.
        carry_in = _aligned(address) + task.places.carries
        carry_in += 2 * size * (outer * (task.n0 + strip) + nth * task.width)
        carry_out = carry_in + size * slots_of(columns, strip)
        if chunk % 2 == 0:
            carry_in, carry_out = carry_out, carry_in
        return _Tile(
            at=_group_address(task, group),
            ahead=ahead,
            columns=columns,
            chunk=chunk,
            t0=t0,
            t1=t1,
            last_chunk=chunk == task.chunks - 1,
            done=address + task.places.done + INT64_BYTES * group,
            carry_in=carry_in,
            carry_out=carry_out,
        )

    return tile_of


def _make_carry(recipe, reduce):
    """(enter, leave): bring the state to a tile, and past it."""
    wanted_start = not recipe.backward
    initial_states, copy, carry_over, _ = make_states(recipe, recipe.strip)
    over_time, over_columns = _make_strides(recipe)

    @inlined
    def enter(task, tile, room):
        """Wait for the carry into a tile, and pass on the one out of it.

        Reads the tile's inputs, from the last sequence that begins in it, and the carry in; writes
        room.states, and the carry out. Returns whether the tile still has to leave that: where what
        P and R make of the carry is not to be believed.
        """
        call, apart = task.call, over_columns(task.strides)
        sequence = _sequence_of(tile.t1 - 1, call)  # the last one in the tile
        began = int64_at(call.cu_seqlens, sequence)
        opens = began >= tile.t0  # a sequence begins in this tile
        if not tile.last_chunk:
            section = Section(
                at=tile.at,
                over_time=over_time(task.strides),
                over_columns=apart,
                columns=tile.columns,
                t0=max(tile.t0, began),
                t1=tile.t1,
                opens=opens,
                closes=False,  # which reduce does not look at
            )
            reduce(section, room.P, room.R)
        while load_acquire(tile.done) < tile.chunk:
            pass
        passed_on = True
        if not tile.last_chunk:
            carry = tile.carry_in
            if opens:
                carry = room.states
                own = moved(tile.at, _over_sequences(task.strides.time), sequence)
                h0 = own.start if wanted_start else 0
                initial_states(carry, h0, apart.start, tile.columns)
            passed_on = carry_over(tile.carry_out, room.P, room.R, carry, tile.columns)
        copy(room.states, tile.carry_in, tile.columns)
        if passed_on and not tile.last_chunk:  # from now on the next chunk may write to carry_in
            store_release(tile.done, tile.chunk + 1)
        return not passed_on

    @inlined
    def leave(tile, room):
        """Pass on room.states, which are those after the tile's steps."""
        copy(tile.carry_out, room.states, tile.columns)
        store_release(tile.done, tile.chunk + 1)

    return enter, leave


def _make_apply_tile(recipe, apply):
    """Take all steps of a tile."""
    wanted_start, guarded = not recipe.backward, recipe.algebra.guarded
    initial_states, copy, _, finite = make_states(recipe, recipe.strip)
    over_time, over_columns = _make_strides(recipe)
    one_by_one = recipe.one_by_one if recipe.order == "times" else recipe
    apply_again = make_apply_again(one_by_one, recipe.strip)

    @inlined
    def apply_tile(task, tile, room):
        """Reads the tile's inputs and room.states; writes its outputs, and the states after it.

        Sequence after sequence: each begins with its own h0, backward with zero, but one that began
        before the tile with the state there.
        """
        call, strides = task.call, task.strides
        cu_seqlens, columns, apart = call.cu_seqlens, tile.columns, over_columns(strides)
        kept = room.P  # the room of P, which is not needed any more: the states before a section
        t, n = tile.t0, _sequence_of(tile.t0, call)
        while t < tile.t1:
            end = int64_at(cu_seqlens, n + 1)
            stop = min(end, tile.t1)
            own = moved(tile.at, _over_sequences(strides.time), n)
            h0 = own.start if wanted_start else 0
            opens = int64_at(cu_seqlens, n) == t
            section = Section(
                at=own,
                over_time=over_time(strides),
                over_columns=apart,
                columns=columns,
                t0=t,
                t1=stop,
                opens=opens,
                closes=end == stop,
            )
            if opens:
                initial_states(room.states, h0, apart.start, columns)
            elif guarded:
                copy(kept, room.states, columns)
            apply(section, tile.ahead, room.states)
            if guarded:
                if not finite(room.states, columns):
                    if opens:
                        initial_states(room.states, h0, apart.start, columns)
                    else:
                        copy(room.states, kept, columns)
                    apply_again(section, room.states)
            t = stop
            n += 1
            while n < call.sequences and int64_at(cu_seqlens, n + 1) == t:  # an empty one
                n += 1

    return apply_tile


@functools.cache
def sweep_kernel(recipe: Recipe) -> int:
    """The address of the compiled kernel that a recipe makes.

    It is called as ``sweep(address)``, on every thread that takes part, with the address of a
    :class:`lrscan.cpu.task.Task`. Tiles are taken in this order, of three groups, each by whichever
    thread is free:

        time ->  chunk 0   chunk 1   chunk 2
        group 0     0         3         6
        group 1     1         4         7
        group 2     2         5         8
    """
    reduce, apply = _ORDERS[recipe.order](recipe)
    tile_of = _make_tile(recipe)
    enter, leave = _make_carry(recipe, reduce)
    apply_tile = _make_apply_tile(recipe, apply)
    direction = "backward" if recipe.backward else "forward"

    @kernel(recipe.key, f"for {recipe.x}, {direction}, by {recipe.order}")
    def sweep(address):
        task = _read_task(address)
        room = _take_room(task, address)
        while True:
            number = fetch_add(address + _TAKEN, 1)
            if number >= task.groups * task.chunks:
                break
            tile = tile_of(task, address, number)
            owes_carry = not tile.last_chunk
            if tile.chunk > 0:
                owes_carry = enter(task, tile, room)
            apply_tile(task, tile, room)
            if owes_carry:
                leave(tile, room)
        fence()

    return sweep
