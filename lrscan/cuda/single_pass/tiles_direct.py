"""Transfer of tiles with contiguous columns: each thread loads and stores its own values."""

from __future__ import annotations

from lrscan.cuda.memory import divide, get, load, load_vector, opaque, put, store_vector
from lrscan.cuda.single_pass.room import make_room
from lrscan.cuda.single_pass.tiles import Layout, TileAccess, beside, make_finish, shape_of
from lrscan.cuda.steps import Variant, address_of, compiled, inlined


def make_tiles(variant: Variant, layout: Layout) -> TileAccess:
    """Return the functions for tiles with contiguous columns."""
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x = variant.a, variant.x
    coefficient, state = variant.coefficient, variant.state
    algebra, same_a = compiled(variant), layout.same_a
    one, zero, zero_a, directed = algebra.one, algebra.zero, algebra.zero_a, algebra.directed
    coefficient_gradient = algebra.coefficient_gradient
    K, V = shape_of(variant, layout)
    finish, room_functions = make_finish(variant), make_room(variant, layout)
    put_last, last_at = room_functions.put_last, room_functions.last_at

    @inlined
    def owner(tile, chunk, vector):
        return chunk * tile.vectors + vector

    @inlined
    def part_of(tile, thread):
        return divide(thread, tile.vectors)

    @inlined
    def own(tile, thread):
        """Return a thread's (number of existing steps, first step, place of its first column)."""
        chunk, vector = part_of(tile, thread)
        count = min(max(tile.left - chunk * K, 0), K)
        if chunk >= tile.chunks or vector * V >= tile.width:
            count = 0
        return count, tile.first_step + chunk * K, beside(tile.place, vector * V)

    @inlined
    def fill(rows, tile, thread, room, a, x):
        count, first, place = own(tile, thread)
        from_a = address_of(rows.a, place) + first * rows.a.time
        from_x = address_of(rows.x, place) + first * rows.x.time
        for k in range(K):
            inside = k < count
            if inside:
                load_vector(kind_x, V, from_x, x, k * V)
            else:
                for v in range(V):
                    put(x, k * V + v, zero)
            has_a = not backward or k > 0 or first > 0  # backward, no a leads into step 0
            if inside and has_a and not same_a:
                load_vector(kind_a, V, from_a, a, k * V)
            else:
                factor = one
                if inside:
                    factor = zero_a
                    if has_a:
                        factor = load(kind_a, from_a)
                for v in range(V):
                    put(a, k * V + v, factor)
            from_a += rows.a.time
            from_x += rows.x.time
        if backward:
            for i in range(K * V):
                put(a, i, directed(get(coefficient, a, i)))

    @inlined
    def spill(rows, tile, thread, room, x, before, da):
        thread = opaque(thread)  # so that results from fill() are computed again
        count, first, place = own(tile, thread)
        # The sweep's last step, counted from the thread's first. It may be another thread's step.
        last = tile.left - 1 - (first - tile.first_step)
        if backward and want_da:
            source = address_of(rows.before, place) + first * rows.before.time
            for k in range(K):
                if k < count and k != last:
                    load_vector(kind_x, V, source, before, k * V)
                source += rows.before.time
        if want_dx:
            target = address_of(rows.out, place) + first * rows.out.time
            for k in range(K):
                if k < count:
                    store_vector(kind_x, V, target, x, k * V)
                target += rows.out.time
        if backward and want_da:
            target = address_of(rows.da, place) + first * rows.da.time
            for k in range(K):
                if k < count and k != last:
                    for v in range(V):
                        i = k * V + v
                        gradient = coefficient_gradient(get(state, before, i), get(state, x, i))
                        put(da, v, gradient)
                    store_vector(kind_a, V, target, da, 0)
                target += rows.da.time
        if backward and count > 0 and last < K:
            for k in range(K):
                # The value of k == last stays. A test "k == last" would index registers by last.
                if k <= last:
                    for v in range(V):
                        put_last(room, thread * V + v, get(state, x, k * V + v))
            v = 0
            while v < V:
                finish(rows, beside(place, v), first + last, last_at(room, thread * V + v))
                v = opaque(v + 1)  # not unrolled

    return TileAccess(owner, part_of, fill, spill)
