"""The memory that the threads of a block share: what lies where.

    while a tile is exchanged   values, see :mod:`lrscan.cuda.single_pass.tiles_staged`
    else                        P of every slot | R of every slot | states | earlier maps

A *slot* is a column of a thread: ``v * MOST_THREADS + thread`` for its column v. P and R of a slot
are the map of all steps up to that thread's last one. The *states* are those that the columns of
the tile begin with, one for each. *Earlier maps* are those of earlier tiles
(:mod:`lrscan.cuda.single_pass.lookback`); when they are not needed any more, the dx of the last
step takes their place, one for each slot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.cuda.memory import get_after, put_after
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, shape_of
from lrscan.cuda.steps import Variant, inlined

_EARLIER_BYTES = 16 * 1024


class Room(NamedTuple):
    """Where the parts of the room begin, in numbers, and how large they are.

    products, ends  P and R of the slots
    begins          the states that columns begin with
    earlier         earlier maps, ``maps`` of them
    numbers         all together
    """

    products: int
    ends: int
    begins: int
    earlier: int
    maps: int
    numbers: int


def room_of(variant: Variant, layout: Layout) -> Room:
    """The room of a kernel's block."""
    K, V = shape_of(variant, layout)
    slots = MOST_THREADS * V
    P_numbers, R_numbers = variant.algebra.coefficient, variant.algebra.state
    number_bytes = described(variant.state).size // R_numbers
    maps = _EARLIER_BYTES // (number_bytes * variant.map_numbers)
    ends = slots * P_numbers
    begins = ends + slots * R_numbers
    earlier = begins + slots * R_numbers
    exchange = 0 if layout.order == "columns" else MOST_THREADS * (K + 1)
    in_its_place = max(maps * variant.map_numbers, slots * R_numbers)
    numbers = max(earlier + in_its_place, exchange * max(P_numbers, R_numbers))
    return Room(0, ends, begins, earlier, maps, numbers)


class RoomFunctions(NamedTuple):
    """What kernels do with ``room``, the array of its numbers.

    map_at(room, slot)           (P, R) of a slot
    put_map(room, slot, P, R)
    begin_at(room, j)            the state that column j of the tile begins with
    put_begin(room, j, h)
    earlier(room, i)             (P, R) of an earlier map
    put_earlier(room, i, P, R)
    last_at(room, slot)          dx of the last step
    put_last(room, slot, g)
    """

    map_at: Callable
    put_map: Callable
    begin_at: Callable
    put_begin: Callable
    earlier: Callable
    put_earlier: Callable
    last_at: Callable
    put_last: Callable


@functools.cache
def make_room(variant: Variant, layout: Layout) -> RoomFunctions:
    """The functions of a kernel's room."""
    product, state = variant.product, variant.state
    products, ends, begins, first_map, _, _ = room_of(variant, layout)
    P_numbers, map_numbers = variant.algebra.coefficient, variant.map_numbers

    @inlined
    def map_at(room, slot):
        return get_after(product, room, products, slot), get_after(state, room, ends, slot)

    @inlined
    def put_map(room, slot, P, R):
        put_after(room, products, slot, P)
        put_after(room, ends, slot, R)

    @inlined
    def begin_at(room, j):
        return get_after(state, room, begins, j)

    @inlined
    def put_begin(room, j, h):
        put_after(room, begins, j, h)

    @inlined
    def earlier(room, i):
        own = first_map + i * map_numbers
        return get_after(product, room, own, 0), get_after(state, room, own + P_numbers, 0)

    @inlined
    def put_earlier(room, i, P, R):
        own = first_map + i * map_numbers
        put_after(room, own, 0, P)
        put_after(room, own + P_numbers, 0, R)

    @inlined
    def last_at(room, slot):
        return get_after(state, room, first_map, slot)

    @inlined
    def put_last(room, slot, g):
        put_after(room, first_map, slot, g)

    return RoomFunctions(
        map_at, put_map, begin_at, put_begin, earlier, put_earlier, last_at, put_last
    )
