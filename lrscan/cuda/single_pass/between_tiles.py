"""The look-back of :mod:`lrscan.cuda.single_pass.lookback` for the tiles of a kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cuda import memory
from lrscan.cuda.memory import divide, load, opaque
from lrscan.cuda.single_pass import lookback
from lrscan.cuda.single_pass.room import make_room
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, Tile, TileAccess, beside, shape_of
from lrscan.cuda.steps import Variant, address_of, barrier, compiled, inlined


class Job(NamedTuple):
    """Arguments of a tile's functions: the operands, the tile, and the room of the block."""

    rows: Rows
    tile: Tile
    room: Any


def word_counts(variant: Variant) -> lookback.WordCounts:
    """Return how many words the values of a variant take, with 4 bytes of a value per word."""
    kinds = variant.coefficient, variant.state
    return lookback.WordCounts(*(described(kind).size // 4 for kind in kinds))


def make_look_back(variant: Variant, layout: Layout, access: TileAccess) -> Callable:
    """Return ``look_back(job, chain, thread, threads)`` of a kernel; a job is a :class:`Job`."""
    coefficient, state = variant.coefficient, variant.state

    @inlined
    def P_of(words):
        return memory.value_of(coefficient, words)

    @inlined
    def R_of(words):
        return memory.value_of(state, words)

    of_memory = SimpleNamespace(
        load_words=memory.load_words,
        store_words=memory.store_words,
        complete=memory.complete,
        words_of=memory.words_of,
        P_of=P_of,
        R_of=R_of,
        finite=memory.finite,
        divide=divide,
    )
    of_tile = _tile_functions(variant, layout, access)
    guarded = variant.algebra.guarded
    return lookback.make_look_back(
        word_counts(variant), of_memory, compiled(variant), of_tile, barrier, inlined, guarded
    )


def make_run_again(variant: Variant, layout: Layout, access: TileAccess) -> Callable:
    """Return ``run_again(job, thread, threads)``, which runs all columns of a tile step by step.

    It starts from the state that each column of the tile starts from.
    """
    redo = _tile_functions(variant, layout, access).redo
    start_of = make_room(variant, layout).start_of

    @inlined
    def run_again(job, thread, threads):
        j = thread
        while j < job.tile.width:
            redo(job, j, 0, start_of(job.room, j))
            j += threads
        barrier()

    return run_again


@functools.cache
def _tile_functions(variant: Variant, layout: Layout, access: TileAccess) -> lookback.TileFunctions:
    """Return the functions of a kernel's tile for the look-back."""
    backward, kind_a, kind_x, kind_start = variant.backward, variant.a, variant.x, variant.start
    algebra = compiled(variant)
    zero, zero_a, nan_a, step = algebra.zero, algebra.zero_a, algebra.nan_a, algebra.step
    remembered, directed = algebra.remembered, algebra.directed
    room_functions = make_room(variant, layout)
    map_at, put_map = room_functions.map_at, room_functions.put_map
    put_earlier_map, earlier_map = room_functions.put_earlier, room_functions.earlier
    put_start_of = room_functions.put_start
    owner = access.owner
    K, V = shape_of(variant, layout)
    shift = K.bit_length() - 1

    @inlined
    def slot_of(tile, chunk, j):
        """Return the slot of column j of a tile in a chunk."""
        vector, v = divide(j, V)
        return v * MOST_THREADS + owner(tile, chunk, vector)

    @inlined
    def map_of(job, j):
        return map_at(job.room, slot_of(job.tile, job.tile.chunks - 1, j))

    @inlined
    def initial_state(job, j):
        h = zero
        if not backward and job.rows.start.address != 0:
            h = load(kind_start, address_of(job.rows.start, beside(job.tile.place, j)))
        return h

    @inlined
    def put_earlier(job, i, P, R):
        put_earlier_map(job.room, i, P, R)

    @inlined
    def earlier(job, i):
        return earlier_map(job.room, i)

    @inlined
    def put_start(job, j, h):
        put_start_of(job.room, j, h)

    @inlined
    def redo(job, j, back, h):
        rows, tile = job.rows, job.tile
        place, tile_steps = beside(tile.place, j), tile.chunks * K
        first = tile.first_step - back * tile_steps
        from_a = address_of(rows.a, place) + first * rows.a.time
        from_x = address_of(rows.x, place) + first * rows.x.time
        s, stop = first - tile.first_step, min(tile.left, tile_steps)  # steps of this tile
        while s < stop:
            if s == 0:
                put_start(job, j, h)
            a = zero_a
            if not backward or tile.first_step + s > 0:
                a = load(kind_a, from_a)
            h = step(directed(a), load(kind_x, from_x), remembered(a, h))
            from_a, from_x = from_a + rows.a.time, from_x + rows.x.time
            s = opaque(s + 1)  # not unrolled: this is rare and should stay small
            # At the end of a chunk, mark that the next chunk starts from h, whatever its map is.
            if s > 0 and (s & (K - 1)) == 0:
                put_map(job.room, slot_of(tile, (s >> shift) - 1, j), nan_a, h)
        return h

    return SimpleNamespace(
        map_of=map_of,
        initial_state=initial_state,
        put_earlier=put_earlier,
        earlier=earlier,
        put_start=put_start,
        redo=redo,
    )
