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

:mod:`lrscan.cuda.single_pass.tiles_direct` does the first,
:mod:`lrscan.cuda.single_pass.tiles_staged` the other two. The function
``make_tiles(variant, layout)`` of each returns

    owner(tile, chunk, vector)              the thread that owns them
    part_of(tile, thread)                   (chunk, vector) that a thread owns
    fill(rows, tile, thread, room, a, x)    reads coefficients and inputs of a thread's steps
    spill(rows, tile, thread, room, a, x)   writes the results for states x; a is overwritten

where ``a`` and ``x`` are arrays in registers, step by step, the columns of a step side by side, and
``tile`` is the tuple (place, begin, length, width, vectors, chunks) of a kernel:

    place            (outer, middle, inner) index of its first column
    begin            its first step
    length           steps to the end of time, if that is in the tile or near
    width            columns that it has, the last of an axis fewer than the others
    vectors, chunks  its threads
"""

from __future__ import annotations

from typing import NamedTuple

from lrscan.core.dtypes import KINDS
from lrscan.cuda.memory import load, store
from lrscan.cuda.steps import (
    DA,
    DSTART,
    START,
    A,
    Variant,
    address_of,
    coefficient_gradient,
    inlined,
    remembered,
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


@inlined
def beside(place, j):
    """The place of the column ``j`` further along the inner axis."""
    return place[0], place[1], place[2] + j


def make_finish(variant: Variant):
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
            g = remembered(first_a, g, zero)
            store(kind_start, start, coefficient_gradient(first_a, g))

    return finish
