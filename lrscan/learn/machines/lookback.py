"""A model in time of how tiles pass their carries on: one launch of a scan over many tiles.

A processor takes the next tile, loads it, publishes its total (the pair of the whole tile), finds
the carry, and writes. How it finds the carry is the difference:

    chain      wait until the tile before has published its prefix (everything up to its end)
    look-back  walk back over totals until a prefix is met (Merrill and Garland 2016)

Times are in units of one hop, a read of another tile's flag and value. They are a model with round
numbers, to show the order of events; they are not measurements.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from lrscan.learn.scenes.scene import Box, Scene, Shape, Text

LOAD, HOP, WRITE = 4, 1, 2
STYLE = {"load": "input", "wait": "wait", "look": "carry", "write": "state"}
SCALE = 0.42  # units of the scene for a unit of time


class Span(NamedTuple):
    """Something that a processor does for a tile from ``start`` to ``stop``."""

    tile: int
    processor: int
    kind: str
    start: int
    stop: int


class Timeline(NamedTuple):
    """All spans, and for each tile from which tiles it took its carry."""

    mode: str
    spans: list[Span]
    sources: list[list[str]]

    @property
    def end(self) -> int:
        return max(span.stop for span in self.spans)


def simulate(
    tiles: int, processors: int, mode: str, delays: Mapping[int, int] | None = None
) -> Timeline:
    """The timeline of one launch.

    Args:
        tiles, processors: how many there are
        mode:              "chain" or "look-back"
        delays:            for a tile, how much longer its load takes

    Raises:
        ValueError: a number below 1, an unknown mode, a delayed tile that there is not
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
    totals: list[int] = []  # when each is published
    prefixes: list[int] = []
    sources: list[list[str]] = []
    for tile in range(tiles):
        start, processor = heapq.heappop(free)
        now = start + LOAD + delays.get(tile, 0)
        spans.append(Span(tile, processor, "load", start, now))
        totals.append(now)
        at, taken = tile - 1, []
        while at >= 0:
            there = prefixes[at] if mode == "chain" else min(totals[at], prefixes[at])
            if there > now:
                spans.append(Span(tile, processor, "wait", now, there))
                now = there
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


def scene(timeline: Timeline, longest: int | None = None) -> Scene:
    """A row for each processor, time from left to right, a frame a unit of time."""
    processors = 1 + max(span.processor for span in timeline.spans)
    end = longest or timeline.end
    shapes: list[Shape] = []
    for p in range(processors):
        shapes.append(Text(-0.3, -0.8 * p, f"processor {p}", align="right"))
    for time in range(0, end + 1, 5):
        shapes.append(Text(time * SCALE, 0.6, str(time)))
    for span in timeline.spans:
        middle, width = (span.start + span.stop) / 2 * SCALE, (span.stop - span.start) * SCALE
        text = str(span.tile) if span.kind in ("load", "write") else ""
        style = STYLE[span.kind]
        y = -0.8 * span.processor
        shapes.append(Box(middle, y, text, style, span.start, width - 0.04, 0.6))
    legend = -0.8 * processors - 0.1
    for k, (kind, style) in enumerate(STYLE.items()):
        shapes.append(Box(0.4 + 3 * k, legend, "", style, 0, 0.6, 0.4))
        shapes.append(Text(0.8 + 3 * k, legend, kind, align="left"))
    captions = []
    for time in range(timeline.end + 1):
        begun = [s for s in timeline.spans if s.start == time]
        what = "; ".join(f"tile {s.tile} begins to {s.kind}" for s in begun)
        captions.append(f"Time {time}. {what or 'nothing new'}.")
    tiles = len(timeline.sources)
    return Scene(
        f"{timeline.mode}: {tiles} tiles done at time {timeline.end}",
        f"Time line of {tiles} tiles on {processors} processors with a {timeline.mode}: every tile "
        f"is loaded, waits or looks for its carry, and is written; the last ends at "
        f"{timeline.end}. "
        + "; ".join(f"tile {t} took {', '.join(s)}" for t, s in enumerate(timeline.sources) if s),
        captions,
        shapes,
    )
