"""Choosing the layout, the tiles and the groups of a single-pass scan, by shape alone."""

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
# Bytes of a row of columns that are read together: a cache line, or at least one of its sectors.
LINE_BYTES, SECTOR_BYTES = 128, 32
# Tiles for each multiprocessor, if need be with fewer threads a tile.
TILES_AN_SM = 2
# States are handed on for so many values of all columns or more: at 12 bytes each these take about
# 4 microseconds of an H100's memory, and handing on about one. Tiles that have fewer do it in
# groups, no larger than need be: a tile reads the maps of all before it in its group.
GROUP_VALUES = 2**20
RADIX = 32
# Threads of a tile where no maps are handed on: twice as many tiles run at a time, and while some
# wait others load. On an H200 that took 0.90 to 0.96 of the time; where maps are handed on it took
# up to a fifth longer, for there are twice as many of them.
THREADS_WITHOUT_MAPS = MOST_THREADS // 2


class Plan(NamedTuple):
    """The sizes of a launch.

    vectors, chunks  threads of a tile, along columns and time
    radix            tiles a group
    tiles            in time
    strips           tiles side by side over a line of columns
    grid             tiles altogether
    """

    vectors: int
    chunks: int
    radix: int
    tiles: int
    strips: int
    grid: int

    @property
    def threads(self) -> int:
        """Threads of a block: those of a tile, to whole warps."""
        return -(-self.vectors * self.chunks // WARP) * WARP


def layout_of(variant: Variant, rows: Rows, extents: Extents) -> Layout:
    """The layout of operands, given as the rows and extents of :mod:`lrscan.cuda.steps`."""
    kinds = {"a": variant.a, "da": variant.a} | dict.fromkeys(("x", "out", "before"), variant.x)
    # The rows along time that are there, each with the bytes of a value.
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
        # Where time runs down, a unit of lanes begins at its last step.
        aligned = extents.steps % lanes == 0 and all(
            row.time == (-size if down else size)
            and (row.address - (lanes - 1) * size * down) % 16 == 0
            and all(number % 16 == 0 for number in (row.outer, row.middle, row.inner))
            for row, size in (others if same_a else sizes).values()
        )
        if variant.backward or not aligned:  # backward two operands are a step off
            lanes = 1
        return Layout("time", lanes, same_a, lanes > 1 and down)
    return Layout("thin", 1)


def plan(variant: Variant, layout: Layout, extents: Extents, processors: int) -> Plan:
    """The sizes of a launch over ``extents``.

    Tiles are as short in time as the width of memory accesses allows where columns are many, and
    as long as they can be where columns are few, so that few states are handed on.
    """
    K, V = shape_of(variant, layout)
    most = MOST_THREADS
    # Fewer threads a tile, until every multiprocessor has tiles enough.
    elements = math.prod(extents)
    while most > FEWEST_THREADS and elements < processors * TILES_AN_SM * most * K * V:
        most //= 2
    smaller = _plan(variant, layout, extents, min(most, THREADS_WITHOUT_MAPS))
    return smaller if smaller.radix == 1 else _plan(variant, layout, extents, most)


def _plan(variant: Variant, layout: Layout, extents: Extents, most: int) -> Plan:
    """The sizes of a launch with at most so many threads a tile."""
    steps, outer, middle, inner = extents
    K, V = shape_of(variant, layout)
    across = -(-inner // V)  # threads side by side over a whole row of columns
    if layout.order == "columns":
        vectors = min(across, max(LINE_BYTES // (V * described(variant.x).size), 1))
    else:
        vectors = 1 if layout.order == "time" else min(across, WARP)
    vectors = min(vectors, most)
    chunks = min(most // vectors, -(-steps // K))
    # Time is short: take more columns instead.
    vectors = min(across, most // chunks)
    tiles = -(-steps // (chunks * K))
    chunks = -(-steps // (tiles * K))  # of equal length, so that the last tile is not nearly empty
    tiles = -(-steps // (chunks * K))
    strips = -(-across // vectors)
    wanted = -(-GROUP_VALUES // (chunks * K * outer * middle * inner))
    fitting = 1 + room_of(variant, layout).maps // (vectors * V)
    radix = min(wanted, RADIX, tiles, fitting)
    return Plan(vectors, chunks, radix, tiles, strips, tiles * outer * middle * strips)
