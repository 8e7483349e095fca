"""Why the loop is stuck: checks of ``reduce_chunk`` and ``in_chunks``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrscan.core import algebra
from lrscan.learn.exercises.check import Mistake, compared
from lrscan.learn.machines import trace

_A, _X = [1, 2, 0, 1, 3, 2, 1], [3, 1, 4, 1, 5, 9, 2]


def _reduce(a: list, x: list, compose: Callable = algebra.compose) -> tuple:
    pair: tuple = (1, 0)
    for a_t, x_t in zip(a, x, strict=True):
        pair = compose(*pair, a_t, x_t)
    return pair


def _swapped(a1: int, x1: int, a2: int, x2: int) -> tuple:
    return algebra.compose(a2, x2, a1, x1)


reduce_chunk = compared(
    "the chunk is one pair (P, R)",
    _reduce,
    [([2], [3]), ([1, 1, 2], [1, 5, 9]), (_A[3:], _X[3:]), (_A, _X)],
    {
        "swapped operands": Mistake(
            lambda a, x: _reduce(a, x, _swapped),
            "You put the later step first. An input is multiplied by the coefficients of the "
            "steps after it, not by those of the steps before it.",
        ),
        "inputs not multiplied": Mistake(
            lambda a, x: (int(np.prod(a)), sum(x)),
            "R is the end state of the chunk from a zero start. Every later coefficient "
            "multiplies an early input; a plain sum leaves that out.",
        ),
        "sum for product": Mistake(
            lambda a, x: (sum(a), _reduce(a, x)[1]),
            "P is the product of the coefficients, not their sum: each of them multiplies the "
            "incoming state in turn.",
        ),
    },
)


def _chunks(a: list, x: list, h0: int, processors: int, onward: Callable) -> list:
    edges, states, carry = trace.chunk_edges(len(a), processors), [], h0
    for start, stop in zip(edges, edges[1:], strict=False):
        h = carry
        for t in range(start, stop):
            h = a[t] * h + x[t]
            states.append(h)
        carry = onward(h0, carry, *_reduce(a[start:stop], x[start:stop]))
    return states


in_chunks = compared(
    "the chunks together are the loop",
    lambda a, x, h0, p: _chunks(a, x, h0, p, lambda h0, carry, P, R: P * carry + R),
    [(_A, _X, 5, 1), (_A, _X, 5, 2), (_A, _X, 5, 3), (_A, _X, -1, 7)],
    {
        "forgotten carry": Mistake(
            lambda a, x, h0, p: _chunks(a, x, h0, p, lambda h0, carry, P, R: 0),
            "Every chunk after the first starts from zero. It must start from the state at the "
            "end of the chunk before.",
        ),
        "h0 for the carry": Mistake(
            lambda a, x, h0, p: _chunks(a, x, h0, p, lambda h0, carry, P, R: h0),
            "Every chunk starts from h0. Only the first one does; the others start from the state "
            "at the end of the chunk before.",
        ),
        "R for the carry": Mistake(
            lambda a, x, h0, p: _chunks(a, x, h0, p, lambda h0, carry, P, R: R),
            "R is the end state of a chunk that starts from zero. But it starts from its own "
            "carry, so the next carry is P * carry + R.",
        ),
    },
)
