"""What else a scan does: checks of `gilr`, `reset` and `compose_max_plus`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrscan.learn.exercises.check import Mistake, compared


def _gilr(g: Any, i: Any) -> tuple:
    return g, (1 - g) * i


_G, _I = np.array([0.1, 0.9, 0.5]), np.array([2.0, -1.0, 4.0])

gilr = compared(
    "a gated impulse linear recurrence as a scan",
    _gilr,
    [(_G, _I), (_G[::-1], _I)],
    {
        "impulse not gated": Mistake(
            lambda g, i: (g, i),
            "The paper's layer is a weighted mean of past and impulse: the impulse has 1 - g.",
        ),
        "gate the wrong way": Mistake(
            lambda g, i: (1 - g, g * i),
            "g keeps the past: it multiplies h[t-1], so it is the coefficient a.",
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
            "That forgets the input and keeps the past. A reset forgets the past: it is the "
            "coefficient that multiplies it.",
        ),
        "both zeroed": Mistake(
            lambda a, x, starts: (np.where(starts, 0.0, a), np.where(starts, 0.0, x)),
            "The first input of the new sequence is lost as well. Keep x.",
        ),
        "one step late": Mistake(
            lambda a, x, starts: (np.where(np.append(False, starts[:-1]), 0.0, a), x),
            "a[t] multiplies the state *before* step t. If a sequence starts at t, it is a[t] that "
            "has to be zero, not a[t+1].",
        ),
    },
)

compose_max_plus = compared(
    "composition where plus is max and times is plus",
    lambda a1, x1, a2, x2: (a1 + a2, max(a2 + x1, x2)),
    [(2, 3, 5, 7), (0, -1, -4, 9), (1, 6, 2, -3)],
    {
        "swapped operands": Mistake(
            lambda a1, x1, a2, x2: (a1 + a2, max(a1 + x2, x1)),
            "Put h through map 1 first: max(a1 + h, x1). Then add a2 to it, and take the larger of "
            "that and x2.",
        ),
        "plus and times kept": Mistake(
            lambda a1, x1, a2, x2: (a1 * a2, a2 * x1 + x2),
            "That is the old algebra. Read every * as + and every + as max.",
        ),
        "inputs not moved on": Mistake(
            lambda a1, x1, a2, x2: (a1 + a2, max(x1, x2)),
            "x1 goes through the second map too, which adds a2 to it.",
        ),
    },
)
