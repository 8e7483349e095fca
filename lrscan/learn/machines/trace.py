"""Scans that record what they do, on inputs small enough to look at.

Each scan runs on a :class:`lrscan.learn.machines.machine.Machine`, with the same functions of
:mod:`lrscan.core.algebra` that the kernels are compiled from. It returns a trace: every operation
with its round, its lane, what it read and what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lrscan.learn.machines.machine import START, Cell, Machine, Trace


def serial(a: Sequence, x: Sequence, h0: Any = 0) -> Trace:
    """``h[t] = a[t] * h[t-1] + x[t]``, one step after the other."""
    machine = Machine("serial", a, x, h0)
    machine.put(START, h0)
    for t in range(len(a)):
        with machine.round(f"step {t}"):
            machine.step(0, Cell("pair", t), Cell("state", t - 1), Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(len(a))])


def hillis_steele(a: Sequence, x: Sequence, h0: Any = 0) -> Trace:
    """Compose every lane with the lane 1, 2, 4, ... before it (Hillis and Steele 1986)."""
    machine, n = Machine("Hillis-Steele", a, x, h0), len(a)
    machine.put(START, h0)
    _hillis_steele_rounds(machine, range(n))
    with machine.round("apply to h0"):
        for t in range(n):
            machine.step(t, Cell("pair", t), START, Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(n)])


def _hillis_steele_rounds(machine: Machine, cells: Sequence[int]) -> None:
    """Scan these pairs inclusively, in place."""
    distance = 1
    while distance < len(cells):
        with machine.round(f"compose with the lane {distance} before"):
            for k in range(distance, len(cells)):
                first, second = Cell("pair", cells[k - distance]), Cell("pair", cells[k])
                machine.compose(k, first, second, second)
        distance *= 2


def blelloch(a: Sequence, x: Sequence, h0: Any = 0) -> Trace:
    """Send pairs up a tree and states down (Blelloch 1990, sections 1.3 and 1.4).

    The length is padded with identities to a power of two. A node keeps its pair in the last cell
    that it covers. On the way down, its first half receives the incoming state, and its second half
    the state after the first half. So each leaf ends with the state *before* its step, which is an
    exclusive scan.
    """
    machine, n = Machine("Blelloch", a, x, h0), len(a)
    size = 1 << (n - 1).bit_length()
    for t in range(n, size):
        machine.put(Cell("pair", t), (1, 0))
    half = 1
    while half < size:
        with machine.round(f"up: pairs of {2 * half} steps"):
            for right in range(2 * half - 1, size, 2 * half):
                first, second = Cell("pair", right - half), Cell("pair", right)
                # The pair of the first half stays where it is: the way down needs it.
                machine.compose(right, first, second, second)
        half *= 2
    machine.put(START, h0)
    while half > 1:
        half //= 2
        with machine.round(f"down: states before {half} step{'s' * (half > 1)}"):
            for right in range(2 * half - 1, size, 2 * half):
                left = right - half
                incoming = Cell("state", right) if 2 * half < size else START
                machine.move(left, incoming, Cell("state", left))
                machine.step(right, Cell("pair", left), incoming, Cell("state", right))
    # The way up has overwritten pairs of leaves, so they come from the input again.
    for t, pair in enumerate(machine.trace.inputs):
        machine.put(Cell("pair", t), pair)
    with machine.round("every leaf takes its own step"):
        for t in range(n):
            before = Cell("state", t) if size > 1 else START
            machine.step(t, Cell("pair", t), before, Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(n)])


def blocked(
    a: Sequence, x: Sequence, h0: Any = 0, *, processors: int, carries: str = "chain"
) -> Trace:
    """Reduce chunks, pass carries, run chunks again: Algorithm 1 of Martin and Cundy (2018).

    Args:
        a:          the coefficients
        x:          the inputs
        h0:         the state before the first step
        processors: the number of chunks, which are as even as possible
        carries:    "chain" for one after the other, or "tree" for a scan

    Raises:
        ValueError: ``processors`` is not between 1 and the number of steps, or ``carries`` is
            unknown
    """
    if carries not in ("chain", "tree"):
        raise ValueError(f"carries is {carries!r}, expected 'chain' or 'tree'")
    edges = chunk_edges(len(a), processors)
    n, bounds = len(a), list(pairwise(edges))
    machine = Machine("blocked" if carries == "chain" else "blocked, tree", a, x, h0)
    whole = [Cell("pair", n + p) for p in range(processors)]
    into = [START, *(Cell("state", n + p) for p in range(1, processors))]
    for cell in whole:
        machine.put(cell, (1, 0))
    machine.put(START, h0)
    longest = max(stop - start for start, stop in bounds)
    for k in range(longest):
        with machine.round(f"reduce: step {k} of every chunk"):
            for p, (start, stop) in enumerate(bounds):
                if start + k < stop:
                    machine.compose(p, whole[p], Cell("pair", start + k), whole[p])
    if carries == "chain":
        for p in range(1, processors):
            with machine.round(f"carry into chunk {p}"):
                machine.step(p, whole[p - 1], into[p - 1], into[p])
    elif processors > 1:
        _hillis_steele_rounds(machine, [cell.index for cell in whole])
        with machine.round("carries into all chunks"):
            for p in range(1, processors):
                machine.step(p, whole[p - 1], into[0], into[p])
    for k in range(longest):
        with machine.round(f"run: step {k} of every chunk"):
            for p, (start, stop) in enumerate(bounds):
                if start + k < stop:
                    before = Cell("state", start + k - 1) if k else into[p]
                    here = Cell("pair", start + k)
                    machine.step(p, here, before, Cell("state", start + k))
    return machine.finish([Cell("state", t) for t in range(n)])


class Chunk(NamedTuple):
    """The chunk of one processor in Algorithm 1.

    Attributes:
        start:   its first step
        stop:    the step after its last one
        product: P, the product of its coefficients
        end:     R, its end state from a zero start
        carry:   the incoming state
        states:  h at its steps
    """

    start: int
    stop: int
    product: Any
    end: Any
    carry: Any
    states: list[Any]


def chunks(a: Sequence, x: Sequence, h0: Any = 0, *, processors: int) -> list[Chunk]:
    """Return the chunks of Algorithm 1, read from the trace of :func:`blocked`."""
    traced = blocked(a, x, h0, processors=processors)
    whole = {e.writes.index - len(a): e.value for e in traced.events if e.op == "compose"}
    totals = [whole[p] for p in range(processors)]
    edges = chunk_edges(len(a), processors)
    before = [h0, *traced.states]
    return [
        Chunk(start, stop, product, end, before[start], traced.states[start:stop])
        for (start, stop), (product, end) in zip(pairwise(edges), totals, strict=True)
    ]


def chunk_edges(steps: int, processors: int) -> list[int]:
    """Return the first step of every chunk, and the end of the last chunk."""
    if not 1 <= processors <= steps:
        raise ValueError(f"processors is {processors}, expected 1 to {steps}, the number of steps")
    return [steps * p // processors for p in range(processors + 1)]


ALGORITHMS: dict[str, Callable[..., Trace]] = {
    "serial": serial,
    "Hillis-Steele": hillis_steele,
    "Blelloch": blelloch,
    "blocked": lambda a, x, h0=0: blocked(a, x, h0, processors=min(3, len(a))),
    "blocked, tree": lambda a, x, h0=0: blocked(
        a, x, h0, processors=min(4, len(a)), carries="tree"
    ),
}
