"""The monoid of affine maps: checks of ``compose``, ``repeat`` and ``compose_dense``."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from lrscan.core import algebra
from lrscan.learn.exercises.check import Check, Mistake, NotYet, call, compared, same

compose = compared(
    "one map followed by another is again one map",
    algebra.compose,
    [(2, 3, 5, 7), (1, 0, 4, 9), (4, 9, 1, 0), (0, 3, -2, 1)],
    {
        "swapped operands": Mistake(
            lambda a1, x1, a2, x2: algebra.compose(a2, x2, a1, x1),
            "That is the second map followed by the first. Apply map 1 to h, which gives "
            "a1 h + x1. Then apply map 2 to the result.",
        ),
        "inputs not multiplied": Mistake(
            lambda a1, x1, a2, x2: (a1 * a2, x1 + x2),
            "The second map is applied to x1 as well, so a2 multiplies it.",
        ),
    },
)


def _repeat(pair: tuple, n: int, compose: Callable) -> tuple:
    result: tuple = (1, 0)
    while n:
        if n % 2:
            result = compose(*result, *pair)
        pair, n = compose(*pair, *pair), n // 2
    return result


def _examine_repeat(answer: Callable) -> None:
    for pair, n in (((2, 1), 1), ((2, 1), 2), ((1, 3), 5), ((-1, 2), 13), ((1, 1), 1000)):
        used: list[tuple] = []

        def counted(*pairs: int, used: list[tuple] = used) -> tuple:
            used.append(pairs)
            return algebra.compose(*pairs)

        got, expected = call(answer, pair, n, counted), _repeat(pair, n, algebra.compose)
        if same(got, _repeat(pair, n + 1, algebra.compose)) and not same(got, expected):
            raise NotYet(
                "one too many",
                f"For n = {n} your result has the map {n + 1} times. Start from the identity or "
                "from the map, not from both.",
            )
        if not same(got, expected):
            raise NotYet(
                "another value", f"For {pair} and n = {n} you return {got}, expected {expected}."
            )
        most = 2 * n.bit_length()
        if len(used) > most:
            raise NotYet(
                "too many compositions",
                f"The value is right, but n = {n} took {len(used)} compositions. {most} are "
                "enough: composing a result with itself gives the map 2, 4, 8, ... times.",
            )


repeat = Check(
    "n maps in about 2 log2(n) compositions",
    _examine_repeat,
    {
        "too many compositions": Mistake(
            lambda pair, n, compose: reduce(lambda f, g: compose(*f, *g), [pair] * n, (1, 0)), ""
        ),
        "one too many": Mistake(lambda pair, n, compose: _repeat(pair, n + 1, compose), ""),
    },
)

_M1, _M2 = np.array([[1, 2], [0, 1]]), np.array([[0, 1], [3, 1]])
_V1, _V2 = np.array([1, 4]), np.array([2, -1])

compose_dense = compared(
    "affine maps with matrices compose in the same way",
    lambda A1, x1, A2, x2: (A2 @ A1, A2 @ x1 + x2),
    [(_M1, _V1, _M2, _V2), (_M2, _V2, _M1, _V1)],
    {
        "swapped product": Mistake(
            lambda A1, x1, A2, x2: (A1 @ A2, A2 @ x1 + x2),
            "Matrix products do not commute. The matrix of the first map is on the right: "
            "A2 (A1 h + x1) + x2.",
        ),
        "elementwise product": Mistake(
            lambda A1, x1, A2, x2: (A2 * A1, A2 @ x1 + x2),
            "For NumPy arrays, * multiplies element by element; the matrix product is @.",
        ),
    },
)
