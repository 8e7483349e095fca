"""Bringing a tile of time and columns into registers, and its results back to memory.

A tile is ``chunks`` x ``vectors`` threads. A thread owns K consecutive steps of V neighbouring
columns, K * V numbers of each operand:

    columns ->    vector 0            vector 1
    time   |   thread 0           thread 1             chunk 0
           v   thread 2           thread 3             chunk 1

Where columns are contiguous a thread loads what it owns, a step of V columns in 16 bytes. In other
layouts the threads first load in the order of memory, so that neighbouring threads read
neighbouring elements, and then exchange through shared memory:

    "columns"  inner column axis contiguous: no exchange
    "time"     time contiguous: a thread loads ``lanes`` steps at a time, the next thread the next
    "thin"     anything else, few columns above all: the next thread loads the next column

There the threads of a column lie side by side, not those of a chunk. In the shared room the numbers
of a thread lie side by side with one place left free after them, so that the accesses of a warp
fall into different banks. Beyond the ends of the tensors nothing is read: a step that is not there
is the identity map.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import uint32

from lrscan.cuda.common import (
    BEFORE,
    DA,
    DSTART,
    OUT,
    START,
    A,
    Variant,
    X,
    address_of,
    barrier,
    coefficient_gradient,
    inlined,
)
from lrscan.cuda.kinds import KINDS
from lrscan.cuda.memory import (
    divide,
    fresh,
    load,
    load_vector,
    padded,
    rolled,
    store,
    store_vector,
)

MOST_THREADS = 256
# Of each of two operands, in a thread: a quarter of its registers.
REGISTER_BYTES = 128
# Room for the maps of earlier tiles, of all columns of a tile.
_GATHERED_BYTES = 16 * 1024


class Layout(NamedTuple):
    """How a tile's elements lie in memory.

    order   "columns", "time" or "thin"
    lanes   neighbouring elements of an access: columns, or steps
    same_a  the coefficient is the same for the lanes ("columns"), or for all of time ("time")
    down    time runs against addresses; matters only for several lanes of "time"
    """

    order: str
    lanes: int
    same_a: bool = False
    down: bool = False


def numbers_of(variant: Variant) -> int:
    """Numbers of each operand that a thread owns.

    Half as many in backward sweeps of complex numbers, which compute with more registers.
    """
    info = KINDS[variant.state_kind]
    return REGISTER_BYTES // info.size // (2 if variant.backward and info.planes == 2 else 1)


def shape_of(variant: Variant, layout: Layout) -> tuple[int, int]:
    """(K, V): steps and columns that a thread owns."""
    columns = layout.lanes if layout.order == "columns" else 1
    return numbers_of(variant) // columns, columns


class Sizes(NamedTuple):
    """How much shared memory of a block is for what, in states.

    slots     one for each column of each thread
    gathered  for the maps of earlier tiles
    room      all together; the exchange of a tile takes the same room
    """

    slots: int
    gathered: int
    room: int


def sizes_of(variant: Variant, layout: Layout) -> Sizes:
    """The room of a kernel's block."""
    K, V = shape_of(variant, layout)
    slots = MOST_THREADS * V
    gathered = _GATHERED_BYTES // KINDS[variant.state_kind].size
    exchange = 0 if layout.order == "columns" else MOST_THREADS * (K + 1)
    return Sizes(slots, gathered, max(3 * slots + gathered, exchange))


class Tile(NamedTuple):
    """Where a tile is, in a kernel.

    place    (outer, middle, inner) index of its first column
    begin    its first step
    length   steps to the end of time, if that is in the tile or near
    width    columns that it has, the last of an axis fewer than the others
    vectors, chunks  its threads
    """

    place: tuple
    begin: int
    length: int
    width: int
    vectors: int
    chunks: int


def make_tiles(variant: Variant, layout: Layout):
    """(owner, part_of, fill, spill) of a layout.

    owner(tile, chunk, vector)              the thread that owns them
    part_of(tile, thread)                   (chunk, vector) that a thread owns
    fill(rows, tile, thread, room, a, x)    reads coefficients and inputs of a thread's steps
    spill(rows, tile, thread, room, a, x)   writes the results for states x; a is overwritten

    ``a`` and ``x`` are arrays in registers, step by step, the columns of a step side by side.
    """
    return (_make_direct if layout.order == "columns" else _make_exchanged)(variant, layout)


@inlined
def _beside(place, j):
    """The place of the column ``j`` further along the inner axis."""
    return place[0], place[1], place[2] + j


def _make_finish(variant: Variant):
    """Backward, what there is to do at the last step but to write dx."""
    kind_a, kind_start, zero = variant.a, variant.start, variant.state.type(0)
    want_da = variant.want_da

    @inlined
    def finish(rows, place, t, g):
        if want_da:
            h = zero
            if rows[START][0] != 0:
                h = load(kind_start, address_of(rows[START], place))
            da = address_of(rows[DA], place) + t * rows[DA][1]
            store(kind_a, da, coefficient_gradient(h, g))
        if rows[DSTART][0] != 0:
            first_a = load(kind_a, address_of(rows[A], place) + (t + 1) * rows[A][1])
            start = address_of(rows[DSTART], place)
            store(kind_start, start, coefficient_gradient(first_a, g))

    return finish


def _make_direct(variant: Variant, layout: Layout):
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, state = variant.a, variant.x, variant.state.type
    one, zero = state(1), state(0)
    same_a = layout.same_a
    K, V = shape_of(variant, layout)
    finish = _make_finish(variant)
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
        return count, begin + chunk * K, _beside(place, vector * V)

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
                finish(rows, _beside(place, v), first + last, g)
                v += 1

    return owner, part_of, fill, spill


def _make_exchanged(variant: Variant, layout: Layout):
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, state = variant.a, variant.x, variant.state.type
    one, zero = state(1), state(0)
    along_time, L, same_a = layout.order == "time", layout.lanes, layout.same_a
    # The place in time of the first element in memory of a unit, and the way to the next one.
    origin, way = (L - 1, -1) if layout.down else (0, 1)
    K = numbers_of(variant)
    units, shift = K // L, K.bit_length() - 1
    finish = _make_finish(variant)

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
        return address_of(row, _beside(tile[0], column)) + (tile[1] + s + origin) * row[1]

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
    def to_memory_order(tile, thread, room, numbers):
        """Back again. The numbers stay in the room, too."""
        barrier()
        for k in range(K):
            room[uint32(thread * (K + 1) + k)] = numbers[k]
        barrier()
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
                factor = load(kind_a, address_of(rows[A], _beside(place, vector)))
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
        if backward and want_da:
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
                finish(rows, _beside(place, column), begin + stop - 1, g)
                column += vectors * chunks

    return owner, part_of, fill, spill
