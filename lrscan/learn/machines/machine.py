"""A synchronous parallel machine that runs :mod:`lrscan.core.algebra` and keeps a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lrscan.core import algebra

FLOPS = {"compose": 3, "step": 2, "move": 0}


class Cell(NamedTuple):
    """A place in memory: ``kind`` is "pair" (a map) or "state" (a number)."""

    kind: str
    index: int  # type: ignore[assignment]  # tuple.index is not needed


class Event(NamedTuple):
    """One operation of one lane.

    Attributes:
        round:   the round that it belongs to, counted from 1
        lane:    the lane that does it
        op:      "compose" (3 flops), "step" (2 flops) or "move" (none)
        reads:   the cells that it reads
        sources: for each of them, the round that wrote it; 0 for the input
        writes:  the cell that it writes
        value:   the value that it writes
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
    """The record of a scan.

    Attributes:
        algorithm: the name of the scan
        inputs:    the pairs (a, x)
        h0:        the state before the first step
        captions:  for each round, its purpose
        events:    all operations, round by round
        states:    h, the result
    """

    algorithm: str
    inputs: list[tuple[Any, Any]]
    h0: Any
    captions: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.captions)

    @property
    def work(self) -> int:
        """Number of operations, without moves."""
        return sum(event.op != "move" for event in self.events)

    @property
    def flops(self) -> int:
        """Number of multiplications and additions."""
        return sum(FLOPS[event.op] for event in self.events)

    @property
    def active(self) -> list[int]:
        """Number of lanes at work in each round, without moves."""
        busy = Counter(event.round for event in self.events if event.op != "move")
        return [busy[k + 1] for k in range(self.rounds)]

    @property
    def depth(self) -> int:
        """Length of the longest chain of operations that wait for each other."""
        longest: dict[tuple[Cell, int], int] = {}
        for event in self.events:
            before = [longest.get(at, 0) for at in zip(event.reads, event.sources, strict=True)]
            longest[event.writes, event.round] = max(before, default=0) + (event.op != "move")
        return max(longest.values(), default=0)

    def rounds_on(self, lanes: int) -> int:
        """Return the rounds on so few lanes: a round with more operations than lanes is split."""
        return sum(-(-count // lanes) for count in self.active)


def show(value: Any) -> str:
    """Return a short text for a state or a pair."""
    return ", ".join(f"{v:.4g}" for v in value) if isinstance(value, tuple) else f"{value:.4g}"


class Machine:
    """Lanes that work in rounds: all reads of a round happen before all its writes."""

    def __init__(self, algorithm: str, a: Sequence, x: Sequence, h0: Any = 0) -> None:
        inputs = list(zip(a, x, strict=True))
        self.trace = Trace(algorithm, inputs, h0)
        self._memory = {Cell("pair", t): (pair, 0) for t, pair in enumerate(inputs)}
        self._pending: dict[Cell, Any] | None = None
        self._lanes: set[int] = set()

    @contextmanager
    def round(self, caption: str) -> Iterator[None]:
        """Collect the operations of one round; their writes take effect at its end."""
        self.trace.captions.append(caption)
        self._pending, self._lanes = {}, set()
        yield
        self._memory |= {cell: (v, self.trace.rounds) for cell, v in self._pending.items()}
        self._pending = None

    def put(self, cell: Cell, value: Any) -> None:
        """Set a cell before the first round."""
        self._memory[cell] = (value, 0)

    def read(self, cell: Cell) -> Any:
        """Return the value in a cell."""
        return self._memory[cell][0]

    def compose(self, lane: int, first: Cell, second: Cell, to: Cell) -> None:
        """Store in ``to`` the map in ``first``, followed by the one in ``second``."""
        value = algebra.compose(*self.read(first), *self.read(second))
        self._note("compose", lane, (first, second), to, value)

    def step(self, lane: int, pair: Cell, state: Cell, to: Cell) -> None:
        """Store in ``to`` the map in ``pair``, applied to ``state``."""
        a, x = self.read(pair)
        value = algebra.step(a, x, self.read(state))
        self._note("step", lane, (pair, state), to, value)

    def move(self, lane: int, source: Cell, to: Cell) -> None:
        """Copy ``source`` to ``to``."""
        self._note("move", lane, (source,), to, self.read(source))

    def _note(self, op: str, lane: int, reads: tuple[Cell, ...], to: Cell, value: Any) -> None:
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
        """Return the trace, with h read from these cells."""
        self.trace.states = [self.read(cell) for cell in states]
        return self.trace


START = Cell("state", -1)
