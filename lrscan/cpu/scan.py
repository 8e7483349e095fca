"""The scan kernel for the CPU: a grid of columns x time, distributed to threads.

A *group* is a set of columns that one thread takes together. A *chunk* is a number of consecutive
steps. A *tile* is a chunk of a group. With one chunk this is the serial algorithm, parallel over
columns only. With more chunks it is Algorithm 1 of Martin and Cundy (2018), chained::

    time ->  chunk 0          chunk 1                        chunk 2
    group 0  apply, leave ->  reduce, wait, pass, apply  ->  wait, apply      -> is the carry: the
    group 1  apply, leave ->  reduce, wait, pass, apply  ->  wait, apply         state between two

A thread takes the next tile from a shared counter, earlier times first. It reduces the tile to a
map (P, R), waits for the carry of the chunk before, and passes on its own carry P * carry + R. Then
it applies: it runs the tile again, from the carry, and writes the outputs. The first chunk does not
wait. It applies at once, and passes its last state on. The last chunk passes nothing on. A tile is
small enough to stay in the cache between its two runs, so memory is read once. A thread waits only
for tiles that were taken earlier. The result does not depend on the number of threads.

**States that are not finite.** This concerns a guarded algebra (:mod:`lrscan.core.algebra`). The
map (P, R) can be wrong in three ways. P or R may overflow where the states do not. P may underflow
to zero, which turns an infinite state into NaN. And a coefficient of exactly zero, which forgets
NaN and infinity, is multiplied like any other number. In all three cases the carry is not finite.
The tile then passes on the state after applying its steps.

Steps are first applied without a test for zeros, too. They never lead from a state that is not
finite to one that is. So if the last state is not finite, they are applied again, one by one, with
the test.

If P underflows while the state is finite, the carry is finite, but differs from that of the loop:
1e38 through two coefficients of 1e-23 is 1e-8, but through their product it is 0. This is accepted,
like rounding. The product is wrong by less than the smallest normal number. The carry is wrong by
that number times the state and the coefficients after it.

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
# Distance from one lane to the next in values, by spacing (see lrscan.cpu.memory.load).
_SPACED = {"unit": 1, "mirror": -1, "same": 0}
# For each order, the function that makes (reduce, apply) from a recipe. Both work on a Section:
#
#   reduce(section, P_at, R_at)    reads the inputs, and writes the maps (P, R) of all steps, strip
#                                  after strip, to these addresses; ignores ``closes``
#   apply(section, ahead, states)  takes the steps from the states at an address, and replaces these
#                                  by the states afterwards; reads the inputs, writes the outputs,
#                                  and prefetches the inputs ``ahead``, see _Tile
_ORDERS = {"strips": make_strips, "rows": make_rows, "times": make_times}


class _Room(NamedTuple):
    """Addresses in the scratch memory of a thread, see :class:`lrscan.cpu.task.Places`."""

    P: int
    R: int
    states: int


class _Tile(NamedTuple):
    """A chunk of a group.

    Attributes:
        at: addresses of the group's first column at step 0
        ahead: addresses for prefetching. For a step t of this tile, ahead.a + t * time.a is the
            same step of the tile that this thread will probably take next
        columns: number of columns in the group
        chunk: number of the chunk within the group
        t0, t1: the steps from t0 up to t1
        last_chunk: whether it is the last chunk
        done: address of the number of carries that the group has finished
        carry_in: address of the carry into the tile
        carry_out: address of the carry out of the tile
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
    """Return the strides from one step to the next: zero for start and dstart."""
    return Rows(strides.a, strides.x, 0, strides.out, strides.before, strides.da, 0)


@inlined
def _over_sequences(strides):
    """Return the strides from one sequence to the next: zero for all but start and dstart."""
    return Rows(0, 0, strides.start, 0, 0, 0, strides.dstart)


