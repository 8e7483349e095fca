"""A scan in a single pass: every input is read once, every output written once, in one launch.

    time ->      tile 0           tile 1           tile 2
    strip 0   read, reduce     read, reduce     read, reduce       of all strips, earlier tiles
              look back  --->  look back  --->  look back          first
              write            write            write

A block draws a ticket, which is a tile: ``chunks`` x ``vectors`` threads, each with consecutive
steps of neighbouring columns in registers (:mod:`lrscan.cuda.single_pass.tiles`). Every thread
composes its steps to a map (P, R); the block scans the maps of its chunks in shared memory; the
last one is the map of the tile, with which the block learns the state that the tile begins with
(:mod:`lrscan.cuda.single_pass.lookback`); and every thread runs its steps from there. A coefficient
of zero, which forgets NaN and infinity, is one number of many in a map: so the steps ask for it,
but only where the product of the thread's coefficients is zero or NaN.

Bytes an element, float32: 12 forward, 20 backward. A launch needs a workspace that is zero, and as
many blocks as there are tiles. The sizing is (vectors, chunks, radix, tiles in time, strips of a
row of columns, address of the workspace).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace

from numba import cuda, int64, uint32

from lrscan.core.dtypes import KINDS
from lrscan.cuda import memory
from lrscan.cuda.kinds import STATES
from lrscan.cuda.launch import Kernel, Launches
from lrscan.cuda.memory import divide, rolled
from lrscan.cuda.single_pass import lookback, tiles_direct, tiles_staged
from lrscan.cuda.single_pass.plan import layout_of, plan
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, numbers_of, shape_of, sizes_of
from lrscan.cuda.steps import (
    START,
    A,
    Variant,
    X,
    address_of,
    barrier,
    compose,
    finite,
    inlined,
    remembered,
    step,
)


@functools.cache
def kernel(variant: Variant, layout: Layout):
    """The compiled kernel of a variant and a layout."""
    backward, kind_a, kind_x = variant.backward, variant.a, variant.x
    kind_start, kind = variant.start, variant.state_kind
    state = STATES[kind]
    one, zero = variant.state.type(1), variant.state.type(0)
    numbers = numbers_of(variant)
    K, V = shape_of(variant, layout)
    shift = K.bit_length() - 1
    slots, _, room_size = sizes_of(variant, layout)
    orders = tiles_direct if layout.order == "columns" else tiles_staged
    owner, part_of, fill, spill = orders.make_tiles(variant, layout)

    @inlined
    def slot_of(tile, chunk, j):
        """Where the map of column j of a tile after a chunk is kept: P there, R ``slots`` on."""
        vector, v = divide(j, V)
        return uint32(v * MOST_THREADS + owner(tile, chunk, vector))

    # A job is (rows, steps, tile, room).

    @inlined
    def map_of(job, j):
        tile, room = job[2], job[3]
        slot = slot_of(tile, tile[5] - 1, j)
        return room[slot], room[uint32(slots + slot)]

    @inlined
    def begin(job, j):
        rows, place = job[0], job[2][0]
        h = zero
        if not backward and rows[START][0] != 0:
            h = memory.load(kind_start, address_of(rows[START], (place[0], place[1], place[2] + j)))
        return h

    @inlined
    def put(job, i, value):
        job[3][uint32(3 * slots + i)] = value

    @inlined
    def get(job, i):
        return job[3][uint32(3 * slots + i)]

    @inlined
    def carry(job, j, h):
        job[3][uint32(2 * slots + j)] = h

    @inlined
    def redo(job, j, tiles, h):
        rows, _, tile, room = job
        place, begin_at, length, _, _, chunks = tile
        place = (place[0], place[1], place[2] + j)
        first = begin_at - tiles * (chunks * K)
        from_a = address_of(rows[A], place) + first * rows[A][1]
        from_x = address_of(rows[X], place) + first * rows[X][1]
        s, stop = first - begin_at, min(length, chunks * K)
        while s < stop:
            rolled()  # rare, and so in few registers
            if s == 0:
                carry(job, j, h)
            a = zero
            if not backward or begin_at + s > 0:
                a = memory.load(kind_a, from_a)
            h = remembered(a, h, zero)
            h = step(a.conjugate() if backward else a, memory.load(kind_x, from_x), h)
            from_a, from_x, s = from_a + rows[A][1], from_x + rows[X][1], s + 1
            if s > 0 and s & (K - 1) == 0:  # for the next chunk: whatever the tile begins with, h
                slot = slot_of(tile, (s >> shift) - 1, j)
                room[slot], room[uint32(slots + slot)] = zero, h
        return h

    look_back = lookback.make_look_back(
        KINDS[kind].size // 4,
        SimpleNamespace(
            load_word=memory.load_word,
            store_word=memory.store_word,
            words_of=memory.words_of,
            value_of=_value_of(kind),
        ),
        SimpleNamespace(
            step=step, compose=compose, finite=finite, divide=divide, one=one, zero=zero
        ),
        barrier,
        SimpleNamespace(map_of=map_of, begin=begin, put=put, get=get, carry=carry, redo=redo),
        inlined,
    )

    def single_pass(rows, extents, sizing):
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        steps, n2, n1, n0 = extents
        vectors, chunks, radix, tiles, strips, workspace = sizing
        shared_ticket = cuda.shared.array(1, int64)
        room = cuda.shared.array(room_size, state)
        a, x = cuda.local.array(numbers, state), cuda.local.array(numbers, state)
        P, R = cuda.local.array(V, state), cuda.local.array(V, state)
        if thread == 0:
            shared_ticket[0] = memory.take_ticket(workspace)
        barrier()
        ticket = shared_ticket[0]
        # Tickets are tiles, earlier ones first, and strip after strip at the same time.
        index, strip = divide(ticket, n2 * n1 * strips)
        outer, inner = divide(strip, strips)
        outer2, outer1 = divide(outer, n1)
        inner *= vectors * V
        begin_at = index * (chunks * K)
        tile = (
            (outer2, outer1, inner),
            begin_at,
            min(steps - begin_at, 2**30),
            min(vectors * V, n0 - inner),
            vectors,
            chunks,
        )
        fill(rows, tile, thread, room, a, x)

        # The map of the thread's steps, then of all chunks up to it.
        for v in range(V):
            P[v], R[v] = one, zero
        for k in range(K):
            for v in range(V):
                P[v], R[v] = compose(P[v], R[v], a[k * V + v], x[k * V + v])
        chunk, vector = part_of(tile, thread)
        pitch = owner(tile, 1, 0)
        forgets = False  # whether one of the thread's coefficients may be zero
        for v in range(V):
            if P[v] == 0 or P[v] != P[v]:
                forgets = True
        distance = 1
        while distance < chunks:
            for v in range(V):
                room[uint32(v * MOST_THREADS + thread)] = P[v]
                room[uint32(slots + v * MOST_THREADS + thread)] = R[v]
            barrier()
            if chunk >= distance:
                for v in range(V):
                    slot = uint32(v * MOST_THREADS + thread - distance * pitch)
                    P[v], R[v] = compose(room[slot], room[uint32(slots + slot)], P[v], R[v])
            barrier()
            distance *= 2
        for v in range(V):
            room[uint32(v * MOST_THREADS + thread)] = P[v]
            room[uint32(slots + v * MOST_THREADS + thread)] = R[v]
        barrier()

        job = (rows, steps, tile, room)
        words = workspace + lookback.TICKET_BYTES
        first = outer * n0 + inner
        look_back(job, thread, threads, words, radix, index, tiles, n2 * n1 * n0, first, tile[3])

        for v in range(V):
            h = room[uint32(2 * slots + vector * V + v)]
            if chunk > 0:
                slot = uint32(v * MOST_THREADS + thread - pitch)
                product = room[slot]
                h = step(product, room[uint32(slots + slot)], h)
                if product == 0 and not finite(h):  # a tile that was run step by step
                    h = room[uint32(slots + slot)]
            R[v] = h
        if forgets:
            for k in range(K):
                for v in range(V):
                    h = remembered(a[k * V + v], R[v], zero)
                    R[v] = step(a[k * V + v], x[k * V + v], h)
                    x[k * V + v] = R[v]
        else:
            for k in range(K):
                for v in range(V):
                    R[v] = step(a[k * V + v], x[k * V + v], R[v])
                    x[k * V + v] = R[v]
        spill(rows, tile, thread, room, a, x)

    return Kernel(single_pass, variant.named("single_pass", *layout), MOST_THREADS, 2)


def _value_of(kind: str):
    @inlined
    def value_of(words):
        return memory.value_of(kind, words)

    return value_of


def prepare(
    variant: Variant, numbers: tuple[int, ...], extents: tuple[int, ...], processors: int
) -> Callable[[list[int], Launches], None]:
    """What launches over all tiles of tensors of one layout.

    ``numbers`` are the rows, with addresses that are only as well aligned as the real ones. What
    it returns takes the real rows and extents.
    """
    rows = [numbers[r : r + 5] for r in range(0, len(numbers), 5)]
    layout = layout_of(variant, rows, extents)
    chosen = plan(variant, layout, extents, processors)
    parts, columns = KINDS[variant.state_kind].size // 4, math.prod(extents[1:])
    size = lookback.workspace_bytes(parts, chosen.tiles, columns, chosen.radix)
    sizing = (chosen.vectors, chosen.chunks, chosen.radix, chosen.tiles, chosen.strips)
    ready, grid, threads = kernel(variant, layout), chosen.grid, chosen.threads

    def launch(numbers: list[int], stream: Launches) -> None:
        workspace = stream.workspace(size)
        stream.clear(workspace, size)
        stream.launch(ready, grid, threads, (*numbers, *sizing, workspace))

    return launch
