"""Transfer of tiles of any layout, in the order of memory, with an exchange in shared memory."""

from __future__ import annotations

from lrscan.cuda.memory import (
    divide,
    get,
    get_shared,
    load,
    load_vector,
    opaque,
    padded,
    put,
    put_shared,
    store_vector,
)
from lrscan.cuda.single_pass.tiles import Layout, TileAccess, beside, make_finish, values_of
from lrscan.cuda.steps import Variant, address_of, barrier, compiled, inlined


def make_tiles(variant: Variant, layout: Layout) -> TileAccess:
    """Return the functions for tiles of any layout."""
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x = variant.a, variant.x
    coefficient, state = variant.coefficient, variant.state
    algebra = compiled(variant)
    one, zero, zero_a, directed = algebra.one, algebra.zero, algebra.zero_a, algebra.directed
    coefficient_gradient = algebra.coefficient_gradient
    along_time, L, same_a = layout.order == "time", layout.lanes, layout.same_a
    # A unit is L steps. In memory, its lane l is its step origin + way * l.
    origin, way = (L - 1, -1) if layout.down else (0, 1)
    K = values_of(variant)
    units, shift = K // L, K.bit_length() - 1
    finish = make_finish(variant)

    @inlined
    def owner(tile, chunk, vector):
        return vector * tile.chunks + chunk

    @inlined
    def part_of(tile, thread):
        vector, chunk = divide(thread, tile.chunks)
        return chunk, vector

    @inlined
    def walk(tile, thread):
        """Return the units that a thread reads. Neighbouring threads read neighbouring units.

        Returns:
            (number of units up to the end of time, which may be more than a thread has; the same
            without the sweep's last step, if L is 1; first step of the first unit, counted in the
            tile; steps from a unit to the next; column)
        """
        stop = tile.left
        if along_time:
            column, s = divide(opaque(thread), tile.chunks)
            s, pace = s * L, tile.chunks * L
        else:
            s, column = divide(opaque(thread), tile.vectors)
            pace = tile.chunks
        count = before_last = 0
        if column < tile.width and thread < tile.vectors * tile.chunks:
            if s < stop:
                count, _ = divide(stop - s + pace - 1, pace)
            if s < stop - 1:
                before_last, _ = divide(stop - 1 - s + pace - 1, pace)
        return count, before_last, s, pace, column

    @inlined
    def first_address(row, tile, s, column):
        """Return the lowest address of a thread's first unit."""
        step = tile.first_step + s + origin
        return address_of(row, beside(tile.place, column)) + step * row.time

    @inlined
    def to_owners(kind, tile, thread, room, values):
        """Exchange values through the room, from the order of memory to K steps per thread."""
        _, _, s, pace, column = walk(tile, thread)
        if thread < tile.vectors * tile.chunks:
            i = column * (tile.chunks * K) + s
            for u in range(units):
                spot = padded(i, shift) + origin
                for lane in range(L):
                    put_shared(room, 0, spot + way * lane, get(kind, values, u * L + lane))
                i += pace
        barrier()
        if thread < tile.vectors * tile.chunks:
            for k in range(K):
                put(values, k, get_shared(kind, room, 0, thread * (K + 1) + k))
        barrier()

    @inlined
    def leave_states(thread, room, x):
        """Put a thread's K states into the room, and wait until all threads have done so."""
        for k in range(K):
            put_shared(room, 0, thread * (K + 1) + k, get(state, x, k))
        barrier()

    @inlined
    def to_memory_order(tile, thread, room, x):
        """Get the states from the room in the order of memory. They stay in the room, too."""
        _, _, s, pace, column = walk(tile, thread)
        if thread < tile.vectors * tile.chunks:
            i = column * (tile.chunks * K) + s
            for u in range(units):
                spot = padded(i, shift) + origin
                for lane in range(L):
                    put(x, u * L + lane, get_shared(state, room, 0, spot + way * lane))
                i += pace

    @inlined
    def fill(rows, tile, thread, room, a, x):
        count, _, s, pace, column = walk(tile, thread)
        from_a = first_address(rows.a, tile, s, column)
        from_x = first_address(rows.x, tile, s, column)
        has_a = not backward or s > 0 or tile.first_step > 0  # backward, no a leads into step 0
        for u in range(units):
            if u < count:
                load_vector(kind_x, L, from_x, x, u * L)
            else:
                for lane in range(L):
                    put(x, u * L + lane, zero)
            if not same_a:
                if u < count and (u > 0 or has_a):
                    load_vector(kind_a, L, from_a, a, u * L)
                else:
                    for lane in range(L):
                        put(a, u * L + lane, zero_a if u < count else one)
            from_a, from_x = from_a + pace * rows.a.time, from_x + pace * rows.x.time
        if not same_a:
            to_owners(coefficient, tile, thread, room, a)
        to_owners(state, tile, thread, room, x)
        if same_a:
            chunk, vector = part_of(tile, thread)
            factor, count = one, tile.left - chunk * K
            if vector < tile.width:
                factor = load(kind_a, address_of(rows.a, beside(tile.place, vector)))
            for k in range(K):
                put(a, k, factor if k < count else one)
            if backward and tile.first_step == 0 and chunk == 0:
                put(a, 0, zero_a)
        if backward:
            for k in range(K):
                put(a, k, directed(get(coefficient, a, k)))

    @inlined
    def spill(rows, tile, thread, room, x, before, da):
        stop = tile.left
        thread = opaque(thread)
        begin = opaque(tile.nth) * (tile.chunks * K)  # computed again, too
        leave_states(thread, room, x)
        if backward and want_da:  # at this point, no states are in registers
            _, before_last, s, pace, column = walk(tile, thread)
            source = first_address(rows.before, tile, s, column)
            for u in range(units):
                if u < before_last:
                    load_vector(kind_x, L, source, before, u * L)
                source += pace * rows.before.time
        to_memory_order(tile, thread, room, x)
        if want_dx:
            count, _, s, pace, column = walk(tile, thread)
            target = first_address(rows.out, tile, s, column)
            for u in range(units):
                if u < count:
                    store_vector(kind_x, L, target, x, u * L)
                target += pace * rows.out.time
        if backward and want_da:
            _, before_last, s, pace, column = walk(tile, thread)
            target = first_address(rows.da, tile, s, column)
            for u in range(units):
                if u < before_last:
                    for lane in range(L):
                        i = u * L + lane
                        gradient = coefficient_gradient(get(state, before, i), get(state, x, i))
                        put(da, lane, gradient)
                    store_vector(kind_a, L, target, da, 0)
                target += pace * rows.da.time
        if backward and stop <= tile.chunks * K:
            column = thread
            while column < tile.width:
                g = get_shared(state, room, 0, padded(column * (tile.chunks * K) + stop - 1, shift))
                finish(rows, beside(tile.place, column), begin + stop - 1, g)
                column = opaque(column + tile.vectors * tile.chunks)  # not unrolled

    return TileAccess(owner, part_of, fill, spill)
