"""Choice of the layout, the tiles and the groups of a single-pass scan."""

from __future__ import annotations

import math
from typing import NamedTuple

from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cuda.single_pass.room import room_of
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, shape_of, values_of
from lrscan.cuda.steps import Extents, Variant

FEWEST_THREADS = 32
WARP = 32
# In the order "columns", a tile reads at least a sector of a row, and a whole cache line if it can.
LINE_BYTES, SECTOR_BYTES = 128, 32
# Aim for at least this many tiles per multiprocessor, if necessary with fewer threads per tile.
TILES_PER_SM = 2
# A group of tiles passes its states on. Aim for at least this many values per group, over all
# columns. At 12 bytes each, they keep the memory of an H100 busy for about 4 microseconds, and
# passing states on takes about one. Groups are no larger than necessary, because a tile reads the
# maps of all earlier tiles in its group. Often a single tile has enough values to be a group.
GROUP_VALUES = 2**20
RADIX = 32  # the most tiles per group
# The most threads per tile when tiles pass on states and no maps. Twice as many tiles run at a
# time, and some load while others wait. On an H200 this took 0.90 to 0.96 of the time. With maps it
# took up to a fifth longer, because there are twice as many maps.
THREADS_WITHOUT_MAPS = MOST_THREADS // 2


class Plan(NamedTuple):
    """Sizes of a launch.

    Attributes:
        vectors, chunks: threads per tile, along columns and along time
        radix: tiles per group
        tiles: tiles along time
        strips: tiles next to each other over a line of columns
        grid: total number of tiles
    """

    vectors: int
    chunks: int
    radix: int
    tiles: int
    strips: int
    grid: int

    @property
    def threads(self) -> int:
        """Threads per block: those of a tile, rounded up to whole warps."""
        return -(-self.vectors * self.chunks // WARP) * WARP


def layout_of(variant: Variant, rows: Rows, extents: Extents) -> Layout:
    """Return the layout of operands, given as rows and extents of :mod:`lrscan.cuda.steps`."""
    kinds = {"a": variant.a, "da": variant.a} | dict.fromkeys(("x", "out", "before"), variant.x)
    # The operands that exist and have an axis of time, each with the bytes per value.
    sizes = {
        row: (getattr(rows, row), described(kind).size)
        for row, kind in kinds.items()
        if getattr(rows, row).address
    }
    (a, a_size), (x, x_size) = sizes["a"], sizes["x"]
    others = {name: own for name, own in sizes.items() if name != "a"}
    lead = rows.out if "out" in sizes else x
    lanes = min(max(16 // x_size, 1), values_of(variant))
    along_columns = all(row.inner == size for row, size in others.values())
    if along_columns and extents.inner * x_size >= SECTOR_BYTES and a.inner in (0, a_size):
        same_a = a.inner == 0
        aligned = extents.inner % lanes == 0 and all(
            number % 16 == 0
            for row, _ in (others if same_a else sizes).values()
            for number in (row.address, row.time, row.outer, row.middle)
        )
        return Layout("columns", lanes if aligned else 1, same_a)
    if extents.inner == 1 or abs(lead.time) < abs(lead.inner):
        same_a, down = a.time == 0, x.time < 0
        # If time runs against addresses, a unit of lanes begins in memory with its last step.
        aligned = extents.steps % lanes == 0 and all(
            row.time == (-size if down else size)
            and (row.address - (lanes - 1) * size * down) % 16 == 0
            and all(number % 16 == 0 for number in (row.outer, row.middle, row.inner))
            for row, size in (others if same_a else sizes).values()
        )
        if variant.backward or not aligned:  # backward, two operands are shifted by a step
            lanes = 1
        return Layout("time", lanes, same_a, lanes > 1 and down)
    return Layout("thin", 1)


def plan(variant: Variant, layout: Layout, extents: Extents, processors: int) -> Plan:
    """Return the sizes of a launch over ``extents``.

    With many columns, tiles are as short in time as the width of memory accesses allows. With few
    columns they are as long as possible, so that few states are passed on.
    """
    K, V = shape_of(variant, layout)
    most = MOST_THREADS
    # Use fewer threads per tile until every multiprocessor has enough tiles.
    elements = math.prod(extents)
    while most > FEWEST_THREADS and elements < processors * TILES_PER_SM * most * K * V:
        most //= 2
    smaller = _plan(variant, layout, extents, min(most, THREADS_WITHOUT_MAPS))
    return smaller if smaller.radix == 1 else _plan(variant, layout, extents, most)


def _plan(variant: Variant, layout: Layout, extents: Extents, most: int) -> Plan:
    """Return the sizes of a launch with at most ``most`` threads per tile."""
    steps, outer, middle, inner = extents
    K, V = shape_of(variant, layout)
    across = -(-inner // V)  # threads next to each other over a whole row of columns
    if layout.order == "columns":
        vectors = min(across, max(LINE_BYTES // (V * described(variant.x).size), 1))
    else:
        vectors = 1 if layout.order == "time" else min(across, WARP)
    vectors = min(vectors, most)
    chunks = min(most // vectors, -(-steps // K))
    # If time is too short for all threads, take more columns instead.
    vectors = min(across, most // chunks)
    tiles = -(-steps // (chunks * K))
    chunks = -(-steps // (tiles * K))  # equal lengths, so that the last tile is not nearly empty
    tiles = -(-steps // (chunks * K))
    strips = -(-across // vectors)
    wanted = -(-GROUP_VALUES // (chunks * K * outer * middle * inner))
    fitting = 1 + room_of(variant, layout).maps // (vectors * V)
    radix = min(wanted, RADIX, tiles, fitting)
    return Plan(vectors, chunks, radix, tiles, strips, tiles * outer * middle * strips)
