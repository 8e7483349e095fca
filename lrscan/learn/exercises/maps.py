"""Exercises of notebooks 01 and 02: pieces, and the monoid of affine maps."""

from __future__ import annotations

import numpy as np

from lrscan.core import algebra
from lrscan.learn.exercises.check import Check, Mistake, NotYet, call, compared, same
from lrscan.learn.machines import trace

_A, _X = [1, 2, 0, 1, 3, 2, 1], [3, 1, 4, 1, 5, 9, 2]


def _reduce(a, x, compose=algebra.compose):
    pair = (1, 0)
    for a_t, x_t in zip(a, x, strict=True):
        pair = compose(*pair, a_t, x_t)
    return pair


def _swapped(a1, x1, a2, x2):
    return algebra.compose(a2, x2, a1, x1)


reduce_piece = compared(
    "the piece is one pair (P, R)",
    _reduce,
    [([2], [3]), ([1, 1, 2], [1, 5, 9]), (_A[3:], _X[3:]), (_A, _X)],
    {
        "swapped operands": Mistake(
            lambda a, x: _reduce(a, x, _swapped),
            "You put the later step first. Each input is multiplied by the coefficients of the "
            "steps after it, not of those before.",
        ),
        "inputs not multiplied": Mistake(
            lambda a, x: (int(np.prod(a)), sum(x)),
            "R is the state that the piece ends in from a zero start. An early input passes "
            "through every later coefficient; a plain sum forgets that.",
        ),
        "sum for product": Mistake(
            lambda a, x: (sum(a), _reduce(a, x)[1]),
            "P is the product of the coefficients, not their sum: the state that comes in is "
            "multiplied by each in turn.",
        ),
    },
)


def _pieces(a, x, h0, processors, onward):
    edges, states, carry = trace.piece_edges(len(a), processors), [], h0
    for start, stop in zip(edges, edges[1:], strict=False):
        h = carry
        for t in range(start, stop):
            h = a[t] * h + x[t]
            states.append(h)
        carry = onward(h0, carry, *_reduce(a[start:stop], x[start:stop]))
    return states


in_pieces = compared(
    "the pieces together are the loop",
    lambda a, x, h0, p: _pieces(a, x, h0, p, lambda h0, carry, P, R: P * carry + R),
    [(_A, _X, 5, 1), (_A, _X, 5, 2), (_A, _X, 5, 3), (_A, _X, -1, 7)],
    {
        "forgotten carry": Mistake(
            lambda a, x, h0, p: _pieces(a, x, h0, p, lambda h0, carry, P, R: 0),
            "Every piece after the first starts from zero. It has to start from the state at the "
            "end of the piece before.",
        ),
        "h0 for the carry": Mistake(
            lambda a, x, h0, p: _pieces(a, x, h0, p, lambda h0, carry, P, R: h0),
            "Every piece starts from h0. Only the first one does; the others start from the state "
            "at the end of the piece before.",
        ),
        "R for the carry": Mistake(
            lambda a, x, h0, p: _pieces(a, x, h0, p, lambda h0, carry, P, R: R),
            "R is where a piece ends if it starts from zero. It started from its own carry: the "
            "next carry is P * carry + R.",
        ),
    },
)

compose = compared(
    "first one map, then the other, is one map",
    algebra.compose,
    [(2, 3, 5, 7), (1, 0, 4, 9), (4, 9, 1, 0), (0, 3, -2, 1)],
    {
        "swapped operands": Mistake(
            _swapped,
            "That is the second map followed by the first. Put h through map 1: a1 h + x1. Put "
            "that through map 2.",
        ),
        "inputs not multiplied": Mistake(
            lambda a1, x1, a2, x2: (a1 * a2, x1 + x2),
            "x1 goes through the second map too, so it is multiplied by a2.",
        ),
    },
)

_M1, _M2 = np.array([[1, 2], [0, 1]]), np.array([[0, 1], [3, 1]])
_V1, _V2 = np.array([1, 4]), np.array([2, -1])

compose_dense = compared(
    "the same with matrices",
    lambda A1, x1, A2, x2: (A2 @ A1, A2 @ x1 + x2),
    [(_M1, _V1, _M2, _V2), (_M2, _V2, _M1, _V1)],
    {
        "swapped product": Mistake(
            lambda A1, x1, A2, x2: (A1 @ A2, A2 @ x1 + x2),
            "Matrix products do not commute. The map that acts first stands on the right: "
            "A2 (A1 h + x1) + x2.",
        ),
        "elementwise product": Mistake(
            lambda A1, x1, A2, x2: (A2 * A1, A2 @ x1 + x2),
            "For NumPy arrays * multiplies element by element; the matrix product is @.",
        ),
    },
)


def _repeat(pair, n, compose):
    result = (1, 0)
    while n:
        if n % 2:
            result = compose(*result, *pair)
        pair, n = compose(*pair, *pair), n // 2
    return result


def _examine_repeat(answer) -> None:
    for pair, n in (((2, 1), 1), ((2, 1), 2), ((1, 3), 5), ((-1, 2), 13), ((1, 1), 1000)):
        used = []

        def counted(*pairs, used=used):
            used.append(pairs)
            return algebra.compose(*pairs)

        got, expected = call(answer, pair, n, counted), _repeat(pair, n, algebra.compose)
        if same(got, _repeat(pair, n + 1, algebra.compose)) and not same(got, expected):
            raise NotYet(
                "one too many",
                f"For n = {n} the map was composed {n + 1} times: begin from the identity or from "
                "the map, not from both.",
            )
        if not same(got, expected):
            raise NotYet("another value", f"{n} times {pair} gives {got}, expected {expected}.")
        most = 2 * n.bit_length()
        if len(used) > most:
            raise NotYet(
                "too many compositions",
                f"The value is right, but n = {n} took {len(used)} compositions. Associativity "
                f"lets you square: the map twice, four times, eight times; {most} are enough.",
            )


repeat = Check(
    "n maps in about 2 log2(n) compositions",
    _examine_repeat,
    {
        "too many compositions": Mistake(
            lambda pair, n, compose: _reduce([pair[0]] * n, [pair[1]] * n, compose), ""
        ),
        "one too many": Mistake(lambda pair, n, compose: _repeat(pair, n + 1, compose), ""),
    },
)
