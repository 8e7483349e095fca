"""The memory that the threads of a block share: what lies where.

Counted in values, with ``slots`` = MOST_THREADS * V:

    P of each slot | R of each slot | starts, `slots` of them | earlier maps: P, R, P, R, ..
                                                              | or last: `slots` values

A *slot* is a column of a thread: ``v * MOST_THREADS + thread`` for its column v. P and R of a slot
are the map of all steps of the tile up to that thread's last one. The *starts* are the states that
the columns of the tile start from. *Earlier maps* are those of earlier tiles
(:mod:`lrscan.cuda.single_pass.lookback`). When they are not needed any more, *last* takes their
place: V values of each thread, which it alone reads and writes, since an index of registers has to
be known when a kernel is compiled.

While a tile is exchanged, its values lie over all of that (:mod:`lrscan.cuda.single_pass.tiles`).
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
    """Where the parts of the room begin, in numbers, and how large they are.

    products, ends  P and R of the slots
    starts          the states that columns start from
    earlier         earlier maps, ``maps`` of them
    numbers         all together
    """

    products: int
    ends: int
    starts: int
    earlier: int
    maps: int
    numbers: int


def room_of(variant: Variant, layout: Layout) -> Room:
    """The room of a kernel's block."""
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
    """What kernels do with ``room``, the array of its numbers.

    map_at(room, slot)           (P, R) of a slot
    put_map(room, slot, P, R)
    start_of(room, j)            the state that column j of the tile starts with
    put_start(room, j, h)
    earlier(room, i)             (P, R) of an earlier map
    put_earlier(room, i, P, R)
    last_at(room, i)             value i of "last"
    put_last(room, i, g)
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
    """The functions of a kernel's room."""
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
