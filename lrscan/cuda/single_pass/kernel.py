"""A scan in a single pass: every input is read once, every output written once, in one launch.

    time ->      tile 0           tile 1           tile 2
    strip 0   fill, scan       fill, scan       fill, scan         of all strips, earlier tiles
              look back  --->  look back  --->  look back          first
              apply, spill     apply, spill     apply, spill

A block draws a ticket, which is a tile: ``chunks`` x ``vectors`` threads, each with a chunk of
consecutive steps of neighbouring columns.

    fill        the tile into registers                        (:mod:`.tiles`)
    scan        every thread composes its steps to a map (P, R); the block composes the maps of its
                chunks in shared memory; the last one is the map of the tile
    look back   with it, the block learns the state that the tile begins with   (:mod:`.lookback`)
    apply       every thread runs its steps from the state that its chunk begins with
    spill       the results to memory

Bytes per element, float32: 12 forward, 20 backward. A launch needs a workspace that is zero, and as
many blocks as there are tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from numba import cuda, int64

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cuda import memory
from lrscan.cuda.launch import Kernel, Launches
from lrscan.cuda.memory import divide, finite, get, load, no_unroll, nonzero, put, zero_or_nan
from lrscan.cuda.single_pass import lookback, tiles_direct, tiles_staged
from lrscan.cuda.single_pass.lookback import Chain
from lrscan.cuda.single_pass.plan import layout_of, plan
from lrscan.cuda.single_pass.room import RoomFunctions, make_room, room_of
from lrscan.cuda.single_pass.tiles import (
    MOST_THREADS,
    Layout,
    Tile,
    TileAccess,
    beside,
    shape_of,
)
from lrscan.cuda.steps import (
    Extents,
    Place,
    Variant,
    address_of,
    barrier,
    columns_of,
    compiled,
    inlined,
)


class Tiling(NamedTuple):
    """Into what a launch is divided: the sizing of the kernel.

    vectors, chunks  threads of a tile, along columns and time
    radix            tiles per group of the look-back
    tiles            in time
    strips           tiles side by side over a row of columns
    workspace        its address
    """

    vectors: int
    chunks: int
    radix: int
    tiles: int
    strips: int
    workspace: int


class Job(NamedTuple):
    """What the functions of a tile are given: the operands, the tile, and the room of the block."""

    rows: Rows
    tile: Tile
    room: Any


@functools.cache
def kernel(variant: Variant, layout: Layout) -> Kernel:
    """The compiled kernel of a variant and a layout."""
    number, (K, V) = variant.number, shape_of(variant, layout)
    coefficient, state = variant.algebra.coefficient, variant.algebra.state
    for_a, for_x, for_P, for_R = K * V * coefficient, K * V * state, V * coefficient, V * state
    for_da = layout.lanes * coefficient
    room_numbers = room_of(variant, layout).numbers
    orders = tiles_direct if layout.order == "columns" else tiles_staged
    access, room_functions = orders.make_tiles(variant, layout), make_room(variant, layout)
    fill, spill = access.fill, access.spill
    tile_of = _make_tile_of(K, V)
    scan_steps, scan_chunks = _make_scans(variant, layout, access, room_functions)
    look_back = _make_look_back(variant, layout, access, room_functions)
    begin_of_chunk, apply_steps = _make_apply(variant, layout, access, room_functions)

    def single_pass(rows, extents, tiling):
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        room = cuda.shared.array(room_numbers, number)
        a, x = cuda.local.array(for_a, number), cuda.local.array(for_x, number)
        P, R = cuda.local.array(for_P, number), cuda.local.array(for_R, number)
        tile = tile_of(extents, tiling, _take_ticket(tiling.workspace, thread))

        fill(rows, tile, thread, room, a, x)
        may_forget = scan_steps(a, x, P, R)
        scan_chunks(tile, thread, room, P, R)
        look_back(Job(rows, tile, room), _chain_of(extents, tiling, tile), thread, threads)
        begin_of_chunk(tile, thread, room, R)
        apply_steps(a, x, R, may_forget)
        before, da = cuda.local.array(for_x, number), cuda.local.array(for_da, number)
        spill(rows, tile, thread, room, x, before, da)

    name = variant.named("single_pass", *layout)
    return Kernel(single_pass, name, Tiling, MOST_THREADS, fewest_blocks=2)


@inlined
def _take_ticket(workspace, thread):
    """The number of the block's tile: the first thread draws it for all."""
    shared = cuda.shared.array(1, int64)
    if thread == 0:
        shared[0] = memory.take_ticket(workspace)
    barrier()
    return shared[0]


