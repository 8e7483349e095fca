"""The scan of a tile by the threads of a block: composing its steps to maps, and applying them.

Here a chunk is K steps of one column. A thread has V columns of a chunk::

    time  |    chunk 0    a,x  a,x  ..  -> (P,R) ------ (P,R) of chunk 0
          |                                       |
          |    chunk 1    a,x  a,x  ..  -> (P,R) -+---- (P,R) of chunks 0, 1
          |                                       |
          v    chunk 2    a,x  a,x  ..  -> (P,R) -+---- (P,R) of chunks 0, 1, 2
                      scan_steps, in registers     scan_chunks, in the room

Then the scan goes back to registers. ``begin_of_chunk`` applies the map of all earlier chunks to
the state that the tile starts from. ``apply_steps`` continues from there through the chunk.

The arrays ``a`` and ``x`` in registers have one value per step and column of a thread. ``P``, ``R``
and ``h`` have one value per column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrscan.cuda.memory import finite, get, is_nan, put, zero_or_nan
from lrscan.cuda.single_pass.room import make_room
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, TileAccess, shape_of
from lrscan.cuda.steps import Variant, barrier, compiled, inlined


class Scans(NamedTuple):
    """Functions for the two halves of a scan, each in registers and across threads.

    Attributes:
        scan_steps: ``(a, x, P, R)`` sets (P, R) to the map of the thread's steps, per column, and
            returns whether any coefficient may be zero
        scan_chunks: ``(tile, thread, room, P, R)`` puts into the room the map of all chunks up to
            and including the thread's own
        begin_of_chunk: ``(tile, thread, room, h)`` sets h to the states from which the thread's
            chunk starts, and returns whether they are reliable
        apply_steps: ``(a, x, h, may_forget)`` replaces the inputs x by the states, step by step
            from h
    """

    scan_steps: Callable
    scan_chunks: Callable
    begin_of_chunk: Callable
    apply_steps: Callable


def make_scans(variant: Variant, layout: Layout, access: TileAccess) -> Scans:
    """Return the functions for the scans of a kernel."""
    algebra, coefficient, state = compiled(variant), variant.coefficient, variant.state
    compose, step, one, zero = algebra.compose, algebra.step, algebra.one, algebra.zero
    remembered, guarded = algebra.remembered, variant.algebra.guarded
    room_functions = make_room(variant, layout)
    map_at, put_map, start_of = (
        room_functions.map_at,
        room_functions.put_map,
        room_functions.start_of,
    )
    owner, part_of = access.owner, access.part_of
    K, V = shape_of(variant, layout)

    @inlined
    def scan_steps(a, x, P, R):
        may_forget = False
        for v in range(V):
            P_v, R_v = one, zero
            for k in range(K):
                i = k * V + v
                P_v, R_v = compose(P_v, R_v, get(coefficient, a, i), get(state, x, i))
            put(P, v, P_v)
            put(R, v, R_v)
            # A zero coefficient makes P zero, or NaN if another coefficient is infinite.
            if guarded and zero_or_nan(P_v):
                may_forget = True
        return may_forget

    @inlined
    def put_maps(thread, room, P, R):
        """Put the thread's maps into the room, and wait until all threads have done so."""
        for v in range(V):
            put_map(room, v * MOST_THREADS + thread, get(coefficient, P, v), get(state, R, v))
        barrier()

    @inlined
    def scan_chunks(tile, thread, room, P, R):
        # Hillis and Steele (1986): in each round, a thread composes its map with that of the chunk
        # 1, 2, 4, .. chunks before its own.
        chunk, _ = part_of(tile, thread)
        pitch = owner(tile, 1, 0)  # threads from a chunk to the next one
        distance = 1
        while distance < tile.chunks:
            put_maps(thread, room, P, R)
            if chunk >= distance:
                for v in range(V):
                    slot = v * MOST_THREADS + thread - distance * pitch
                    earlier_P, earlier_R = map_at(room, slot)
                    P_v, R_v = compose(
                        earlier_P, earlier_R, get(coefficient, P, v), get(state, R, v)
                    )
                    put(P, v, P_v)
                    put(R, v, R_v)
            barrier()
            distance *= 2
        put_maps(thread, room, P, R)

    @inlined
    def begin_of_chunk(tile, thread, room, h):
        chunk, vector = part_of(tile, thread)
        pitch = owner(tile, 1, 0)
        believed = True
        for v in range(V):
            h_v = start_of(room, vector * V + v)
            if chunk > 0:
                P_v, R_v = map_at(room, v * MOST_THREADS + thread - pitch)
                if guarded and is_nan(P_v):  # the mark of a column that ran step by step
                    h_v = R_v
                else:
                    h_v = step(P_v, R_v, h_v)
                    if guarded and not finite(h_v):
                        believed = False
            put(h, v, h_v)
        return believed

    @inlined
    def apply_steps(a, x, h, may_forget):
        # A coefficient of zero forgets NaN and infinity. In a map, it is a factor like any other.
        # So each step tests for it, but only if any coefficient may be zero.
        if guarded and may_forget:
            for v in range(V):
                h_v = get(state, h, v)
                for k in range(K):
                    i = k * V + v
                    a_i = get(coefficient, a, i)
                    h_v = step(a_i, get(state, x, i), remembered(a_i, h_v))
                    put(x, i, h_v)
        else:
            for v in range(V):
                h_v = get(state, h, v)
                for k in range(K):
                    i = k * V + v
                    h_v = step(get(coefficient, a, i), get(state, x, i), h_v)
                    put(x, i, h_v)

    return Scans(scan_steps, scan_chunks, begin_of_chunk, apply_steps)
