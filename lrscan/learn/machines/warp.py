"""A warp of 32 lanes with shuffles, which Numba's simulator lacks.

A program is a generator function, written as for one thread. It yields each shuffle::

    def program(lane, value):
        below = yield Up(value, 1)       # the value of the lane below; lane 0 gets its own
        return value + below if lane >= 1 else value

All lanes run in lock step. On a GPU a shuffle is an instruction that the lanes of a warp execute
together (``__shfl_up_sync`` in CUDA C). If a lane does not take part, the others receive an
undefined value. Here that is an error that names the lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

LANES = 32


class Up(NamedTuple):
    """Take the value of the lane ``distance`` below; lanes without one keep their own."""

    value: Any
    distance: int


class Down(NamedTuple):
    """Take the value of the lane ``distance`` above; lanes without one keep their own."""

    value: Any
    distance: int


class From(NamedTuple):
    """Take the value of one lane, the same one for all."""

    value: Any
    lane: int


class Divergence(RuntimeError):
    """Lanes of a warp did not shuffle together."""


class WarpRun(NamedTuple):
    """The results and the shuffles of a warp.

    Attributes:
        values:   the result of each lane
        shuffles: for each shuffle, the lane from which each lane received its value
    """

    values: list[Any]
    shuffles: list[list[int]]


def run(program: Callable[..., Generator], *arguments: Sequence, lanes: int = LANES) -> WarpRun:
    """Run a program on a warp.

    Args:
        program:   a generator function of (lane, ...)
        arguments: for each further argument, its value for every lane
        lanes:     the number of lanes; fewer than 32 are easier to look at

    Raises:
        TypeError:  the program yields nothing, so it is not a generator function
        Divergence: some lanes shuffle while others have ended or ask for another shuffle
    """
    threads = [program(lane, *(values[lane] for values in arguments)) for lane in range(lanes)]
    if not all(isinstance(thread, Generator) for thread in threads):
        raise TypeError("the program yields no shuffle: write `below = yield Up(value, 1)`")
    results: list[Any] = [None] * lanes
    shuffles: list[list[int]] = []
    answers: list[Any] = [None] * lanes
    while True:
        asked: dict[int, Any] = {}
        for lane, thread in enumerate(threads):
            try:
                asked[lane] = thread.send(answers[lane])
            except StopIteration as end:
                results[lane] = end.value
        if not asked:
            return WarpRun(results, shuffles)
        sources = _sources(asked, lanes)
        shuffles.append(sources)
        answers = [asked[source].value for source in sources]


def _sources(asked: dict[int, Any], lanes: int) -> list[int]:
    away = [lane for lane in range(lanes) if lane not in asked]
    if away:
        raise Divergence(
            f"{_range(away)} did not take part in the shuffle of {_range(list(asked))}: shuffle "
            "before the `if`, not inside it"
        )
    kinds = {(type(one).__name__, one[1]) for one in asked.values()}
    if len(kinds) > 1:
        raise Divergence(f"the lanes ask for different shuffles: {sorted(kinds)}")
    match asked[0]:
        case Up(_, distance):
            return [lane - distance if lane >= distance else lane for lane in range(lanes)]
        case Down(_, distance):
            return [lane + distance if lane + distance < lanes else lane for lane in range(lanes)]
        case From(_, lane):
            return [lane] * lanes
    raise TypeError(f"{asked[0]!r} is not a shuffle: yield Up, Down or From")


def _range(lanes: list[int]) -> str:
    return f"lanes {lanes[0]} to {lanes[-1]}" if len(lanes) > 1 else f"lane {lanes[0]}"