def _make_tile_of(K: int, V: int) -> Callable:
    @inlined
    def tile_of(extents, tiling, ticket):
        """The tile of a ticket: earlier ones first, and strip after strip at the same time."""
        number, strip = divide(ticket, extents.outer * extents.middle * tiling.strips)
        row, across = divide(strip, tiling.strips)
        outer, middle = divide(row, extents.middle)
        inner = across * (tiling.vectors * V)
        begin = number * (tiling.chunks * K)
        return Tile(
            number,
            Place(outer, middle, inner),
            begin,
            min(extents.steps - begin, 2**30),
            min(tiling.vectors * V, extents.inner - inner),
            tiling.vectors,
            tiling.chunks,
        )

    return tile_of


@inlined
def _chain_of(extents, tiling, tile):
    """Where a tile stands in the chain."""
    row = tile.place.outer * extents.middle + tile.place.middle
    return Chain(
        tiling.workspace + lookback.TICKET_BYTES,
        tiling.radix,
        tile.number,
        tiling.tiles,
        columns_of(extents),
        row * extents.inner + tile.place.inner,
        tile.width,
    )


def _make_scans(
    variant: Variant, layout: Layout, access: TileAccess, room_functions: RoomFunctions
) -> tuple[Callable, Callable]:
    """(scan_steps, scan_chunks)"""
    algebra, product, state = compiled(variant), variant.product, variant.state
    compose, one, zero = algebra.compose, algebra.one, algebra.zero
    guarded = variant.algebra.guarded
    map_at, put_map = room_functions.map_at, room_functions.put_map
    owner, part_of = access.owner, access.part_of
    K, V = shape_of(variant, layout)

    @inlined
    def scan_steps(a, x, P, R):
        """In registers: (P, R) become the maps of the thread's steps, column by column.

        Returns whether one of the coefficients may be zero.
        """
        for v in range(V):
            put(P, v, one)
            put(R, v, zero)
        for k in range(K):
            for v in range(V):
                i = k * V + v
                P_v, R_v = compose(
                    get(product, P, v), get(state, R, v), get(product, a, i), get(state, x, i)
                )
                put(P, v, P_v)
                put(R, v, R_v)
        may_forget = False
        if guarded:
            for v in range(V):
                if zero_or_nan(get(product, P, v)):
                    may_forget = True
        return may_forget

    @inlined
    def scan_chunks(tile, thread, room, P, R):
        """Across threads: the maps of all chunks up to the thread's own, in the room.

        Hillis and Steele (1986): in a round, each composes its map with that of the chunk 1, 2, 4,
        .. before it.
        """
        chunk, _ = part_of(tile, thread)
        pitch = owner(tile, 1, 0)  # threads from a chunk to the next
        distance = 1
        while distance < tile.chunks:
            for v in range(V):
                put_map(room, v * MOST_THREADS + thread, get(product, P, v), get(state, R, v))
            barrier()
            if chunk >= distance:
                for v in range(V):
                    before = v * MOST_THREADS + thread - distance * pitch
                    earlier_P, earlier_R = map_at(room, before)
                    P_v, R_v = compose(
                        earlier_P, earlier_R, get(product, P, v), get(state, R, v)
                    )
                    put(P, v, P_v)
                    put(R, v, R_v)
            barrier()
            distance *= 2
        for v in range(V):
            put_map(room, v * MOST_THREADS + thread, get(product, P, v), get(state, R, v))
        barrier()

    return scan_steps, scan_chunks


