"""Numerics: checks of `longest_block` and `log_complement`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lrscan.learn.exercises.check import Check, Mistake, NotYet, call, compared

TINY = float(np.finfo(np.float32).tiny)
EPS = float(np.finfo(np.float32).eps)


def _longest(decay: float, floor: float, up: bool = False) -> int:
    exact = math.log(floor) / math.log(decay)
    return math.ceil(exact) if up else math.floor(exact)


longest_block = compared(
    "the longest chunk whose product is still a normal number",
    lambda decay: _longest(decay, TINY),
    [(0.5,), (0.9,), (0.99,), (0.7,)],
    {
        "one too long": Mistake(
            lambda decay: _longest(decay, TINY) + 1,
            "With one step more the product is under the smallest normal number already.",
        ),
        "rounded up": Mistake(
            lambda decay: _longest(decay, TINY, up=True),
            "Round down: a chunk that is a little too long has lost its product.",
        ),
        "precision for range": Mistake(
            lambda decay: _longest(decay, EPS),
            "eps says how finely numbers are spaced around 1. How small they can get is `tiny`.",
        ),
    },
)


def _sigmoid(z: Any) -> Any:
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-z))).astype(np.float32)


def _log_or_floor(values: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(values)


_Z = np.array([-90, -4, 0, 1, 12, 17, 20, 60], dtype=np.float32)

_complement = compared(
    "log(1 - sigmoid(z)) with all its digits",
    lambda z: np.log(_sigmoid(-z)),
    [(_Z[k : k + 1],) for k in range(1, 7)],
    {
        "cancellation": Mistake(
            lambda z: _log_or_floor(np.float32(1) - _sigmoid(z)),
            "From z = 17 on, sigmoid(z) rounds to 1 and the difference to zero. Use the other "
            "branch of the function: 1 - sigmoid(z) = sigmoid(-z).",
        ),
        "the gate itself": Mistake(
            lambda z: np.log(_sigmoid(z)),
            "That is log(sigmoid(z)); asked for is log(1 - sigmoid(z)).",
        ),
        "logarithm forgotten": Mistake(
            lambda z: _sigmoid(-z),
            "That is 1 - sigmoid(z), with all its digits. Asked for is its logarithm.",
        ),
    },
)


def _examine_complement(answer: Callable) -> None:
    _complement.examine(answer)
    kind = np.asarray(call(answer, _Z[1:7])).dtype
    if kind != np.float32:
        raise NotYet(
            "a wider type",
            f"The values are right, but they are {kind}. More digits only "
            "put the loss off: a form without it needs float32 alone.",
        )


def _wide(z: Any) -> Any:
    return np.log(1 - 1 / (1 + np.exp(-z.astype(float))))


log_complement = Check(
    _complement.title,
    _examine_complement,
    {**_complement.mistakes, "a wider type": Mistake(_wide, "")},
)
