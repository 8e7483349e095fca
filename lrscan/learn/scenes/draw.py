"""Scenes of dependences: traced scans, gradients, brackets, networks, tiles in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrscan.core import algebra
from lrscan.learn.machines import trace
from lrscan.learn.machines.lookback import Timeline
from lrscan.learn.machines.machine import START, Cell, Trace, show
from lrscan.learn.scenes.scene import Arrow, Box, Line, Scene, Shape, Text

ROW = 0.95  # height of a round
PITCH = 1.25  # from one state to the next if all are in a row
SCALE = 0.42  # width of a unit of time in a time line
WORK = {"load": "input", "wait": "wait", "look": "carry", "write": "state"}  # styles of its spans
TITLES = {
    "serial": "Serial loop: each state waits for the one before it",
    "Hillis-Steele": "Hillis and Steele: each lane composes with the lane 1, 2, 4, ... before it",
    "Blelloch": "Blelloch's tree: pairs go up, then states come down",
    "blocked": "Blocked scan: reduce chunks, pass carries in a chain, run chunks again",
    "blocked, tree": "Blocked scan, tree: reduce chunks, scan the carries, run chunks again",
}
MODES = {
    "chain": "Chain: each tile waits for the prefix of the tile before it",
    "look-back": "Look-back: each tile walks back over totals until it meets a prefix",
}


def scan(traced: Trace) -> Scene:
    """Draw a trace: steps from left to right, rounds from top to bottom, an arrow per operand.

    A round is a frame. Pairs are light, states are dark. Arrows come from the round that wrote
    the operand; a cell that is not written in a round is not drawn again. h0 is at the left, a row
    above its first use. Its arrows run between the rows, so that they cross no box.
    """
    wide = 1.35 if any(len(show(e.value)) > 6 for e in traced.events) else 1.0
    columns = _columns(traced)
    shapes: list[Shape] = []
    for t, pair in enumerate(traced.inputs):
        shapes.append(Box(t * wide, 0, show(pair), "input", width=0.84 * wide))
        shapes.append(Text(t * wide, 0.42, str(t)))
    left = columns[START] * wide
    margin = left - 0.42 * wide - 0.18
    shapes.append(Text(margin, 0.42, "step", align="right"))
    shapes.append(Text(margin, 0, "a, x", align="right"))
    begin = min(event.round for event in traced.events if START in event.reads) - 1
    start = Box(left, -ROW * begin, show(traced.h0), "state", width=0.84 * wide)
    shapes += [start, Text(left, start.y + 0.42, "h0")]
    for event in traced.events:
        here = columns[event.writes] * wide
        y = -ROW * event.round
        for cell, source in zip(event.reads, event.sources, strict=True):
            if source == 0 and cell.index >= len(traced.inputs):
                continue  # an identity: the start of a chunk, or padding
            if cell == START:
                shapes += _from_start(start, here, y, event.round)
                continue
            there = columns[cell] * wide
            style = "state" if cell.kind == "state" else "plain"
            far = style == "plain" and there == here and source < event.round - 1
            aside = 0.22 if far else 0  # beside the states that come down the same column
            ends = there + aside, -ROW * source, here + aside, y
            shapes.append(Arrow(*ends, style, event.round, 0.84 * wide))
        style = "state" if event.writes.kind == "state" else "pair"
        style = "faint" if event.op == "move" else style
        shapes.append(Box(here, y, show(event.value), style, event.round, 0.84 * wide))
    for k, active in enumerate(traced.active, 1):
        label = f"round {k}:\n{active} at work"
        shapes.append(Text(margin, -ROW * k, label, k, align="right"))
    return Scene(
        TITLES[traced.algorithm],
        f"The {traced.algorithm} scan of {len(traced.inputs)} steps as rows of boxes, one row per "
        f"round, with arrows from operands to results: {traced.rounds} rounds with "
        f"{', '.join(map(str, traced.active))} operations, {traced.work} in total.",
        ["The input: a pair (a, x) for every step.", *_captions(traced)],
        shapes,
    )


def _from_start(start: Box, x: float, y: float, frame: int) -> list[Shape]:
    """Draw from the box of h0 down, along the gap above a row, and down into a box of it."""
    gap, x, half = y + ROW / 2, x - 0.25, start.height / 2
    line = (start.x, start.y - half), (start.x, gap), (x, gap)
    return [Line(line, "state", frame), Arrow(x, gap + half, x, y, "state", frame)]


def _columns(traced: Trace) -> dict[Cell, float]:
    """Return the column of each cell: pairs of a chunk at its end, its carry at its start."""
    n = len(traced.inputs)
    columns = {START: -1.25}
    written = {event.writes for event in traced.events}
    for cell in {Cell("pair", t) for t in range(n)} | written:
        columns[cell] = float(cell.index)
    extra = [cell for cell in written if cell.index >= n]
    if traced.algorithm.startswith("blocked"):
        edges = trace.chunk_edges(n, len({c for c in extra if c.kind == "pair"}))
        for cell in extra:
            chunk = cell.index - n
            columns[cell] = edges[chunk] if cell.kind == "state" else edges[chunk + 1] - 1.0
    return columns


def _captions(traced: Trace) -> list[str]:
    captions = []
    for k, (caption, active) in enumerate(zip(traced.captions, traced.active, strict=True), 1):
        done = [e for e in traced.events if e.round == k and e.op != "move"]
        writes = "; ".join(f"{_place(e.writes, traced)}: {show(e.value)}" for e in done[:8])
        more = "; ..." if len(done) > 8 else ""
        captions.append(f"Round {k}, {caption}. {active} at work. {writes}{more}")
    return captions


def _place(cell: Cell, traced: Trace) -> str:
    """Name the step of a cell, or the chunk: a blocked scan keeps chunks after the steps."""
    chunk = cell.index - len(traced.inputs)
    return f"chunk {chunk}" if chunk >= 0 and "blocked" in traced.algorithm else str(cell.index)


def chain(a: Sequence, x: Sequence, h0: Any = 0) -> Scene:
    """Draw the serial loop: all states in one row, with arrows from what each waits for."""
    traced = trace.serial(a, x, h0)
    shapes: list[Shape] = [Box(-PITCH, 0, show(h0), "state"), Text(-PITCH, -0.45, "h0")]
    shapes.append(Text(-PITCH, 1, "a, x"))
    for t, (pair, h) in enumerate(zip(traced.inputs, traced.states, strict=True)):
        at = PITCH * t
        shapes += [
            Box(at, 1, show(pair), "input"),
            Arrow(at, 1, at, 0, frame=t + 1),
            Arrow(at - PITCH, 0, at, 0, "state", t + 1),
            Box(at, 0, show(h), "state", t + 1),
            Text(at, -0.45, f"step {t}"),
        ]
    captions = [f"Before the loop: h0 = {show(h0)}, and all inputs are there."]
    captions += [
        f"Step {t}: {show(a[t])} * {show(before)} + {show(x[t])} = {show(h)}."
        for t, (before, h) in enumerate(zip([h0, *traced.states], traced.states, strict=False))
    ]
    return Scene(
        "The serial loop: each state waits for the one to its left",
        f"{len(a)} states in a row. A blue arrow leads from each state to the next, so none can "
        "start early.",
        captions,
        shapes,
    )


def gradient_chain(a: Sequence, x: Sequence, dh: Sequence, h0: Any = 0) -> Scene:
    """Draw states from left to right, and below them gradients from right to left."""
    n, pitch = len(a), 2.0
    h = trace.serial(a, x, h0).states
    g = trace.serial([*a[1:], 0][::-1], dh[::-1]).states[::-1]
    shapes: list[Shape] = [Box(-pitch, 0, show(h0), "state"), Text(-pitch, 0.45, "h0")]
    for label, y in (("h", 0), ("g", -1.6), ("dh", -2.7)):
        shapes.append(Text(-1.6 * pitch, y, label, bold=True))
    for t in range(n):
        at = t * pitch
        shapes.append(Arrow(at - pitch, 0, at, 0, "state", t + 1))
        shapes.append(Text(at - pitch / 2, 0.22, f"a[{t}] = {show(a[t])}", t + 1))
        shapes.append(Box(at, 0, show(h[t]), "state", t + 1))
        shapes.append(Text(at, 0.45, f"h[{t}]", t + 1))
        shapes.append(Box(at, -2.7, show(dh[t]), "input", 0))
        frame = 2 * n - t
        shapes.append(Arrow(at, -2.7, at, -1.6, frame=frame))
        if t + 1 < n:
            shapes.append(Arrow(at + pitch, -1.6, at, -1.6, "carry", frame))
            shapes.append(Text(at + pitch / 2, -1.38, f"a[{t + 1}] = {show(a[t + 1])}", frame))
        shapes.append(Box(at, -1.6, show(g[t]), "carry", frame))
        shapes.append(Text(at + 0.3, -1.15, f"g[{t}]", frame))
    captions = ["Before: the start h0, and the gradients dh that come from the loss."]
    captions += [f"Forward: h[{t}] = {show(h[t])}." for t in range(n)]
    for t in reversed(range(n)):
        more = f" + a[{t + 1}] * g[{t + 1}]" if t + 1 < n else ""
        captions.append(f"Backward: g[{t}] = dh[{t}]{more} = {show(g[t])}.")
    return Scene(
        "States run to the right, gradients to the left, over the same coefficients",
        f"{n} states with arrows to the right, each labelled with its coefficient. Below them {n} "
        "gradients with arrows to the left: the one from g[t+1] to g[t] is labelled with a[t+1].",
        captions,
        shapes,
    )


def surrogate() -> Scene:
    """Draw the dependences of an RNN and of a linear surrogate RNN over three steps."""
    shapes: list[Shape] = []
    at_x, at_s, at_g, at_c = -5.2, -3.9, -2.6, -1.3  # heights of the rows; h is at 0
    for left, title in ((0.0, "RNN"), (8.0, "linear surrogate RNN")):
        shapes.append(Text(left + 2.2, 0.8, title, bold=True))
        shapes += [Box(left + 2.2 * t, at_x, f"x{t}", "input") for t in range(3)]
    for t in range(3):
        x, frame = 2.2 * t, t + 1
        shapes.append(Box(x, 0, f"h{t}", "state", frame))
        shapes.append(Arrow(x, at_x, x, 0, frame=frame))
        if t:
            shapes.append(Arrow(x - 2.2, 0, x, 0, "state", frame))
    for t in range(3):
        x = 8 + 2.2 * t
        cell, h = x + 1.1, x + 2.2
        shapes += [Box(x, at_s, f"s{t}", "pair", 4), Arrow(x, at_x, x, at_s, frame=4)]
        shapes += [Box(cell, at_g, f"g{t}", frame=5), Arrow(x, at_x, cell, at_g, frame=5)]
        shapes += [Box(cell, at_c, f"c{t}", "pair", 6), Arrow(cell, at_g, cell, at_c, frame=6)]
        shapes += [Box(h, 0, f"h{t}", "state", 7), Arrow(cell, at_c, h, 0, frame=7)]
        shapes.append(Arrow(cell, at_g, h, 0, frame=7))
        if t:
            shapes.append(Arrow(x - 2.2, at_s, x, at_s, "state", 4))
            shapes.append(Arrow(x - 2.2, at_s, cell, at_g, frame=5))
            shapes.append(Arrow(cell - 2.2, at_c, cell, at_c, "state", 6))
    captions = [
        "The inputs of three steps.",
        "RNN: h0 from x0.",
        "RNN: h1 waits for h0, through a nonlinear function and a matrix.",
        "RNN: h2 waits for h1. This is a loop on any hardware.",
        "Surrogate: one linear scan over the inputs gives s0, s1 and s2.",
        "Then all gates g at once, each from its input and the surrogate of the step before.",
        "Then a second linear scan gives all cells c, because their gates are there.",
        "Then every h at once, each from its cell and a gate.",
    ]
    return Scene(
        "An RNN waits step by step; a linear surrogate RNN is two scans",
        "Left: three hidden states of an RNN in a chain. Right, from below: three surrogate "
        "states from a scan; gates that wait only for surrogates and inputs; three cells from a "
        "second scan; three hidden states, each from its cell and a gate.",
        captions,
        shapes,
    )


def brackets(pairs: Sequence[tuple], order: str) -> Scene:
    """Draw how neighbouring maps are composed until one is left, a frame per composition.

    Args:
        pairs: the maps, in order of time
        order: "left", "right" or "tree"

    Raises:
        ValueError: the order is unknown
    """
    if order not in ("left", "right", "tree"):
        raise ValueError(f"order is {order!r}, expected 'left', 'right' or 'tree'")
    wide = 1.5
    row = [(t * wide, 0.0, tuple(pair)) for t, pair in enumerate(pairs)]
    shapes: list[Shape] = [Box(x, y, show(pair), "input", 0, 1.25) for x, y, pair in row]
    shapes += [Text(x, 0.45, f"map {t + 1}") for t, (x, _, _) in enumerate(row)]
    captions = ["The maps, in order of time from left to right."]
    at = 0
    while len(row) > 1:
        if order != "tree":
            at = 0 if order == "left" else len(row) - 2
        elif at >= len(row) - 1:
            at = 0
        (x1, y1, first), (x2, y2, second) = row[at], row[at + 1]
        value = algebra.compose(*first, *second)
        x, y = (x1 + x2) / 2, min(y1, y2) - 1
        frame = len(captions)
        shapes += [Arrow(x1, y1, x, y, frame=frame, width=1.25)]
        shapes += [Arrow(x2, y2, x, y, frame=frame, width=1.25)]
        shapes.append(Box(x, y, show(value), "pair", frame, 1.25))
        captions.append(f"({show(first)}) then ({show(second)}) is ({show(value)}).")
        row[at : at + 2] = [(x, y, value)]
        at += 1
    manner = "as a tree" if order == "tree" else f"from the {order}"
    return Scene(
        f"{len(pairs)} maps composed {manner}",
        f"{len(pairs)} maps composed {manner}, two at a time, until one is left: "
        f"{show(row[0][2])}.",
        captions,
        shapes,
    )


def timeline(times: Timeline) -> Scene:
    """Draw a row for each processor, time from left to right, a frame for each unit of time."""
    processors = 1 + max(span.processor for span in times.spans)
    shapes: list[Shape] = []
    for p in range(processors):
        shapes.append(Text(-0.3, -0.8 * p, f"processor {p}", align="right"))
    shapes.append(Text(-0.3, 0.6, "time", align="right"))
    for time in range(0, times.end + 1, 5):
        shapes.append(Text(time * SCALE, 0.6, str(time)))
    for span in times.spans:
        middle, width = (span.start + span.stop) / 2 * SCALE, (span.stop - span.start) * SCALE
        text = str(span.tile) if span.kind in ("load", "write") else ""
        style = WORK[span.kind]
        y = -0.8 * span.processor
        shapes.append(Box(middle, y, text, style, span.start, width - 0.04, 0.6))
    legend = -0.8 * processors - 0.1
    for k, (kind, style) in enumerate(WORK.items()):
        shapes.append(Box(0.4 + 3 * k, legend, "", style, 0, 0.6, 0.4))
        shapes.append(Text(0.8 + 3 * k, legend, kind, align="left"))
    captions = []
    for time in range(times.end + 1):
        started = [s for s in times.spans if s.start == time]
        news = "; ".join(f"tile {s.tile} begins to {s.kind}" for s in started)
        captions.append(f"Time {time}: {news or 'nothing new'}.")
    tiles = len(times.sources)
    return Scene(
        MODES[times.mode],
        f"Time line of {tiles} tiles on {processors} processors ({times.mode}): every tile is "
        f"loaded, waits or looks for its carry, and is written. The last one ends at time "
        f"{times.end}. Sources of the carries: "
        + "; ".join(f"tile {t} from {', '.join(s)}" for t, s in enumerate(times.sources) if s)
        + ".",
        captions,
        shapes,
    )


ALGORITHMS = {
    name: lambda a, x, h0=0, run=run: scan(run(a, x, h0)) for name, run in trace.ALGORITHMS.items()
}
