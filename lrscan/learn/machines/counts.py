"""The cost of each scan in closed form: rounds and operations of its trace, without running it.

With n steps, L = ceil(log2 n) and N = 2**L:

    algorithm       rounds                     operations (compose and step)
    serial          n                          n
    Hillis-Steele   L + 1                      n L - (N - 1) + n
    Blelloch        2 L + 1                    2 (N - 1) + n
    blocked         2 ceil(n/p) + p - 1        2 n + p - 1
    blocked, tree   2 ceil(n/p) + K + [p > 1]  2 n + p K - (2**K - 1) + p - 1,   K = ceil(log2 p)

Brent (1974): a scan of W operations and depth D runs on p lanes in at most (W - D) / p + D rounds.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Rounds with as many lanes as the scan can use, and operations in all."""

    rounds: int
    work: int


def levels(n: int) -> int:
    """ceil(log2 n), exactly."""
    return (n - 1).bit_length()


def cost(algorithm: str, n: int, processors: int = 1) -> Cost:
    """The cost of a scan of n steps; ``processors`` matters for the blocked ones.

    Raises:
        ValueError: ``n`` is not positive, or the algorithm is unknown
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 step")
    L = levels(n)
    p, K = processors, levels(processors)
    chunk = -(-n // p)
    match algorithm:
        case "serial":
            return Cost(n, n)
        case "Hillis-Steele":
            return Cost(L + 1, n * L - (2**L - 1) + n)
        case "Blelloch":
            return Cost(2 * L + 1, 2 * (2**L - 1) + n)
        case "blocked":
            return Cost(2 * chunk + p - 1, 2 * n + p - 1)
        case "blocked, tree":
            return Cost(2 * chunk + K + (p > 1), 2 * n + p * K - (2**K - 1) + p - 1)
    raise ValueError(f"algorithm is {algorithm!r}, which has no closed form here")


def brent(work: int, depth: int, lanes: int) -> float:
    """Brent's bound on the rounds with that many lanes: ``(work - depth) / lanes + depth``."""
    return (work - depth) / lanes + depth
