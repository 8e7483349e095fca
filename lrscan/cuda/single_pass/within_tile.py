"""What the threads of a block do to their tile: compose its steps to maps, and apply them.

A chunk is K steps of one column here; a thread has V columns of it.

    time  |    chunk 0    a,x  a,x  ..  -> (P,R) ------ (P,R) of chunk 0
          |                                       |
          |    chunk 1    a,x  a,x  ..  -> (P,R) -+---- (P,R) of chunks 0, 1
          |                                       |
          v    chunk 2    a,x  a,x  ..  -> (P,R) -+---- (P,R) of chunks 0, 1, 2
                      scan_steps, in registers     scan_chunks, in the room

and back: begin_of_chunk takes the state that the tile starts with through the map before its chunk,
and apply_steps takes it from there through the chunk.

Of arrays in registers, ``a`` and ``x`` have a value for each step and column of a thread, ``P``,
``R`` and ``h`` one for each column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrscan.cuda.memory import finite, get, is_nan, put, zero_or_nan
from lrscan.cuda.single_pass.room import make_room
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, TileAccess, shape_of
from lrscan.cuda.steps import Variant, barrier, compiled, inlined


class Scans(NamedTuple):
    """The two halves of a scan, each in registers and across threads.

    scan_steps(a, x, P, R)              (P, R) become the map of the thread's steps, by columns;
                                        returns whether one of the coefficients may be zero
    scan_chunks(tile, thread, room, P, R)
                                        leaves the maps of all chunks up to the thread's own in the
                                        room
    begin_of_chunk(tile, thread, room, h)
                                        h become the states that the thread's chunk begins with;
                                        returns whether they are to be believed
    apply_steps(a, x, h, may_forget)    the inputs x become the states, step after step from h
    """

    scan_steps: Callable
    scan_chunks: Callable
    begin_of_chunk: Callable
    apply_steps: Callable


def make_scans(variant: Variant, layout: Layout, access: TileAccess) -> Scans:
    """The scans of a kernel."""
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
            # A zero among the coefficients makes P zero, or NaN beside an infinite one.
            if guarded and zero_or_nan(P_v):
                may_forget = True
        return may_forget

    @inlined
    def put_maps(thread, room, P, R):
        """Leave the thread's maps in the room, and wait for those of the others."""
        for v in range(V):
            put_map(room, v * MOST_THREADS + thread, get(coefficient, P, v), get(state, R, v))
        barrier()

    @inlined
    def scan_chunks(tile, thread, room, P, R):
        # Hillis and Steele (1986): in a round, each composes its map with that of the chunk that is
        # 1, 2, 4, .. before its own.
        chunk, _ = part_of(tile, thread)
        pitch = owner(tile, 1, 0)  # threads from a chunk to the next
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
                if guarded and is_nan(P_v):  # the mark of a column that was run step by step
                    h_v = R_v
                else:
                    h_v = step(P_v, R_v, h_v)
                    if guarded and not finite(h_v):
                        believed = False
            put(h, v, h_v)
        return believed

    @inlined
    def apply_steps(a, x, h, may_forget):
        # A coefficient of zero forgets NaN and infinity, but in a map it is one number of many: so
        # the steps ask for it, but only where one may be zero.
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