def _make_look_back(
    variant: Variant, layout: Layout, access: TileAccess, room_functions: RoomFunctions
) -> Callable:
    """:func:`.lookback.make_look_back` for the tiles of a kernel."""
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
        finite=finite,
        divide=divide,
    )
    functions = _make_tile_functions(variant, layout, access, room_functions)
    guarded = variant.algebra.guarded
    return lookback.make_look_back(
        _words_of(variant), shared, compiled(variant), functions, barrier, inlined, guarded
    )


def _make_tile_functions(
    variant: Variant, layout: Layout, access: TileAccess, room_functions: RoomFunctions
) -> lookback.TileFunctions:
    """What a tile of a kernel knows about itself; a job is a :class:`Job`."""
    backward, kind_a, kind_x, kind_start = variant.backward, variant.a, variant.x, variant.start
    algebra = compiled(variant)
    zero, nothing, step = algebra.zero, algebra.nothing, algebra.step
    remembered, leading = algebra.remembered, algebra.leading
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


def _make_apply(
    variant: Variant, layout: Layout, access: TileAccess, room_functions: RoomFunctions
) -> tuple[Callable, Callable]:
    """(begin_of_chunk, apply_steps)"""
    algebra, product, state = compiled(variant), variant.product, variant.state
    step, remembered, guarded = algebra.step, algebra.remembered, variant.algebra.guarded
    map_at, begin_at = room_functions.map_at, room_functions.begin_at
    owner, part_of = access.owner, access.part_of
    K, V = shape_of(variant, layout)

    @inlined
    def begin_of_chunk(tile, thread, room, R):
        """R becomes the states that the thread's chunk begins with, by the maps before it."""
        chunk, vector = part_of(tile, thread)
        pitch = owner(tile, 1, 0)
        for v in range(V):
            h = begin_at(room, vector * V + v)
            if chunk > 0:
                P_v, R_v = map_at(room, v * MOST_THREADS + thread - pitch)
                h = step(P_v, R_v, h)
                if guarded and not nonzero(P_v) and not finite(h):
                    h = R_v  # of a tile that was run step by step
            put(R, v, h)

    @inlined
    def apply_steps(a, x, R, may_forget):
        """The inputs x become the states, step after step from R.

        A coefficient of zero forgets NaN and infinity, but in a map it is one number of many: so
        the steps ask for it, but only where one may be zero.
        """
        if guarded and may_forget:
            for k in range(K):
                for v in range(V):
                    i = k * V + v
                    led = get(product, a, i)
                    h = step(led, get(state, x, i), remembered(led, get(state, R, v)))
                    put(R, v, h)
                    put(x, i, h)
        else:
            for k in range(K):
                for v in range(V):
                    i = k * V + v
                    h = step(get(product, a, i), get(state, x, i), get(state, R, v))
                    put(R, v, h)
                    put(x, i, h)

    return begin_of_chunk, apply_steps


def _words_of(variant: Variant) -> lookback.Words:
    return lookback.Words(*(described(k).size // 4 for k in (variant.product, variant.state)))


def prepare(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches over all tiles of tensors of one layout.

    ``rows`` have addresses that are only as well aligned as the real ones. What it returns takes
    the numbers of real rows and extents.
    """
    layout = layout_of(variant, rows, extents)
    chosen = plan(variant, layout, extents, processors)
    words = _words_of(variant)
    size = lookback.workspace_bytes(words, chosen.tiles, math.prod(extents[1:]), chosen.radix)
    sizing = (chosen.vectors, chosen.chunks, chosen.radix, chosen.tiles, chosen.strips)
    ready, grid, threads = kernel(variant, layout), chosen.grid, chosen.threads

    def launch(numbers: list[int], stream: Launches) -> None:
        workspace = stream.workspace(size)
        stream.clear(workspace, size)
        stream.launch(ready, grid, threads, [*numbers, *Tiling(*sizing, workspace)])

    return launch
