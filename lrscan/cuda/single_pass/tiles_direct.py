"""Tiles whose columns are contiguous: a thread loads and stores what it owns."""

from __future__ import annotations

from numba import uint32

from lrscan.cuda.memory import divide, fresh, load, load_vector, rolled, store_vector
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, beside, make_finish, shape_of
from lrscan.cuda.steps import (
    BEFORE,
    DA,
    OUT,
    A,
    Variant,
    X,
    address_of,
    coefficient_gradient,
    inlined,
)


def make_tiles(variant: Variant, layout: Layout):
    """(owner, part_of, fill, spill), see :mod:`lrscan.cuda.single_pass.tiles`."""
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, state = variant.a, variant.x, variant.state.type
    one, zero = state(1), state(0)
    same_a = layout.same_a
    K, V = shape_of(variant, layout)
    finish = make_finish(variant)
    kept = 3 * MOST_THREADS * V

    @inlined
    def owner(tile, chunk, vector):
        return chunk * tile[4] + vector

    @inlined
    def part_of(tile, thread):
        return divide(thread, tile[4])

    @inlined
    def own(tile, thread):
        """(steps that are there, the first of them, place) of a thread."""
        place, begin, length, width, vectors, chunks = tile
        chunk, vector = part_of(tile, thread)
        count = min(max(length - chunk * K, 0), K)
        if chunk >= chunks or vector * V >= width:
            count = 0
        return count, begin + chunk * K, beside(place, vector * V)

    @inlined
    def fill(rows, tile, thread, room, a, x):
        count, first, place = own(tile, thread)
        from_a = address_of(rows[A], place) + first * rows[A][1]
        from_x = address_of(rows[X], place) + first * rows[X][1]
        for k in range(K):
            inside = k < count
            if inside:
                load_vector(kind_x, V, from_x, x, k * V)
            else:
                for v in range(V):
                    x[k * V + v] = zero
            # Backward nothing comes after the last step in forward time: no coefficient leads on.
            leads = not backward or k > 0 or first > 0
            if inside and leads and not same_a:
                load_vector(kind_a, V, from_a, a, k * V)
            else:
                factor = one
                if inside:
                    factor = zero
                    if leads:
                        factor = load(kind_a, from_a)
                for v in range(V):
                    a[k * V + v] = factor
            from_a += rows[A][1]
            from_x += rows[X][1]
        if backward:
            for i in range(K * V):
                a[i] = a[i].conjugate()

    @inlined
    def spill(rows, tile, thread, room, a, x):
        thread = fresh(thread)
        count, first, place = own(tile, thread)
        last = tile[2] - 1 - (first - tile[1])  # the last step of time, if it is the thread's
        if backward and want_da:
            source = address_of(rows[BEFORE], place) + first * rows[BEFORE][1]
            for k in range(K):
                if k < count and k != last:
                    load_vector(kind_x, V, source, a, k * V)
                source += rows[BEFORE][1]
        if want_dx:
            target = address_of(rows[OUT], place) + first * rows[OUT][1]
            for k in range(K):
                if k < count:
                    store_vector(kind_x, V, target, x, k * V)
                target += rows[OUT][1]
        if backward and want_da:
            target = address_of(rows[DA], place) + first * rows[DA][1]
            for k in range(K):
                for v in range(V):
                    a[k * V + v] = coefficient_gradient(a[k * V + v], x[k * V + v])
                if k < count and k != last:
                    store_vector(kind_a, V, target, a, k * V)
                target += rows[DA][1]
        if backward and count > 0 and last < K:
            for k in range(K):
                if k <= last:  # the last one stays; an equality would index registers with it
                    for v in range(V):
                        room[uint32(kept + thread * V + v)] = x[k * V + v]
            v = 0
            while v < V:
                rolled()
                g = room[uint32(kept + thread * V + v)]
                finish(rows, beside(place, v), first + last, g)
                v += 1

    return owner, part_of, fill, spill
