"""What the threads of a block do to their tile: compose its steps to maps, and apply them.

    columns ->    thread 0              thread 1                in registers     across threads
    time   |   (a,x) (a,x) ..   |    (a,x) (a,x) ..    chunk 0  -> (P,R) ----+-> map of chunk 0
           |   (a,x) (a,x) ..   |    (a,x) (a,x) ..                          v
           v   ------------------------------------    chunk 1  -> (P,R) ------> map of both

Of arrays in registers, ``a`` and ``x`` have a value for each step and column of a thread, ``P`` and
``R`` one for each column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrscan.cuda.memory import finite, get, nonzero, put, zero_or_nan
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
    begin_of_chunk(tile, thread, room, R)
                                        R become the states that the thread's chunk begins with
    apply_steps(a, x, R, may_forget)    the inputs x become the states, step after step from R
    """

    scan_steps: Callable
    scan_chunks: Callable
    begin_of_chunk: Callable
    apply_steps: Callable


def make_scans(variant: Variant, layout: Layout, access: TileAccess) -> Scans:
    """The scans of a kernel."""
    algebra, product, state = compiled(variant), variant.product, variant.state
    compose, step, one, zero = algebra.compose, algebra.step, algebra.one, algebra.zero
    remembered, guarded = algebra.remembered, variant.algebra.guarded
    room_functions = make_room(variant, layout)
    map_at, put_map, begin_at = (
        room_functions.map_at, room_functions.put_map, room_functions.begin_at
    )  # fmt: skip
    owner, part_of = access.owner, access.part_of
    K, V = shape_of(variant, layout)

    @inlined
    def scan_steps(a, x, P, R):
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
        # Hillis and Steele (1986): in a round, each composes its map with that of the chunk that is
        # 1, 2, 4, .. before its own.
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

    @inlined
    def begin_of_chunk(tile, thread, room, R):
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
        # A coefficient of zero forgets NaN and infinity, but in a map it is one number of many: so
        # the steps ask for it, but only where one may be zero.
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

    return Scans(scan_steps, scan_chunks, begin_of_chunk, apply_steps)
