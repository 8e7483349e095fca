"""A serial loop next to the paper's Algorithm 1, drawn from traces of both.

Source: Martin and Cundy 2018, arXiv:1709.04057, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from lrscan.learn.machines import trace
from lrscan.learn.machines.machine import FLOPS, START, Event, Trace, show
from lrscan.learn.scenes.scene import Arrow, Box, Line, Scene, Shape, Text

ROUND = 0.44  # from one round to the next
SIZE: dict[str, Any] = {"width": 0.77, "height": 0.3}  # of the box of an operation
LANE = 1.27  # from one processor to the next
COUNT = 1.2  # x of the numbers of the rounds, right of the loop
FIRST = 3.6  # x of processor 0 of Algorithm 1
PURPOSES = {
    "reduce": "reduce each chunk to a pair (P, R)",
    "carry": "scan the {} from h0",
    "run": "run each chunk again",
}
STYLES = {"reduce": "pair", "carry": "carry", "run": "state"}
LEGEND = {
    "reduce": ("t", "Compose (P, R) with step t: {} flops"),
    "carry": ("carry", "P * carry + R of the chunk before: {} flops"),
    "run": ("t", "h[t] = a[t] * h[t-1] + x[t]: {} flops"),
}


def serial_against_parallel(a: Sequence, x: Sequence, h0: Any = 0, *, processors: int) -> Scene:
    """Draw ``h[t] = a[t] * h[t-1] + x[t]`` on one processor, and next to it on several.

    Both sides are traces; time runs down. Every round is a row and a frame, and in it each
    processor does at most one operation. The right side is Algorithm 1, with a chain of carries.

    Args:
        a:          the coefficients
        x:          the inputs
        h0:         the state before the first step
        processors: the number of processors on the right

    Raises:
        ValueError: ``processors`` is not between 1 and T
    """
    parallel, serial = trace.blocked(a, x, h0, processors=processors), trace.serial(a, x, h0)
    phases = _phases(parallel)
    rounds = range(1, max(serial.rounds, parallel.rounds) + 1)
    right = FIRST + LANE * (processors - 1) + 0.55
    shapes: list[Shape] = [Text(COUNT, -ROUND * k, str(k), k) for k in rounds]
    shapes += _headings(processors)
    shapes += _lanes(serial, 0, (0, 0))
    shapes += _lanes(parallel, FIRST, (FIRST - LANE, -ROUND * (phases[0].last + 1)))
    for number, phase in enumerate(phases, 1):
        shapes += _bracket(number, phase, right)
    shapes += _finish(serial, parallel, right)
    parts = ", ".join(f"{phase.purpose} ({phase.length})" for phase in phases)
    return Scene(
        f"{len(a)} steps of a linear recurrence: {_count(serial.rounds, 'round')} on one "
        f"processor, {parallel.rounds} on {processors}",
        f"Time runs down. Left: a serial loop takes {len(a)} steps one after the other: "
        f"{', '.join(_cost(serial))}. Right: Algorithm 1 on {_count(processors, 'processor')}: "
        f"{parts}; in total {', '.join(_cost(parallel))}.",
        [*_captions(serial, parallel, rounds)],
        shapes,
    )


class Rounds(NamedTuple):
    """The rounds of Algorithm 1 from ``first`` to ``last``, with their purpose."""

    purpose: str
    first: int
    last: int

    @property
    def length(self) -> str:
        return _count(self.last - self.first + 1, "round")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _kind(event: Event, steps: int) -> str:
    """Return the phase of Algorithm 1 of an operation; in a serial loop it is always "run"."""
    if event.op == "compose":
        return "reduce"
    return "carry" if event.writes.index >= steps else "run"


def _phases(traced: Trace) -> list[Rounds]:
    kinds = {event.round: _kind(event, len(traced.inputs)) for event in traced.events}
    pairs = _count(1 + max(event.lane for event in traced.events), "pair")
    groups = [(kind, list(rounds)) for kind, rounds in groupby(kinds, key=kinds.__getitem__)]
    return [Rounds(PURPOSES[kind].format(pairs), r[0], r[-1]) for kind, r in groups]


def _lanes(traced: Trace, left: float, start: tuple[float, float]) -> Iterator[Shape]:
    """Draw a column per processor, a box per operation, and arrows from what it waits for."""
    places = {(START, 0): start}
    yield Box(*start, "h0", "input", **SIZE)
    for event in traced.events:
        kind = _kind(event, len(traced.inputs))
        here = left + LANE * event.lane, -ROUND * event.round
        places[event.writes, event.round] = here
        for read in zip(event.reads, event.sources, strict=True):
            if read in places:  # the other operands are inputs
                yield Arrow(*places[read], *here, frame=event.round, **SIZE)
        step = event.reads[1] if kind == "reduce" else event.writes
        text = "carry" if kind == "carry" else str(step.index)
        yield Box(*here, text, STYLES[kind], event.round, **SIZE)


def _headings(processors: int) -> Iterator[Shape]:
    middle = FIRST + LANE * (processors - 1) / 2
    yield Text(0, 1.0, "Serial loop", bold=True)
    yield Text(middle, 1.0, "Algorithm 1", bold=True)
    yield Text(COUNT, 0.5, "Processor")
    yield Text(COUNT, 0, "Round")
    yield Text(0, 0.5, "0")
    for p in range(processors):
        yield Text(FIRST + LANE * p, 0.5, str(p))


def _bracket(number: int, phase: Rounds, x: float) -> Iterator[Shape]:
    """Draw a bracket over the rounds of a phase, right of the lanes."""
    top, bottom = (-ROUND * k + sign * 0.15 for k, sign in ((phase.first, 1), (phase.last, -1)))
    yield Line(((x, top), (x + 0.15, top), (x + 0.15, bottom), (x, bottom)), frame=phase.first)
    between = " " if phase.first == phase.last else "\n"
    purpose = phase.purpose[0].upper() + phase.purpose[1:]
    words = f"{number}. {purpose}:{between}{phase.length}"
    yield Text(x + 0.35, (top + bottom) / 2, words, phase.first, "left")


def _finish(serial: Trace, parallel: Trace, right: float) -> Iterator[Shape]:
    """Write the cost of each side at its end, and the meaning of the styles."""
    end = -ROUND * (parallel.rounds + 0.5)
    left = -0.6 if serial.rounds > parallel.rounds else FIRST - 0.6
    yield Line(((left, end), (right, end)), "faint", parallel.rounds)
    below = -ROUND * max(serial.rounds, parallel.rounds) - 0.75
    yield Text(0, below, ",\n".join(_cost(serial)), serial.rounds, bold=True)
    words = ", ".join(_cost(parallel))
    yield Text(FIRST - 0.38, end - 0.4, words, parallel.rounds, "left", True)
    for k, (kind, (text, words)) in enumerate(LEGEND.items(), 1):
        y = end - 0.45 - 0.45 * k
        yield Box(FIRST, y, text, STYLES[kind], **SIZE)
        flops = FLOPS["compose" if kind == "reduce" else "step"]
        yield Text(FIRST + 0.6, y, words.format(flops), align="left")


def _cost(traced: Trace) -> list[str]:
    """Return rounds, operations, and the flops on the critical path, as words."""
    rounds = groupby(traced.events, key=lambda event: event.round)
    # The critical path takes the longest operation of every round.
    flops = sum(max(FLOPS[event.op] for event in events) for _, events in rounds)
    return [
        _count(traced.rounds, "round"),
        _count(traced.work, "operation"),
        f"{flops} flops in sequence",
    ]


def _captions(serial: Trace, parallel: Trace, rounds: range) -> Iterator[str]:
    yield f"Before: h0 = {show(serial.h0)}, and all inputs are there."
    for k in rounds:
        yield f"Round {k}. Serial loop: {_done(serial, k)}. Algorithm 1: {_done(parallel, k)}."


def _done(traced: Trace, k: int) -> str:
    """Return the values that a round computes, as words."""
    if k > traced.rounds:
        return "done"
    names = {"reduce": "(P, R) of chunk {}", "carry": "carry into chunk {}", "run": "h[{}]"}
    words = []
    for event in traced.events:
        if event.round == k:
            kind = _kind(event, len(traced.inputs))
            name = names[kind].format(event.writes.index if kind == "run" else event.lane)
            value = show(event.value)
            words.append(f"{name} = ({value})" if kind == "reduce" else f"{name} = {value}")
    return "; ".join(words)
