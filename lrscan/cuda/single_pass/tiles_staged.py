"""Tiles of any other layout: read in the order of memory, and exchanged in shared memory."""

from __future__ import annotations

from numba import uint32

from lrscan.cuda.memory import divide, fresh, load, load_vector, padded, rolled, store_vector
from lrscan.cuda.single_pass.tiles import Layout, beside, make_finish, numbers_of
from lrscan.cuda.steps import (
    BEFORE,
    DA,
    OUT,
    A,
    Variant,
    X,
    address_of,
    barrier,
    coefficient_gradient,
    inlined,
)


def make_tiles(variant: Variant, layout: Layout):
    """(owner, part_of, fill, spill), see :mod:`lrscan.cuda.single_pass.tiles`."""
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, state = variant.a, variant.x, variant.state.type
    one, zero = state(1), state(0)
    along_time, L, same_a = layout.order == "time", layout.lanes, layout.same_a
    # The place in time of the first element in memory of a unit, and the way to the next one.
    origin, way = (L - 1, -1) if layout.down else (0, 1)
    K = numbers_of(variant)
    units, shift = K // L, K.bit_length() - 1
    finish = make_finish(variant)

    @inlined
    def owner(tile, chunk, vector):
        return vector * tile[5] + chunk

    @inlined
    def part_of(tile, thread):
        vector, chunk = divide(thread, tile[5])
        return chunk, vector

    @inlined
    def walk(tile, thread):
        """A thread's units of L steps, side by side with those of the next thread in memory.

        Returns (units that are there, units before the last step of time, step of the first one
        within the tile, steps to the next one, column).
        """
        _, _, stop, width, vectors, chunks = tile
        if along_time:
            column, s = divide(fresh(thread), chunks)
            s, pace = s * L, chunks * L
        else:
            s, column = divide(fresh(thread), vectors)
            pace = chunks
        count = before_last = 0
        if column < width and thread < vectors * chunks:
            if s < stop:
                count, _ = divide(stop - s + pace - 1, pace)
            if s < stop - 1:
                before_last, _ = divide(stop - 1 - s + pace - 1, pace)
        return count, before_last, s, pace, column

    @inlined
    def start(row, tile, s, column):
        """The lowest address of a thread's first unit."""
        return address_of(row, beside(tile[0], column)) + (tile[1] + s + origin) * row[1]

    @inlined
    def to_owners(tile, thread, room, numbers):
        """From the order of memory to K steps a thread, through the room."""
        _, _, s, pace, column = walk(tile, thread)
        if thread < tile[4] * tile[5]:
            i = column * (tile[5] * K) + s
            for u in range(units):
                place = padded(i, shift)
                for lane in range(L):
                    room[uint32(place + origin + way * lane)] = numbers[u * L + lane]
                i += pace
        barrier()
        if thread < tile[4] * tile[5]:
            for k in range(K):
                numbers[k] = room[uint32(thread * (K + 1) + k)]
        barrier()

    @inlined
    def put_down(thread, room, numbers):
        """Leave a thread's K steps in the room, and wait for those of the others."""
        barrier()
        for k in range(K):
            room[uint32(thread * (K + 1) + k)] = numbers[k]
        barrier()

    @inlined
    def to_memory_order(tile, thread, room, numbers):
        """What all threads have put down, in the order of memory. It stays in the room, too."""
        _, _, s, pace, column = walk(tile, thread)
        if thread < tile[4] * tile[5]:
            i = column * (tile[5] * K) + s
            for u in range(units):
                place = padded(i, shift)
                for lane in range(L):
                    numbers[u * L + lane] = room[uint32(place + origin + way * lane)]
                i += pace

    @inlined
    def fill(rows, tile, thread, room, a, x):
        count, _, s, pace, column = walk(tile, thread)
        from_a, from_x = start(rows[A], tile, s, column), start(rows[X], tile, s, column)
        # Backward nothing comes after the last step in forward time: no coefficient leads on.
        leads = not backward or s > 0 or tile[1] > 0
        for u in range(units):
            if u < count:
                load_vector(kind_x, L, from_x, x, u * L)
            else:
                for lane in range(L):
                    x[u * L + lane] = zero
            if not same_a:
                if u < count and (u > 0 or leads):
                    load_vector(kind_a, L, from_a, a, u * L)
                else:
                    for lane in range(L):
                        a[u * L + lane] = zero if u < count else one
            from_a, from_x = from_a + pace * rows[A][1], from_x + pace * rows[X][1]
        if not same_a:
            to_owners(tile, thread, room, a)
        to_owners(tile, thread, room, x)
        if same_a:
            place, begin, stop, width, _, _ = tile
            chunk, vector = part_of(tile, thread)
            factor, count = one, stop - chunk * K
            if vector < width:
                factor = load(kind_a, address_of(rows[A], beside(place, vector)))
            for k in range(K):
                a[k] = factor if k < count else one
            if backward and begin == 0 and chunk == 0:
                a[0] = zero
        if backward:
            for k in range(K):
                a[k] = a[k].conjugate()

    @inlined
    def spill(rows, tile, thread, room, a, x):
        place, begin, stop, width, vectors, chunks = tile
        thread = fresh(thread)
        put_down(thread, room, x)
        if backward and want_da:  # while no states are in registers
            _, before_last, s, pace, column = walk(tile, thread)
            source = start(rows[BEFORE], tile, s, column)
            for u in range(units):
                if u < before_last:
                    load_vector(kind_x, L, source, a, u * L)
                source += pace * rows[BEFORE][1]
        to_memory_order(tile, thread, room, x)
        if want_dx:
            count, _, s, pace, column = walk(tile, thread)
            target = start(rows[OUT], tile, s, column)
            for u in range(units):
                if u < count:
                    store_vector(kind_x, L, target, x, u * L)
                target += pace * rows[OUT][1]
        if backward and want_da:
            _, before_last, s, pace, column = walk(tile, thread)
            target = start(rows[DA], tile, s, column)
            for u in range(units):
                for lane in range(L):
                    i = u * L + lane
                    a[i] = coefficient_gradient(a[i], x[i])
                if u < before_last:
                    store_vector(kind_a, L, target, a, u * L)
                target += pace * rows[DA][1]
        if backward and stop <= chunks * K:
            column = thread
            while column < width:
                rolled()
                g = room[uint32(padded(column * (chunks * K) + stop - 1, shift))]
                finish(rows, beside(place, column), begin + stop - 1, g)
                column += vectors * chunks

    return owner, part_of, fill, spill
