"""Other uses of a scan: checks of ``gilr``, ``reset`` and ``compose_max_plus``."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrscan.learn.exercises.check import Mistake, compared


def _gilr(g: Any, i: Any) -> tuple:
    return g, (1 - g) * i


_G, _I = np.array([0.1, 0.9, 0.5]), np.array([2.0, -1.0, 4.0])

gilr = compared(
    "the recurrence of a GILR has this coefficient and this input",
    _gilr,
    [(_G, _I), (_G[::-1], _I)],
    {
        "impulse not gated": Mistake(
            lambda g, i: (g, i),
            "The layer is a weighted mean of past and impulse: the weight of the impulse is 1 - g.",
        ),
        "gate the wrong way": Mistake(
            lambda g, i: (1 - g, g * i),
            "g is the weight of the past: it multiplies h[t-1], so it is the coefficient a.",
        ),
    },
)

_A = np.array([0.5, 0.9, 2.0, 1.0, 0.3])
_X = np.array([1.0, -2.0, 3.0, 4.0, 5.0])
_STARTS = np.array([True, False, True, False, False])


def _reset(a: Any, x: Any, starts: Any) -> tuple:
    return np.where(starts, 0.0, a), x


reset = compared(
    "a new sequence begins where the coefficient is zero",
    _reset,
    [(_A, _X, _STARTS), (_A, _X, ~_STARTS)],
    {
        "input zeroed": Mistake(
            lambda a, x, starts: (a, np.where(starts, 0.0, x)),
            "That forgets the input and keeps the past. A reset forgets the past, which the "
            "coefficient multiplies.",
        ),
        "both zeroed": Mistake(
            lambda a, x, starts: (np.where(starts, 0.0, a), np.where(starts, 0.0, x)),
            "The first input of the new sequence is lost as well. Keep x as it is.",
        ),
        "one step late": Mistake(
            lambda a, x, starts: (np.where(np.append(False, starts[:-1]), 0.0, a), x),
            "a[t] multiplies the state *before* step t. If a sequence starts at t, then a[t] must "
            "be zero, not a[t+1].",
        ),
    },
)

compose_max_plus = compared(
    "maps compose with max instead of plus, and plus instead of times",
    lambda a1, x1, a2, x2: (a1 + a2, max(a2 + x1, x2)),
    [(2, 3, 5, 7), (0, -1, -4, 9), (1, 6, 2, -3)],
    {
        "swapped operands": Mistake(
            lambda a1, x1, a2, x2: (a1 + a2, max(a1 + x2, x1)),
            "Apply map 1 to h first: max(a1 + h, x1). Then add a2, and take the larger of the sum "
            "and x2.",
        ),
        "plus and times kept": Mistake(
            lambda a1, x1, a2, x2: (a1 * a2, a2 * x1 + x2),
            "That is the old algebra. Replace every + by max, and every * by +.",
        ),
        "inputs not moved on": Mistake(
            lambda a1, x1, a2, x2: (a1 + a2, max(x1, x2)),
            "The second map is applied to x1 as well, and adds a2 to it.",
        ),
    },
)
