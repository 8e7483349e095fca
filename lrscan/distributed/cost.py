"""What a split recurrence costs: a model of bytes, latency and work by rank.

p ranks hold T/p steps of C columns each, in s bytes an element. A rank moves, in each pass
through its chunk, so many bytes an element of it:

    forward    3 s  reduce: a and x to the last state, a to the product
               3 s  scan: a, x and h
    backward   2 s  reduce: a and dh to what leaves the chunk
               2 s  copy of dh, during the exchange
               5 s  sweep: a, h, dh, da and dx

A sweep of one process alone needs 3 s and 5 s. In an exchange every rank is handed the two values
a column of every other rank, of w bytes each (8, complex 16), in r(p) rounds:

    E(p) = r(p) L + (p - 1) 2 C w / N      L seconds a round, N bytes a second on a link
    H(p) = r(p) L                          the header of forward: what the ranks agree on

    ring   r(p) = p - 1                    gloo: each round hands on one rank's values
    tree   r(p) = log2(p), rounded up      the fewest that reach all; NCCL has such for small
                                           messages (Jeaugey 2025, arXiv:2506.20252)

With c the seconds of a call whatever its size, B the bytes a second of a pass, n = T C s / p:

    forward(p)  = c + max(3 n / B, H(p)) + E(p) + 3 n / B
    backward(p) = c + 2 n / B + max(2 n / B, E(p)) + 5 n / B

Where ranks share processors, of which q run at once, all of it takes p / q as long: an exchange
too is the processors' work there. What each rank folds, p pairs a column, is left out: it is p / T
of the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Passes(NamedTuple):
    """Elements moved an element of a chunk: before an exchange, during and after it."""

    before: int
    during: int
    after: int


PASSES = {"forward": Passes(3, 0, 3), "backward": Passes(2, 2, 5)}
# Elements that one process moves that does not split.
WHOLE = {"forward": 3, "backward": 5}
_VALUES = 2  # a column, exchanged


@dataclass(frozen=True)
class Device:
    """A device that a rank runs on.

    call_s        seconds of a call, whatever its size
    bytes_per_s   of a pass through a chunk
    at_once       how many ranks run at the same time
    """

    call_s: float
    bytes_per_s: float
    at_once: float = math.inf


@dataclass(frozen=True)
class Link:
    """The links between ranks.

    round_s       seconds of a round, whatever its size
    bytes_per_s   of what reaches a rank
    tree          rounds in the shape of a tree, not of a ring
    """

    round_s: float
    bytes_per_s: float
    tree: bool = False


def bytes_a_rank(direction: str, steps: int, columns: int, ranks: int, itemsize: int = 4) -> int:
    """Bytes that the longest chunk moves through the memory of its rank."""
    return sum(PASSES[direction]) * itemsize * columns * math.ceil(steps / ranks)


def bytes_exchanged(columns: int, ranks: int, wide: int = 8) -> int:
    """Bytes that a rank is handed in an exchange, whatever the number of steps."""
    return (ranks - 1) * _VALUES * wide * columns


def rounds(ranks: int, tree: bool) -> int:
    """How many rounds an exchange has."""
    return math.ceil(math.log2(ranks)) if tree else ranks - 1


def exchange_s(link: Link, columns: int, ranks: int, wide: int = 8) -> float:
    """Seconds of an exchange."""
    handed = bytes_exchanged(columns, ranks, wide)
    return rounds(ranks, link.tree) * link.round_s + handed / link.bytes_per_s


def split_s(
    device: Device,
    link: Link,
    direction: str,
    steps: int,
    columns: int,
    ranks: int,
    *,
    itemsize: int = 4,
    wide: int = 8,
) -> float:
    """Seconds of one direction, "forward" or "backward", of a split recurrence.

    Raises:
        ValueError: there is no such direction, or not one rank
    """
    if direction not in PASSES or ranks < 1:
        raise ValueError(f"{direction!r} of {ranks} ranks: it is {', '.join(PASSES)} of 1 or more")
    before, during, after = PASSES[direction]
    one = itemsize * columns * math.ceil(steps / ranks) / device.bytes_per_s
    header = exchange_s(link, 0, ranks) if direction == "forward" else 0
    exchange = exchange_s(link, columns, ranks, wide)
    passes = max(before * one, header) + max(during * one, exchange) + after * one
    return shared(device, ranks) * (device.call_s + passes)


def shared(device: Device, ranks: int) -> float:
    """How much longer everything takes because ranks take turns on processors."""
    return max(ranks / device.at_once, 1)


def whole_s(
    device: Device, direction: str, steps: int, columns: int, *, itemsize: int = 4
) -> float:
    """Seconds of the same on one device that holds everything and does not split."""
    moved = WHOLE[direction] * itemsize * columns * steps
    return device.call_s + moved / device.bytes_per_s


def fitted_device(measured: Mapping[int, float], at_once: float = math.inf) -> Device:
    """The device on which so many bytes a rank take so many seconds.

    The line through the fewest and the most bytes. Seconds of a call are not less than zero; where
    more bytes take no longer, bytes cost nothing.

    Raises:
        ValueError: fewer than two numbers of bytes
    """
    call_s, bytes_per_s = _line(measured, "bytes a rank")
    return Device(call_s, bytes_per_s, at_once)


def fitted_link(measured: Mapping[int, float], ranks: int) -> Link:
    """The ring on which an exchange of so many columns among ``ranks`` takes so many seconds.

    As :func:`fitted_device`, of the bytes that reach a rank.
    """
    handed = {bytes_exchanged(columns, ranks): s for columns, s in measured.items()}
    rounds_s, bytes_per_s = _line(handed, "bytes exchanged")
    return Link(rounds_s / rounds(ranks, False), bytes_per_s)


def _line(measured: Mapping[int, float], what: str) -> tuple[float, float]:
    """(seconds at no bytes, bytes a second) of the line through the outermost points."""
    if len(measured) < 2:
        raise ValueError(f"a line takes two numbers of {what}, not {sorted(measured)}")
    least, most = min(measured), max(measured)
    few, many = measured[least], measured[most]
    if many <= few:
        return few, math.inf
    bytes_per_s = (most - least) / (many - few)
    return max(few - least / bytes_per_s, 0.0), bytes_per_s
