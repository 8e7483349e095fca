"""Layout of the *room*: the shared memory of a block.

The parts of the room, counted in values, with ``slots`` = MOST_THREADS * V::

    P of each slot | R of each slot | starts, `slots` of them | earlier maps: P, R, P, R, ..
                                                              | or last: `slots` values

A *slot* belongs to a column of a thread: column v has the slot ``v * MOST_THREADS + thread``. P and
R of a slot are the map of all steps of the tile up to the thread's last one. The *starts* are the
states from which the columns of the tile start. The *earlier maps* are those of earlier tiles
(:mod:`lrscan.cuda.single_pass.lookback`). Once they are no longer needed, *last* reuses their
memory. It has V values per thread, which only that thread reads and writes. They cannot be in
registers, because an index of registers must be known when the kernel is compiled.

The exchange of a tile's values (:mod:`lrscan.cuda.single_pass.tiles`) uses all of the room at other
times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.cuda.memory import get_shared, put_shared
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, shape_of
from lrscan.cuda.steps import Variant, inlined

_EARLIER_BYTES = 16 * 1024


class Room(NamedTuple):
    """Offsets and sizes of the parts of the room. Offsets are in numbers.

    Attributes:
        products, ends: P and R of the slots
        starts: the states from which columns start
        earlier: the earlier maps
        maps: how many earlier maps fit
        numbers: size of the whole room
    """

    products: int
    ends: int
    starts: int
    earlier: int
    maps: int
    numbers: int


def room_of(variant: Variant, layout: Layout) -> Room:
    """Return the layout of the room of a kernel."""
    K, V = shape_of(variant, layout)
    slots = MOST_THREADS * V
    P_numbers, R_numbers = variant.algebra.coefficient_numbers, variant.algebra.state_numbers
    number_bytes = described(variant.state).size // R_numbers
    maps = _EARLIER_BYTES // (number_bytes * variant.map_numbers)
    ends = slots * P_numbers
    starts = ends + slots * R_numbers
    earlier = starts + slots * R_numbers
    exchange = 0 if layout.order == "columns" else MOST_THREADS * (K + 1)
    in_its_place = max(maps * variant.map_numbers, slots * R_numbers)
    numbers = max(earlier + in_its_place, exchange * max(P_numbers, R_numbers))
    return Room(0, ends, starts, earlier, maps, numbers)


class RoomFunctions(NamedTuple):
    """Functions to read and write parts of ``room``, the array of its numbers.

    Attributes:
        map_at: ``(room, slot)`` returns (P, R) of a slot
        put_map: ``(room, slot, P, R)`` sets it
        start_of: ``(room, j)`` returns the state from which column j of the tile starts
        put_start: ``(room, j, h)`` sets it
        earlier: ``(room, i)`` returns (P, R), the earlier map i
        put_earlier: ``(room, i, P, R)`` sets it
        last_at: ``(room, i)`` returns value i of "last"
        put_last: ``(room, i, g)`` sets it
    """

    map_at: Callable
    put_map: Callable
    start_of: Callable
    put_start: Callable
    earlier: Callable
    put_earlier: Callable
    last_at: Callable
    put_last: Callable


@functools.cache
def make_room(variant: Variant, layout: Layout) -> RoomFunctions:
    """Return the functions for the room of a kernel."""
    coefficient, state = variant.coefficient, variant.state
    products, ends, starts, earliest, _, _ = room_of(variant, layout)
    P_numbers, map_numbers = variant.algebra.coefficient_numbers, variant.map_numbers

    @inlined
    def map_at(room, slot):
        return get_shared(coefficient, room, products, slot), get_shared(state, room, ends, slot)

    @inlined
    def put_map(room, slot, P, R):
        put_shared(room, products, slot, P)
        put_shared(room, ends, slot, R)

    @inlined
    def start_of(room, j):
        return get_shared(state, room, starts, j)

    @inlined
    def put_start(room, j, h):
        put_shared(room, starts, j, h)

    @inlined
    def earlier(room, i):
        own = earliest + i * map_numbers
        return get_shared(coefficient, room, own, 0), get_shared(state, room, own + P_numbers, 0)

    @inlined
    def put_earlier(room, i, P, R):
        own = earliest + i * map_numbers
        put_shared(room, own, 0, P)
        put_shared(room, own + P_numbers, 0, R)

    @inlined
    def last_at(room, i):
        return get_shared(state, room, earliest, i)

    @inlined
    def put_last(room, i, g):
        put_shared(room, earliest, i, g)

    return RoomFunctions(
        map_at, put_map, start_of, put_start, earlier, put_earlier, last_at, put_last
    )
