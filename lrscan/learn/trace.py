"""Scans that write down what they do, on inputs small enough to look at.

Each one runs on a :class:`Machine`, a synchronous parallel machine over the operator of
:mod:`lrscan.algebra`, the same bodies that the kernels are compiled from. What the machine did is
a :class:`Trace`: every operation with its round, its lane, what it read and what it wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lrscan import algebra

FLOPS = {"compose": 3, "step": 2, "move": 0}


class Cell(NamedTuple):
    """A place in memory: ``kind`` is "pair" (a map) or "state" (a number)."""

    kind: str
    index: int


class Event(NamedTuple):
    """One operation of one lane.

    round    the parallel step that it belongs to, from 1
    lane     who does it
    op       "compose" (3 flops), "step" (2 flops) or "move" (none)
    reads    the cells that it reads
    sources  for each of them the round that wrote it, 0 for the input
    writes   the cell that it writes
    value    what it writes
    """

    round: int
    lane: int
    op: str
    reads: tuple[Cell, ...]
    sources: tuple[int, ...]
    writes: Cell
    value: Any


@dataclass
class Trace:
    """What a scan did.

    algorithm  its name
    inputs     the pairs (a, x), and h0
    captions   for each round what it is for
    events     all operations, round by round
    states     h, the result
    """

    algorithm: str
    inputs: list[tuple[Any, Any]]
    h0: Any
    captions: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """How many parallel steps it took."""
        return len(self.captions)

    @property
    def ops(self) -> Counter[str]:
        """How often each operation was done."""
        return Counter(event.op for event in self.events)

    @property
    def work(self) -> int:
        """Operations in all, moves apart."""
        return sum(event.op != "move" for event in self.events)

    @property
    def flops(self) -> int:
        """Multiplications and additions in all."""
        return sum(FLOPS[event.op] for event in self.events)

    @property
    def active(self) -> list[int]:
        """Lanes at work in each round, moves apart."""
        busy = Counter(event.round for event in self.events if event.op != "move")
        return [busy[k + 1] for k in range(self.rounds)]

    @property
    def depth(self) -> int:
        """The longest chain of operations, each waiting for the one before."""
        longest: dict[tuple[Cell, int], int] = {}
        for event in self.events:
            before = [longest.get(at, 0) for at in zip(event.reads, event.sources, strict=True)]
            longest[event.writes, event.round] = max(before, default=0) + (event.op != "move")
        return max(longest.values(), default=0)

    def rounds_on(self, lanes: int) -> int:
        """Rounds on so many lanes: a round with more operations than lanes is split."""
        return sum(-(-count // lanes) for count in self.active)

    def __str__(self) -> str:
        lines = [f"{self.algorithm}: {len(self.inputs)} steps, {self.rounds} rounds, "
                 f"{self.work} operations"]  # fmt: skip
        for k, caption in enumerate(self.captions, 1):
            writes = ", ".join(
                f"{e.writes.kind} {e.writes.index} = {show(e.value)}"
                for e in self.events
                if e.round == k
            )
            lines.append(f"round {k}, {caption}: {writes}")
        return "\n".join(lines)


def show(value: Any) -> str:
    """A state or a pair, short."""
    return ", ".join(f"{v:.4g}" for v in value) if isinstance(value, tuple) else f"{value:.4g}"


class Machine:
    """Lanes that work in rounds: all reads of a round happen before all its writes."""

    def __init__(self, algorithm: str, a: Sequence, x: Sequence, h0: Any = 0.0) -> None:
        inputs = list(zip(a, x, strict=True))
        self.trace = Trace(algorithm, inputs, h0)
        self._memory = {Cell("pair", t): (pair, 0) for t, pair in enumerate(inputs)}
        self._pending: dict[Cell, Any] | None = None
        self._lanes: set[int] = set()

    @contextmanager
    def round(self, caption: str) -> Iterator[None]:
        """One parallel step."""
        self.trace.captions.append(caption)
        self._pending, self._lanes = {}, set()
        yield
        self._memory |= {cell: (v, self.trace.rounds) for cell, v in self._pending.items()}
        self._pending = None

    def put(self, cell: Cell, value: Any) -> None:
        """Set a cell before the first round."""
        self._memory[cell] = (value, 0)

    def read(self, cell: Cell) -> Any:
        """What a cell holds."""
        return self._memory[cell][0]

    def compose(self, lane: int, first: Cell, second: Cell, to: Cell) -> None:
        """to = the map in ``first``, followed by the one in ``second``."""
        value = algebra.compose(*self.read(first), *self.read(second))
        self._note("compose", lane, (first, second), to, value)

    def step(self, lane: int, pair: Cell, state: Cell, to: Cell) -> None:
        """to = the map in ``pair``, applied to ``state``."""
        value = algebra.step(*self.read(pair), self.read(state))
        self._note("step", lane, (pair, state), to, value)

    def move(self, lane: int, source: Cell, to: Cell) -> None:
        """to = source."""
        self._note("move", lane, (source,), to, self.read(source))

    def _note(self, op, lane, reads, to, value) -> None:
        if self._pending is None:
            raise RuntimeError(f"{op} outside a round")
        if to in self._pending:
            raise RuntimeError(f"two lanes write {to} in round {self.trace.rounds}")
        if op != "move" and lane in self._lanes:
            raise RuntimeError(f"lane {lane} has two operations in round {self.trace.rounds}")
        self._lanes |= {lane} if op != "move" else set()
        sources = tuple(self._memory[cell][1] for cell in reads)
        self.trace.events.append(Event(self.trace.rounds, lane, op, reads, sources, to, value))
        self._pending[to] = value

    def finish(self, states: Sequence[Cell]) -> Trace:
        """The trace, with h read from these cells."""
        self.trace.states = [self.read(cell) for cell in states]
        return self.trace


START = Cell("state", -1)


def serial(a: Sequence, x: Sequence, h0: Any = 0.0) -> Trace:
    """``h[t] = a[t] * h[t-1] + x[t]``, one step after the other."""
    machine = Machine("serial", a, x, h0)
    machine.put(START, h0)
    for t in range(len(a)):
        with machine.round(f"step {t}"):
            machine.step(0, Cell("pair", t), Cell("state", t - 1), Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(len(a))])


def hillis_steele(a: Sequence, x: Sequence, h0: Any = 0.0) -> Trace:
    """Every lane composes with the lane 1, 2, 4, ... before it (Hillis and Steele 1986)."""
    machine, n = Machine("Hillis-Steele", a, x, h0), len(a)
    machine.put(START, h0)
    _hillis_steele_rounds(machine, range(n))
    with machine.round("apply to h0"):
        for t in range(n):
            machine.step(t, Cell("pair", t), START, Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(n)])


def _hillis_steele_rounds(machine: Machine, cells: Sequence[int]) -> None:
    """Inclusive scan of these pairs, in place."""
    distance = 1
    while distance < len(cells):
        with machine.round(f"compose with the one {distance} before"):
            for k in range(distance, len(cells)):
                first, second = Cell("pair", cells[k - distance]), Cell("pair", cells[k])
                machine.compose(k, first, second, second)
        distance *= 2


def blelloch(a: Sequence, x: Sequence, h0: Any = 0.0) -> Trace:
    """A tree: pairs go up, states come down (Blelloch 1990, sections 1.3 and 1.4).

    The length is padded with identities to a power of two. A node keeps its pair in the last cell
    that it covers. On the way down its first half gets the state that comes in, its second half
    that state after the first half: each leaf ends with the state *before* it, an exclusive scan.
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
                # Down needs the pair of the first half: it stays where it is.
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
    # The leaves' own pairs, which the way up has overwritten, come from the input again.
    for t, pair in enumerate(machine.trace.inputs):
        machine.put(Cell("pair", t), pair)
    with machine.round("every leaf takes its own step"):
        for t in range(n):
            before = Cell("state", t) if size > 1 else START
            machine.step(t, Cell("pair", t), before, Cell("state", t))
    return machine.finish([Cell("state", t) for t in range(n)])


