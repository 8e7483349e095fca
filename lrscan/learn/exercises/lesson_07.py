"""Numerics: checks of ``longest_block`` and ``log_complement``."""

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
    "this is the longest chunk whose product is still a normal number",
    lambda decay: _longest(decay, TINY),
    [(0.5,), (0.9,), (0.99,), (0.7,)],
    {
        "one too long": Mistake(
            lambda decay: _longest(decay, TINY) + 1,
            "This is one step too long: the product is below the smallest normal number.",
        ),
        "rounded up": Mistake(
            lambda decay: _longest(decay, TINY, up=True),
            "Round down: the product of a chunk that is slightly too long is out of range.",
        ),
        "precision for range": Mistake(
            lambda decay: _longest(decay, EPS),
            "eps is the spacing of numbers just above 1. The smallest normal number is `tiny`.",
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
    "your log(1 - sigmoid(z)) keeps all its digits",
    lambda z: np.log(_sigmoid(-z)),
    [(_Z[k : k + 1],) for k in range(1, 7)],
    {
        "cancellation": Mistake(
            lambda z: _log_or_floor(np.float32(1) - _sigmoid(z)),
            "From z = 17 on, sigmoid(z) rounds to 1, and the difference is zero. Use the symmetry "
            "of the sigmoid: 1 - sigmoid(z) = sigmoid(-z).",
        ),
        "the gate itself": Mistake(
            lambda z: np.log(_sigmoid(z)),
            "That is log(sigmoid(z)). Return log(1 - sigmoid(z)).",
        ),
        "logarithm forgotten": Mistake(
            lambda z: _sigmoid(-z),
            "That is 1 - sigmoid(z), with all its digits. Return its logarithm.",
        ),
    },
)


def _examine_complement(answer: Callable) -> None:
    _complement.examine(answer)
    kind = np.asarray(call(answer, _Z[1:7])).dtype
    if kind != np.float32:
        raise NotYet(
            "a wider type",
            f"The values are right, but their type is {kind}. More digits only delay the loss. A "
            "formula that loses no digits needs only float32.",
        )


def _wide(z: Any) -> Any:
    return np.log(1 - 1 / (1 + np.exp(-z.astype(float))))


log_complement = Check(
    _complement.title,
    _examine_complement,
    {**_complement.mistakes, "a wider type": Mistake(_wide, "")},
)
