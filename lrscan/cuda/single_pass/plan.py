"""Choosing the layout, the tiles and the groups of a single-pass scan, by shape alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lrscan.core.dtypes import KINDS
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, shape_of, sizes_of
from lrscan.cuda.steps import BEFORE, DA, OUT, A, Variant, X

FEWEST_THREADS = 32
WARP = 32
# Bytes of a row of columns that are read together: a cache line, or at least one of its sectors.
LINE_BYTES, SECTOR_BYTES = 128, 32
# Tiles for each multiprocessor, if need be with fewer threads a tile.
TILES_AN_SM = 2
# The states of all columns are handed on for so many elements or more: at 12 bytes each these take
# about 4 microseconds of an H100's memory, and handing on about one. Tiles that have fewer do it in
# groups, no larger than need be: a tile reads the maps of all before it in its group.
CHAINED_ELEMENTS = 2**20
RADIX = 32
# Threads of a tile where no maps are handed on: twice as many tiles run at a time, and while some
# wait others load. On an H200 that took 0.90 to 0.96 of the time; where maps are handed on it took
# up to a fifth longer, for there are twice as many of them.
UNCHAINED_THREADS = MOST_THREADS // 2


class Plan(NamedTuple):
    """The sizes of a launch.

    vectors, chunks  threads of a tile, along columns and time
    radix            tiles a group
    tiles            in time
    strips           tiles side by side over a row of columns
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


def layout_of(variant: Variant, rows: Sequence[Sequence[int]], extents: Sequence[int]) -> Layout:
    """The layout of operands, given as the rows and extents of :mod:`lrscan.cuda.steps`."""
    steps, n2, n1, n0 = extents
    kinds = {A: variant.a, X: variant.x, OUT: variant.x, BEFORE: variant.x, DA: variant.a}
    there = {row: KINDS[kind].size for row, kind in kinds.items() if rows[row][0]}
    size = there[X]
    lanes = max(16 // size, 1)
    lead = OUT if OUT in there else X
    others = {row: own for row, own in there.items() if row != A}
    along_columns = all(rows[row][4] == own for row, own in others.items())
    if along_columns and n0 * size >= SECTOR_BYTES and rows[A][4] in (0, there[A]):
        same_a = rows[A][4] == 0
        wide = others if same_a else there
        aligned = n0 % lanes == 0 and all(
            number % 16 == 0 for row in wide for number in rows[row][:4]
        )
        return Layout("columns", lanes if aligned else 1, same_a)
    if n0 == 1 or abs(rows[lead][1]) < abs(rows[lead][4]):
        same_a = rows[A][1] == 0
        wide = others if same_a else there
        back = (lanes - 1) * size if rows[X][1] < 0 else 0
        aligned = steps % lanes == 0 and all(
            rows[row][1] == (own if rows[X][1] > 0 else -own)
            and (rows[row][0] - back * own // size) % 16 == 0
            and all(number % 16 == 0 for number in rows[row][2:])
            for row, own in wide.items()
        )
        if variant.backward or not aligned:  # backward two operands are a step off
            lanes = 1
        return Layout("time", lanes, same_a, lanes > 1 and back > 0)
    return Layout("thin", 1)


def plan(variant: Variant, layout: Layout, extents: Sequence[int], processors: int) -> Plan:
    """The sizes of a launch over ``extents``.

    Tiles are as short in time as the width of memory accesses allows where columns are many, and
    as long as they can be where columns are few, so that few states are handed on.
    """
    steps, n2, n1, n0 = extents
    K, V = shape_of(variant, layout)
    most = MOST_THREADS
    # Fewer threads a tile, until every multiprocessor has tiles enough.
    elements = steps * n2 * n1 * n0
    while most > FEWEST_THREADS and elements < processors * TILES_AN_SM * most * K * V:
        most //= 2
    smaller = _plan(variant, layout, extents, min(most, UNCHAINED_THREADS))
    return smaller if smaller.radix == 1 else _plan(variant, layout, extents, most)


def _plan(variant: Variant, layout: Layout, extents: Sequence[int], most: int) -> Plan:
    """The sizes of a launch with at most so many threads a tile."""
    steps, n2, n1, n0 = extents
    K, V = shape_of(variant, layout)
    across = -(-n0 // V)  # threads side by side over a whole row of columns
    if layout.order == "columns":
        vectors = min(across, max(LINE_BYTES // (V * KINDS[variant.x].size), 1))
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
    wanted = -(-CHAINED_ELEMENTS // (chunks * K * n2 * n1 * n0))
    room = 1 + sizes_of(variant, layout).gathered // (2 * vectors * V)
    radix = min(wanted, RADIX, tiles, room)
    return Plan(vectors, chunks, radix, tiles, strips, tiles * n2 * n1 * strips)
