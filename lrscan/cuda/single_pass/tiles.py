"""Transfer of a tile from memory to registers, and of its results back to memory.

A tile has ``chunks`` x ``vectors`` threads. A thread owns K consecutive steps of V neighbouring
columns, which are K * V values of each operand::

    columns ->    vector 0              vector 1
    time   |   thread 0              thread 1              chunk 0      "columns"
           v   thread 2              thread 3              chunk 1

    time   |   thread 0              thread chunks         chunk 0      "time", "thin"
           v   thread 1              thread chunks + 1     chunk 1      (V is 1)

There are three orders of a layout:

- "columns": the inner column axis is contiguous. A thread loads the values that it owns, ``lanes``
  = V columns of a step at once.
- "time": time is contiguous. A thread loads ``lanes`` steps at a time, and the next thread loads
  the next ones.
- "thin": any other layout, mostly those with few columns. The next thread loads the next column.

In "time" and "thin", threads load in the order of memory, so that neighbouring threads read
neighbouring values. Then they exchange values through shared memory (the room). There the K values
of a thread are adjacent, and one free place follows them. So the accesses of a warp fall into
different banks, for values that occupy one or two banks::

    room   | thread 0: K values | free | thread 1: K values | free | ...

Nothing is read beyond the ends of the tensors. A step there counts as the identity map.

:mod:`lrscan.cuda.single_pass.tiles_direct` implements "columns", and
:mod:`lrscan.cuda.single_pass.tiles_staged` the other two. Each has a function
``make_tiles(variant, layout)`` that returns a :class:`TileAccess`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.cuda.memory import load, store
from lrscan.cuda.steps import Place, Variant, address_of, compiled, inlined

MOST_THREADS = 256
# With two blocks per multiprocessor, a thread can have 128 registers. Each of two operands takes a
# quarter of them.
BLOCKS_PER_SM = 2
REGISTER_BYTES = 128
MOST_LEFT = 2**30  # small enough for divide(), also after adding the steps of a tile


class Layout(NamedTuple):
    """Layout of a tile's values in memory.

    Attributes:
        order: "columns", "time" or "thin"
        lanes: adjacent values per access, which are columns ("columns") or steps ("time"). If it is
            more than 1, addresses and strides are multiples of 16 bytes, and the number of columns
            or steps is a multiple of it.
        same_a: whether the coefficient is the same for all columns ("columns") or for all steps
            ("time")
        down: whether time runs against addresses. It is set only for "time" with several lanes.
    """

    order: str
    lanes: int
    same_a: bool = False
    down: bool = False


class Tile(NamedTuple):
    """A tile of a kernel.

    Attributes:
        nth: its number along time
        place: place of its first column
        first_step: its first step
        left: steps from ``first_step`` to the end of time, at most ``MOST_LEFT``
        width: how many columns it has; the last tile of a line may have fewer than the others
        vectors: threads along columns
        chunks: threads along time
    """

    nth: int
    place: Place
    first_step: int
    left: int
    width: int
    vectors: int
    chunks: int


class TileAccess(NamedTuple):
    """Functions that assign threads to the parts of a tile, and that read and write it.

    ``a``, ``x`` and ``before`` are arrays of numbers in registers, for all values of a thread.
    ``fill`` puts them in order of steps, with the columns of a step next to each other. ``da`` has
    space for ``lanes`` values.

    Attributes:
        owner: ``(tile, chunk, vector)`` returns the thread that owns this part
        part_of: ``(tile, thread)`` returns the (chunk, vector) that a thread owns
        fill: ``(rows, tile, thread, room, a, x)`` reads the coefficients and inputs of a thread's
            steps
        spill: ``(rows, tile, thread, room, x, before, da)`` writes the results, given the states x
    """

    owner: Callable
    part_of: Callable
    fill: Callable
    spill: Callable


def values_of(variant: Variant) -> int:
    """Return how many values of each operand a thread owns, a power of two.

    Backward sweeps over values with several planes have half as many, because their arithmetic
    needs more registers.
    """
    info = max(described(variant.coefficient), described(variant.state), key=lambda kind: kind.size)
    halved = variant.backward and info.planes * info.numbers > 1
    fit = REGISTER_BYTES // info.size // (2 if halved else 1)
    return 1 << max(fit, 1).bit_length() - 1


def shape_of(variant: Variant, layout: Layout) -> tuple[int, int]:
    """Return (K, V), the numbers of steps and of columns owned by a thread."""
    columns = layout.lanes if layout.order == "columns" else 1
    return values_of(variant) // columns, columns


@inlined
def beside(place, j):
    """Return the place of the column that is ``j`` columns further along the inner axis."""
    return Place(place.outer, place.middle, place.inner + j)


def make_finish(variant: Variant) -> Callable:
    """Return ``finish(rows, place, t, g)``, which writes da and dh0 at the last step of a sweep.

    It is for backward sweeps, and t is the last step. The caller writes dx.
    """
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
