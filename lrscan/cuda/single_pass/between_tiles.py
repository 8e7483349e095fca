"""The look-back of :mod:`lrscan.cuda.single_pass.lookback`, for the tiles of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cuda import memory
from lrscan.cuda.memory import divide, load, no_unroll
from lrscan.cuda.single_pass import lookback
from lrscan.cuda.single_pass.room import make_room
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, Tile, TileAccess, beside, shape_of
from lrscan.cuda.steps import Variant, address_of, barrier, compiled, inlined


class Job(NamedTuple):
    """What the functions of a tile are given: the operands, the tile, and the room of the block."""

    rows: Rows
    tile: Tile
    room: Any


def words_of(variant: Variant) -> lookback.Words:
    """How many words the values of a variant are."""
    return lookback.Words(*(described(k).size // 4 for k in (variant.product, variant.state)))


def make_look_back(variant: Variant, layout: Layout, access: TileAccess) -> Callable:
    """``look_back(job, chain, thread, threads)`` of a kernel, whose jobs are :class:`Job`."""
    product, state = variant.product, variant.state

    @inlined
    def P_of(words):
        return memory.value_of(product, words)

    @inlined
    def R_of(words):
        return memory.value_of(state, words)

    shared = SimpleNamespace(
        load_words=memory.load_words,
        store_words=memory.store_words,
        complete=memory.complete,
        words_of=memory.words_of,
        P_of=P_of,
        R_of=R_of,
        finite=memory.finite,
        divide=divide,
    )
    functions = _tile_functions(variant, layout, access)
    guarded = variant.algebra.guarded
    return lookback.make_look_back(
        words_of(variant), shared, compiled(variant), functions, barrier, inlined, guarded
    )


def _tile_functions(
    variant: Variant, layout: Layout, access: TileAccess
) -> lookback.TileFunctions:
    """What a tile of a kernel knows about itself."""
    backward, kind_a, kind_x, kind_start = variant.backward, variant.a, variant.x, variant.start
    algebra = compiled(variant)
    zero, nothing, step = algebra.zero, algebra.nothing, algebra.step
    remembered, leading = algebra.remembered, algebra.leading
    room_functions = make_room(variant, layout)
    map_at, put_map, put_begin = (
        room_functions.map_at, room_functions.put_map, room_functions.put_begin
    )  # fmt: skip
    put_into_room, from_room = room_functions.put_earlier, room_functions.earlier
    owner = access.owner
    K, V = shape_of(variant, layout)
    shift = K.bit_length() - 1

    @inlined
    def slot_of(tile, chunk, j):
        """The slot of column j of a tile after a chunk."""
        vector, v = divide(j, V)
        return v * MOST_THREADS + owner(tile, chunk, vector)

    @inlined
    def map_of(job, j):
        return map_at(job.room, slot_of(job.tile, job.tile.chunks - 1, j))

    @inlined
    def begin(job, j):
        h = zero
        if not backward and job.rows.start.address != 0:
            h = load(kind_start, address_of(job.rows.start, beside(job.tile.place, j)))
        return h

    @inlined
    def put_earlier(job, i, P, R):
        put_into_room(job.room, i, P, R)

    @inlined
    def earlier(job, i):
        return from_room(job.room, i)

    @inlined
    def carry(job, j, h):
        put_begin(job.room, j, h)

    @inlined
    def redo(job, j, tiles, h):
        rows, tile = job.rows, job.tile
        place, length = beside(tile.place, j), tile.chunks * K
        first = tile.begin - tiles * length
        from_a = address_of(rows.a, place) + first * rows.a.time
        from_x = address_of(rows.x, place) + first * rows.x.time
        s, stop = first - tile.begin, min(tile.length, length)
        while s < stop:
            no_unroll()  # rare, and so in few registers
            if s == 0:
                carry(job, j, h)
            a = nothing
            if not backward or tile.begin + s > 0:
                a = load(kind_a, from_a)
            h = step(leading(a), load(kind_x, from_x), remembered(a, h))
            from_a, from_x, s = from_a + rows.a.time, from_x + rows.x.time, s + 1
            if s > 0 and s & (K - 1) == 0:  # for the next chunk: whatever the tile begins with, h
                put_map(job.room, slot_of(tile, (s >> shift) - 1, j), nothing, h)
        return h

    return SimpleNamespace(
        map_of=map_of, begin=begin, put_earlier=put_earlier, earlier=earlier, carry=carry, redo=redo
    )
