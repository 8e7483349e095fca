"""Cost model of a split recurrence: bytes, latency and work of each rank.

There are p ranks. Each holds T/p steps of C columns, at s bytes per element. A pass is one sweep
through the chunk. For each element of its chunk, a rank moves these bytes through its memory::

    forward    3 s  reduce: read a and x for the last state, and a for the product
               3 s  scan: read a and x, write h
    backward   2 s  reduce: read a and dh for the gradient that leaves the chunk
               2 s  copy dh, during the exchange
               5 s  sweep: read a, h and dh, write da and dx

One process that does not split needs 3 s forward and 5 s backward. In an exchange, every rank
receives two values per column from every other rank. A value has w bytes: 8, or 16 if complex. The
exchange takes r(p) rounds and E(p) seconds::

    E(p) = r(p) L + (p - 1) 2 C w / N      L seconds per round, N bytes per second on a link
    H(p) = r(p) L                          the header of forward, on which the ranks agree

    ring   r(p) = p - 1                    gloo: each round passes on the values of one rank
    tree   r(p) = log2(p), rounded up      the fewest rounds that reach all ranks; NCCL uses trees
                                           for small messages (Jeaugey 2025, arXiv:2506.20252)

Let c be the seconds of a call at any size, B the bytes per second of a pass, and n = T C s / p.
Then::

    forward(p)  = c + max(3 n / B, H(p)) + E(p) + 3 n / B
    backward(p) = c + 2 n / B + max(2 n / B, E(p)) + 5 n / B

If ranks share processors so that only q of them run at once, and p > q, everything takes p / q
times as long. That includes the exchange, because there it is work of the same processors. The
model leaves out the p pairs per column that each rank composes after an exchange. A rank
has T / p steps of its own, so they add p^2 / T to its work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Passes(NamedTuple):
    """Elements that a rank moves per element of its chunk.

    Attributes:
        before: before the exchange
        during: during the exchange
        after: after the exchange

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.PASSES["backward"]
        Passes(before=2, during=2, after=5)
    """

    before: int
    during: int
    after: int


PASSES = {"forward": Passes(3, 0, 3), "backward": Passes(2, 2, 5)}
# Elements moved per element of the sequence by one process that does not split.
WHOLE = {"forward": 3, "backward": 5}
_VALUES = 2  # exchanged per column


@dataclass(frozen=True)
class Device:
    """Device that a rank runs on.

    Attributes:
        call_s: seconds of a call, at any size
        bytes_per_s: bytes per second of a pass through a chunk
        at_once: the number of ranks that can run at the same time

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.Device(call_s=1e-5, bytes_per_s=1e12)
        Device(call_s=1e-05, bytes_per_s=1000000000000.0, at_once=inf)
    """

    call_s: float
    bytes_per_s: float
    at_once: float = math.inf


@dataclass(frozen=True)
class Link:
    """Links between the ranks.

    Attributes:
        round_s: seconds of a round, at any size
        bytes_per_s: bytes per second that a rank receives
        tree: True if an exchange takes the rounds of a tree, False if those of a ring

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.Link(round_s=1e-6, bytes_per_s=1e10)
        Link(round_s=1e-06, bytes_per_s=10000000000.0, tree=False)
    """

    round_s: float
    bytes_per_s: float
    tree: bool = False


def bytes_a_rank(direction: str, steps: int, columns: int, ranks: int, itemsize: int = 4) -> int:
    """Return the bytes that the rank with the longest chunk moves through its memory.

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.bytes_a_rank("forward", steps=1000, columns=32, ranks=4)  # 6 * 4 * 250 * 32
        192000
    """
    return sum(PASSES[direction]) * itemsize * columns * math.ceil(steps / ranks)


def bytes_exchanged(columns: int, ranks: int, wide: int = 8) -> int:
    """Return the bytes that a rank receives in an exchange, for any number of steps.

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.bytes_exchanged(columns=32, ranks=4)  # 3 others, 2 values of 8 bytes per column
        1536
    """
    return (ranks - 1) * _VALUES * wide * columns


def rounds(ranks: int, tree: bool) -> int:
    """Return the number of rounds of an exchange.

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.rounds(1024, tree=False), cost.rounds(1024, tree=True)
        (1023, 10)
    """
    return math.ceil(math.log2(ranks)) if tree else ranks - 1


def exchange_s(link: Link, columns: int, ranks: int, wide: int = 8) -> float:
    """Return the seconds of an exchange.

    Example:
        >>> from lrscan.distributed import cost
        >>> link = cost.Link(round_s=1e-6, bytes_per_s=1e10)
        >>> f"{cost.exchange_s(link, columns=1000, ranks=4):.1e} s"
        '7.8e-06 s'
    """
    received = bytes_exchanged(columns, ranks, wide)
    return rounds(ranks, link.tree) * link.round_s + received / link.bytes_per_s


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
    """Return the seconds of a split recurrence in one direction.

    Args:
        device: the device of each rank
        link: the links between the ranks
        direction: "forward" or "backward"
        steps: T, over all ranks
        columns: C
        ranks: p
        itemsize: bytes per element
        wide: bytes per exchanged value

    Raises:
        ValueError: an unknown direction, or fewer than one rank

    Example:
        >>> from lrscan.distributed import cost
        >>> device, link = cost.Device(1e-5, 1e12), cost.Link(1e-6, 1e10)
        >>> [f"{1e3 * cost.split_s(device, link, 'forward', 2**24, 32, p):.2f} ms" for p in (1, 4)]
        ['12.89 ms', '3.23 ms']
    """
    if direction not in PASSES:
        choices = ", ".join(map(repr, PASSES))
        raise ValueError(f"direction must be one of {choices}, not {direction!r}")
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1, not {ranks}")
    before, during, after = PASSES[direction]
    one = itemsize * columns * math.ceil(steps / ranks) / device.bytes_per_s
    header = exchange_s(link, 0, ranks) if direction == "forward" else 0
    exchange = exchange_s(link, columns, ranks, wide)
    passes = max(before * one, header) + max(during * one, exchange) + after * one
    return shared(device, ranks) * (device.call_s + passes)


def shared(device: Device, ranks: int) -> float:
    """Return the factor by which everything takes longer because ranks share processors.

    Example:
        >>> from lrscan.distributed import cost
        >>> device = cost.Device(1e-5, 1e12, at_once=2)
        >>> cost.shared(device, ranks=4), cost.shared(device, ranks=1)
        (2.0, 1)
    """
    return max(ranks / device.at_once, 1)


def whole_s(
    device: Device, direction: str, steps: int, columns: int, *, itemsize: int = 4
) -> float:
    """Return the seconds of the recurrence on one device that holds all steps.

    Example:
        >>> from lrscan.distributed import cost
        >>> f"{1e3 * cost.whole_s(cost.Device(1e-5, 1e12), 'forward', 2**24, 32):.2f} ms"
        '6.45 ms'
    """
    moved = WHOLE[direction] * itemsize * columns * steps
    return device.call_s + moved / device.bytes_per_s


def fitted_device(measured: Mapping[int, float], at_once: float = math.inf) -> Device:
    """Fit a Device to measured {bytes per rank: seconds}.

    The fit is the line through the fewest and the most bytes. The seconds of a call are at least
    zero. If the most bytes take no longer than the fewest, bytes cost nothing.

    Raises:
        ValueError: fewer than two measurements

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.fitted_device({1_000: 0.002, 3_000: 0.004})
        Device(call_s=0.001, bytes_per_s=1000000.0, at_once=inf)
    """
    call_s, bytes_per_s = _line(measured, "bytes per rank")
    return Device(call_s, bytes_per_s, at_once)


def fitted_link(measured: Mapping[int, float], ranks: int) -> Link:
    """Fit a Link to measured {columns: seconds} of an exchange among ``ranks``, as a ring.

    The fit is that of :func:`fitted_device`, over the bytes that a rank receives.

    Raises:
        ValueError: fewer than two measurements

    Example:
        >>> from lrscan.distributed import cost
        >>> cost.fitted_link({1_000: 0.002, 3_000: 0.004}, ranks=2)
        Link(round_s=0.001, bytes_per_s=16000000.0, tree=False)
    """
    received = {bytes_exchanged(columns, ranks): s for columns, s in measured.items()}
    rounds_s, bytes_per_s = _line(received, "bytes exchanged")
    return Link(rounds_s / rounds(ranks, False), bytes_per_s)


def _line(measured: Mapping[int, float], quantity: str) -> tuple[float, float]:
    """Return (seconds at zero bytes, bytes per second) of the line through the outermost points."""
    if len(measured) < 2:
        raise ValueError(
            f"a fit needs measurements at two or more values of {quantity}, not {sorted(measured)}"
        )
    least, most = min(measured), max(measured)
    few, many = measured[least], measured[most]
    if many <= few:
        return few, math.inf
    bytes_per_s = (most - least) / (many - few)
    return max(few - least / bytes_per_s, 0.0), bytes_per_s