def blocked(
    a: Sequence, x: Sequence, h0: Any = 0.0, *, processors: int, carries: str = "chain"
) -> Trace:
    """Algorithm 1 of Martin and Cundy (2018): reduce the pieces, pass carries, run them again.

    Args:
        a, x, h0:   the recurrence
        processors: one piece for each, as even as can be
        carries:    "chain", one after the other, or "tree", by a scan

    Raises:
        ValueError: ``processors`` is not between 1 and the number of steps, or ``carries`` unknown
    """
    if carries not in ("chain", "tree"):
        raise ValueError(f"carries is {carries!r}, expected 'chain' or 'tree'")
    edges = piece_edges(len(a), processors)
    n, bounds = len(a), list(zip(edges, edges[1:], strict=False))
    machine = Machine("blocked" if carries == "chain" else "blocked, tree", a, x, h0)
    whole = [Cell("pair", n + p) for p in range(processors)]
    into = [START, *(Cell("state", n + p) for p in range(1, processors))]
    for cell in whole:
        machine.put(cell, (1, 0))
    machine.put(START, h0)
    longest = max(stop - start for start, stop in bounds)
    for k in range(longest):
        with machine.round(f"reduce: step {k} of every piece"):
            for p, (start, stop) in enumerate(bounds):
                if start + k < stop:
                    machine.compose(p, whole[p], Cell("pair", start + k), whole[p])
    if carries == "chain":
        for p in range(1, processors):
            with machine.round(f"carry into piece {p}"):
                machine.step(p, whole[p - 1], into[p - 1], into[p])
    elif processors > 1:
        _hillis_steele_rounds(machine, [cell.index for cell in whole])
        with machine.round("carries into all pieces"):
            for p in range(1, processors):
                machine.step(p, whole[p - 1], into[0], into[p])
    for k in range(longest):
        with machine.round(f"run: step {k} of every piece"):
            for p, (start, stop) in enumerate(bounds):
                if start + k < stop:
                    before = Cell("state", start + k - 1) if k else into[p]
                    here = Cell("pair", start + k)
                    machine.step(p, here, before, Cell("state", start + k))
    return machine.finish([Cell("state", t) for t in range(n)])


