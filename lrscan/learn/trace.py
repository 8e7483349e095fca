"""Scans that write down what they do, on inputs small enough to look at.

They call :mod:`lrscan.algebra`, the same bodies that the kernels are compiled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lrscan import algebra


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
    product: float
    end: float
    carry: float
    states: list[float]


def serial(a: Sequence[float], x: Sequence[float], h0: float = 0.0) -> list[float]:
    """h[t] = a[t] * h[t-1] + x[t], one step after the other."""
    states = []
    for a_t, x_t in zip(a, x, strict=True):
        h0 = algebra.step(a_t, x_t, h0)
        states.append(h0)
    return states


def blocked(
    a: Sequence[float], x: Sequence[float], h0: float = 0.0, *, processors: int
) -> list[Piece]:
    """Algorithm 1 of Martin and Cundy (2018): a piece for each processor, as even as can be.

    Raises:
        ValueError: ``processors`` is not between 1 and the number of steps
    """
    if not 1 <= processors <= len(a):
        raise ValueError(f"processors is {processors}, expected 1 to {len(a)}, the steps")
    edges = [len(a) * p // processors for p in range(processors + 1)]
    pieces, carry = [], h0
    for start, stop in zip(edges, edges[1:], strict=False):
        product, end = 1, 0
        for t in range(start, stop):
            product, end = algebra.compose(product, end, a[t], x[t])
        states = serial(a[start:stop], x[start:stop], carry)
        pieces.append(Piece(start, stop, product, end, carry, states))
        carry = algebra.step(product, end, carry)
    return pieces


def serial_rounds(steps: int) -> int:
    """Time steps of the serial loop, each waiting for the one before."""
    return steps


def blocked_rounds(steps: int, processors: int) -> int:
    """The same for Algorithm 1, its carries taken one after the other.

    Every processor reduces its piece, then the carries pass, then every processor runs its piece.
    """
    longest = -(-steps // processors)
    return longest + (processors - 1) + longest
