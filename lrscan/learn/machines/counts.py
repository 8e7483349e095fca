"""The cost of each scan in closed form: rounds and operations, without running it.

With n steps, p processors, L = ceil(log2 n), N = 2**L and K = ceil(log2 p)::

    algorithm       rounds                     operations (compose and step)
    serial          n                          n
    Hillis-Steele   L + 1                      n L - (N - 1) + n
    Blelloch        2 L + 1                    2 (N - 1) + n
    blocked         2 ceil(n/p) + p - 1        2 n + p - 1
    blocked, tree   2 ceil(n/p) + K + [p > 1]  2 n + p K - (2**K - 1) + p - 1

Brent (1974): a scan of work W and depth D takes at most (W - D) / p + D rounds on p lanes.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Rounds with as many lanes as the scan can use, and operations in total."""

    rounds: int
    work: int


def levels(n: int) -> int:
    """Return ceil(log2 n), exactly."""
    return (n - 1).bit_length()


def cost(algorithm: str, n: int, processors: int = 1) -> Cost:
    """Return the cost of a scan of n steps; only the blocked scans depend on ``processors``.

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
    raise ValueError(f"algorithm is {algorithm!r}, expected a name in trace.ALGORITHMS")


def brent(work: int, depth: int, lanes: int) -> float:
    """Return Brent's bound on the rounds: ``(work - depth) / lanes + depth``."""
    return (work - depth) / lanes + depth
