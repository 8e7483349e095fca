"""Scenes of traced scans: positions from left to right, rounds from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

from lrscan.learn import trace
from lrscan.learn.scene import Arrow, Box, Scene, Shape, Text
from lrscan.learn.trace import START, Cell, Trace, show

ROW = 0.95  # height of a round
PITCH = 1.25  # from one state to the next where all stand in a row


def scan(traced: Trace) -> Scene:
    """A trace in space and time: a frame a round, and an arrow for every operand.

    Pairs are light, states are dark. Arrows come from the round that wrote the operand; a cell
    that is not written in a round is not drawn again.
    """
    wide = 1.35 if any(len(show(e.value)) > 6 for e in traced.events) else 1.0
    columns = _columns(traced)
    shapes: list[Shape] = []
    for t, pair in enumerate(traced.inputs):
        shapes.append(Box(t * wide, 0, show(pair), "input", width=0.84 * wide))
        shapes.append(Text(t * wide, 0.42, str(t)))
    left = min(columns.values()) * wide
    shapes.append(Text(left - 0.7, 0, "a, x", align="right"))
    shapes += [Box(-wide, 0, show(traced.h0), "state", width=0.84 * wide), Text(-wide, 0.42, "h0")]
    for event in traced.events:
        here = columns[event.writes] * wide
        y = -ROW * event.round
        for cell, source in zip(event.reads, event.sources, strict=True):
            if source == 0 and cell.index >= len(traced.inputs):
                continue  # an identity: what a piece starts from, or padding
            there = columns[cell] * wide
            style = "state" if cell.kind == "state" else "plain"
            shapes.append(Arrow(there, -ROW * source, here, y, style, event.round, 0.84 * wide))
        style = "state" if event.writes.kind == "state" else "pair"
        style = "faint" if event.op == "move" else style
        shapes.append(Box(here, y, show(event.value), style, event.round, 0.84 * wide))
    for k, active in enumerate(traced.active, 1):
        shapes.append(Text(left - 0.7, -ROW * k, f"round {k}", k, align="right"))
        right = max(columns.values()) * wide
        shapes.append(Text(right + 0.7, -ROW * k, f"{active} at work", k, align="left"))
    return Scene(
        f"{traced.algorithm}: {traced.rounds} rounds, {traced.work} operations",
        f"The {traced.algorithm} scan of {len(traced.inputs)} steps as rows of boxes, a row a "
        f"round, with arrows from operands to results: {traced.rounds} rounds with "
        f"{', '.join(map(str, traced.active))} operations.",
        ["The input: a pair (a, x) for every step.", *_captions(traced)],
        shapes,
    )


def _columns(traced: Trace) -> dict[Cell, float]:
    """Where each cell stands; pairs of a whole piece at its end, states into it at its start."""
    n = len(traced.inputs)
    columns = {START: -1.0}
    written = {event.writes for event in traced.events}
    for cell in {Cell("pair", t) for t in range(n)} | written:
        columns[cell] = float(cell.index)
    extra = [cell for cell in written if cell.index >= n]
    if traced.algorithm.startswith("blocked"):
        edges = trace.piece_edges(n, len({c for c in extra if c.kind == "pair"}))
        for cell in extra:
            piece = cell.index - n
            columns[cell] = edges[piece] if cell.kind == "state" else edges[piece + 1] - 1.0
    return columns


def _captions(traced: Trace) -> list[str]:
    captions = []
    for k, (caption, active) in enumerate(zip(traced.captions, traced.active, strict=True), 1):
        done = [e for e in traced.events if e.round == k and e.op != "move"]
        writes = "; ".join(f"{e.writes.index}: {show(e.value)}" for e in done[:8])
        more = "; ..." if len(done) > 8 else ""
        captions.append(f"Round {k}, {caption}. {active} at work. {writes}{more}")
    return captions


def chain(a: Sequence, x: Sequence, h0=0) -> Scene:
    """The serial loop: every state with the arrows of what it waits for, all in one row."""
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
            Text(at, -0.45, f"step {t + 1}"),
        ]
    captions = [f"Before the loop: h0 = {show(h0)}, and the inputs are all there."]
    captions += [
        f"Step {t + 1}: {show(a[t])} * {show(before)} + {show(x[t])} = {show(h)}."
        for t, (before, h) in enumerate(zip([h0, *traced.states], traced.states, strict=False))
    ]
    return Scene(
        "The serial loop: each state waits for the one to its left",
        f"{len(a)} states in a row; a blue arrow leads from each to the next, "
        "so none can start early.",
        captions,
        shapes,
    )


ALGORITHMS = {
    name: lambda a, x, h0=0, run=run: scan(run(a, x, h0)) for name, run in trace.ALGORITHMS.items()
}
