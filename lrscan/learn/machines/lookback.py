"""A model in time of how tiles pass on their carries, in one launch of a scan over many tiles.

A processor takes the next tile, loads it, publishes its total (the pair of the whole tile), finds
the carry, and writes. There are two ways to find the carry::

    chain      wait until the tile before has published its prefix (everything up to its end)
    look-back  walk back over totals until a prefix is met (Merrill and Garland 2016)

Times are in units of one hop, which is a read of another tile's flag and value. The numbers are
round, to show the order of events. They are no measurements.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

LOAD, HOP, WRITE = 4, 1, 2


class Span(NamedTuple):
    """One activity of a processor for a tile, from ``start`` to ``stop``."""

    tile: int
    processor: int
    kind: str
    start: int
    stop: int


class Timeline(NamedTuple):
    """All spans, and for each tile the totals and prefixes that gave its carry."""

    mode: str
    spans: list[Span]
    sources: list[list[str]]

    @property
    def end(self) -> int:
        """The time at which the last tile is written."""
        return max(span.stop for span in self.spans)


def simulate(
    tiles: int, processors: int, mode: str, delays: Mapping[int, int] | None = None
) -> Timeline:
    """Simulate one launch.

    Args:
        tiles:      the number of tiles
        processors: the number of processors
        mode:       "chain" or "look-back"
        delays:     for some tiles, how much longer the load takes

    Raises:
        ValueError: a number is below 1, the mode is unknown, or a delayed tile does not exist
    """
    delays = dict(delays or {})
    if tiles < 1 or processors < 1:
        raise ValueError(f"{tiles} tiles on {processors} processors: both must be at least 1")
    if mode not in ("chain", "look-back"):
        raise ValueError(f"mode is {mode!r}, expected 'chain' or 'look-back'")
    if unknown := [tile for tile in delays if not 0 <= tile < tiles]:
        raise ValueError(f"tile {unknown[0]} is delayed, but there are tiles 0 to {tiles - 1}")
    free = [(0, p) for p in range(processors)]
    spans: list[Span] = []
    totals: list[int] = []  # the times at which they are published
    prefixes: list[int] = []
    sources: list[list[str]] = []
    for tile in range(tiles):
        start, processor = heapq.heappop(free)
        now = start + LOAD + delays.get(tile, 0)
        spans.append(Span(tile, processor, "load", start, now))
        totals.append(now)
        at, taken = tile - 1, []
        while at >= 0:
            published = prefixes[at] if mode == "chain" else min(totals[at], prefixes[at])
            if published > now:
                spans.append(Span(tile, processor, "wait", now, published))
                now = published
            whole = prefixes[at] <= now
            spans.append(Span(tile, processor, "look", now, now + HOP))
            now += HOP
            taken.append(f"{'prefix' if whole else 'total'} {at}")
            if whole:
                break
            at -= 1
        prefixes.append(now)
        spans.append(Span(tile, processor, "write", now, now + WRITE))
        heapq.heappush(free, (now + WRITE, processor))
        sources.append(taken)
    return Timeline(mode, spans, sources)