class Piece(NamedTuple):
    """What one processor does in Algorithm 1.

    start, stop  the steps that it holds
    product      P, the product of its coefficients
    end          R, its end state from a zero start
    carry        the state that comes in
    states       h at its steps
    """

    start: int
    stop: int
    product: Any
    end: Any
    carry: Any
    states: list[Any]


def pieces(a: Sequence, x: Sequence, h0: Any = 0, *, processors: int) -> list[Piece]:
    """Algorithm 1 piece by piece, read from the trace of :func:`blocked`."""
    traced = blocked(a, x, h0, processors=processors)
    whole = {e.writes.index - len(a): e.value for e in traced.events if e.op == "compose"}
    edges = piece_edges(len(a), processors)
    before = [h0, *traced.states]
    return [
        Piece(start, stop, *whole[p], before[start], traced.states[start:stop])
        for p, (start, stop) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def piece_edges(steps: int, processors: int) -> list[int]:
    """Where the pieces of so many processors begin, and the end of the last."""
    if not 1 <= processors <= steps:
        raise ValueError(f"processors is {processors}, expected 1 to {steps}, the steps")
    return [steps * p // processors for p in range(processors + 1)]


ALGORITHMS: dict[str, Callable[..., Trace]] = {
    "serial": serial,
    "Hillis-Steele": hillis_steele,
    "Blelloch": blelloch,
    "blocked": lambda a, x, h0=0.0: blocked(a, x, h0, processors=min(3, len(a))),
    "blocked, tree": lambda a, x, h0=0.0: blocked(
        a, x, h0, processors=min(4, len(a)), carries="tree"
    ),
}
