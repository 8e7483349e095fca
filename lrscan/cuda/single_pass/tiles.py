"""Bringing a tile of time and columns into registers, and its results back to memory.

A tile is ``chunks`` x ``vectors`` threads. A thread owns K consecutive steps of V neighbouring
columns, K * V values of each operand:

    columns ->    vector 0              vector 1
    time   |   thread 0              thread 1              chunk 0      "columns"
           v   thread 2              thread 3              chunk 1

    time   |   thread 0              thread chunks         chunk 0      "time", "thin"
           v   thread 1              thread chunks + 1     chunk 1      (V is 1)

Where columns are contiguous a thread loads what it owns, ``lanes`` = V columns of a step at once.
In other layouts the threads first load in the order of memory, so that neighbouring threads read
neighbouring values, and then exchange through the room of the block:

    "columns"  inner column axis contiguous: no exchange
    "time"     time contiguous: a thread loads ``lanes`` steps at a time, the next thread the next
    "thin"     anything else, few columns above all: the next thread loads the next column

In the exchange the K values of a thread lie side by side with one place left free after them, so
that the accesses of a warp fall into different banks, of values of one or two banks:

    room   | thread 0: K values | free | thread 1: K values | free | ...

Beyond the ends of the tensors nothing is read: a step that is not there is the identity map.

:mod:`lrscan.cuda.single_pass.tiles_direct` does the first,
:mod:`lrscan.cuda.single_pass.tiles_staged` the other two. Each has a function
``make_tiles(variant, layout)`` that returns :class:`TileAccess`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.cuda.memory import load, store
from lrscan.cuda.steps import Place, Variant, address_of, compiled, inlined

MOST_THREADS = 256
# Two blocks on a multiprocessor leave a thread 128 registers: a quarter of them for each of two
# operands.
BLOCKS_AN_SM = 2
REGISTER_BYTES = 128
MOST_LEFT = 2**30  # a number of steps that can be divided


class Layout(NamedTuple):
    """How a tile's values lie in memory.

    order   "columns", "time" or "thin"
    lanes   neighbouring values of an access: columns, or steps. If they are several, addresses and
            strides are multiples of 16 bytes, and the extent along them is one of lanes
    same_a  the coefficient is the same for the lanes ("columns"), or for all of time ("time")
    down    time runs against addresses; matters only for several lanes of "time"
    """

    order: str
    lanes: int
    same_a: bool = False
    down: bool = False


class Tile(NamedTuple):
    """A tile of a kernel.

    nth         its place in time
    place       of its first column
    first_step
    left        steps from there to the end of time, or MOST_LEFT
    width       columns that it has, the last of a line fewer than the others
    vectors     threads side by side over its columns
    chunks      threads after each other in time
    """

    nth: int
    place: Place
    first_step: int
    left: int
    width: int
    vectors: int
    chunks: int


class TileAccess(NamedTuple):
    """A tile's threads, and its way into registers and back.

    owner(tile, chunk, vector)              the thread that owns them
    part_of(tile, thread)                   (chunk, vector) that a thread owns
    fill(rows, tile, thread, room, a, x)    reads coefficients and inputs of a thread's steps
    spill(rows, tile, thread, room, x, before, da)
                                            writes the results for states x

    ``a``, ``x`` and ``before`` are arrays of numbers in registers, for all values of a thread. What
    ``fill`` leaves lies step by step, the columns of a step side by side. ``da`` has room for
    ``lanes`` values.
    """

    owner: Callable
    part_of: Callable
    fill: Callable
    spill: Callable


def values_of(variant: Variant) -> int:
    """Values of each operand that a thread owns, a power of two.

    Half as many in backward sweeps of several planes, which compute with more registers.
    """
    info = max(described(variant.coefficient), described(variant.state), key=lambda kind: kind.size)
    halved = variant.backward and info.planes * info.numbers > 1
    fit = REGISTER_BYTES // info.size // (2 if halved else 1)
    return 1 << max(fit, 1).bit_length() - 1


def shape_of(variant: Variant, layout: Layout) -> tuple[int, int]:
    """(K, V): steps and columns that a thread owns."""
    columns = layout.lanes if layout.order == "columns" else 1
    return values_of(variant) // columns, columns


@inlined
def beside(place, j):
    """The place of the column ``j`` further along the inner axis."""
    return Place(place.outer, place.middle, place.inner + j)


def make_finish(variant: Variant) -> Callable:
    """Backward, what there is to do at the sweep's last step t but to write dx: da, and dh0."""
    kind_a, kind_start, want_da = variant.a, variant.start, variant.want_da
    algebra = compiled(variant)
    zero, remembered = algebra.zero, algebra.remembered
    coefficient_gradient, state_gradient = algebra.coefficient_gradient, algebra.state_gradient

    @inlined
    def finish(rows, place, t, g):
        if want_da:
            h = zero
            if rows.start.address != 0:
                h = load(kind_start, address_of(rows.start, place))
            da = address_of(rows.da, place) + t * rows.da.time
            store(kind_a, da, coefficient_gradient(h, g))
        if rows.dstart.address != 0:
            a = load(kind_a, address_of(rows.a, place) + (t + 1) * rows.a.time)
            gradient = state_gradient(a, remembered(a, g))
            store(kind_start, address_of(rows.dstart, place), gradient)

    return finish