def _make_strides(recipe):
    """Return (over_time, over_columns), functions of a task's strides.

    Along the lanes, most strides follow from the spacings that the kernel is built for. As
    constants they save multiplications: for "times" in the loop over steps, for "rows" in that over
    strips. The inner loop of "strips" only adds a stride over time, so constants gain nothing.
    """
    values_apart = recipe.strip if recipe.order == "times" else 1

    def along_lanes(row):
        """Return (whether the stride is known, the stride)."""
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
    """Return the number of the sequence that step t belongs to."""
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
    """Return the addresses of a group's first column at step 0."""
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
    """Return the scratch memory of the thread that calls this. Each thread calls it once."""
    places = task.places
    own = _aligned(address) + places.rooms
    own += places.room * fetch_add(address + _ARRIVED, 1)
    return _Room(own + places.P, own + places.R, own + places.states)


def _make_tile(recipe):
    """Return a function from the number of a tile to the tile.

    Tiles are numbered chunk by chunk: the first chunks of all groups, then the second ones, ...
    """
    size, strip = described(recipe.state_kind).size, recipe.strip

    @inlined
    def tile_of(task, address, number):
        across, groups = task.across, task.groups
        chunk, group = number // groups, number % groups
        outer, nth = group // across, group % across
        # The tile that this thread will probably take next is prefetched. With only one chunk, a
        # tile is all of time and may be larger than the cache. ``ahead`` is then the tile itself,
        # so nothing more is fetched.
        likely = number + task.threads if task.chunks > 1 else number
        later, time = (likely // groups - chunk) * task.chunk, task.strides.time
        ahead = _group_address(task, likely % groups)
        ahead = Inputs(ahead.a + later * time.a, ahead.x + later * time.x)
        columns = task.width if nth + 1 < across else task.n0 - nth * task.width
        t0, t1 = chunk * task.chunk, min((chunk + 1) * task.chunk, task.steps)
        # A group has two carries that alternate. Even chunks read carry 1 and write carry 0; odd
        # chunks read carry 0 and write carry 1. Chunk c copies the one that it reads before it sets
        # done = c + 1. Only then does chunk c + 1 overwrite it.
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
    """Return (enter, leave), which pass states from tile to tile."""
    wanted_start = not recipe.backward
    initial_states, copy, carry_over, _ = make_states(recipe, recipe.strip)
    over_time, over_columns = _make_strides(recipe)

    @inlined
    def enter(task, tile, room):
        """Wait for the carry into a tile, and pass on the carry out of it.

        Reads the carry in and the tile's inputs, the latter from the last sequence that begins in
        it. Writes room.states and the carry out.

        Returns:
            True if the tile must still pass on its carry with leave(), because the carry computed
            from P and R cannot be trusted.
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
                closes=False,  # reduce ignores it
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
        """Pass on room.states, the states after the tile's steps."""
        copy(tile.carry_out, room.states, tile.columns)
        store_release(tile.done, tile.chunk + 1)

    return enter, leave


def _make_apply_tile(recipe, apply):
    """Return a function that takes all steps of a tile."""
    wanted_start, guarded = not recipe.backward, recipe.algebra.guarded
    initial_states, copy, _, finite = make_states(recipe, recipe.strip)
    over_time, over_columns = _make_strides(recipe)
    one_by_one = recipe.one_by_one if recipe.order == "times" else recipe
    apply_again = make_apply_again(one_by_one, recipe.strip)

    @inlined
    def apply_tile(task, tile, room):
        """Take all steps of a tile, one sequence after another.

        Reads the tile's inputs and room.states. Writes its outputs, and the states after it to
        room.states. A sequence starts from its own h0, or backward from zero. A sequence that
        began before the tile starts from room.states.
        """
        call, strides = task.call, task.strides
        cu_seqlens, columns, apart = call.cu_seqlens, tile.columns, over_columns(strides)
        kept = room.P  # P is no longer needed; its memory keeps the states before a section
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
            while n < call.sequences and int64_at(cu_seqlens, n + 1) == t:  # skip empty ones
                n += 1

    return apply_tile


@functools.cache
def sweep_kernel(recipe: Recipe) -> int:
    """Compile the kernel of a recipe, and return its address.

    Every participating thread calls it as ``sweep(address)``, with the address of a
    :class:`lrscan.cpu.task.Task`. Each tile is taken by whichever thread is free. With three
    groups, the order is::

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
