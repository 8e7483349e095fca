"""Work and depth: checks of ``one_round``, ``to_exclusive``, ``padding`` and ``scan_round``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import Check, Mistake, NotYet, compared, same
from lrscan.learn.exercises.launches import inputs, launch

_PAIRS = [(2, 3), (1, 4), (3, 1), (0, 5), (2, 2), (1, 1)]


def _round(pairs: list, distance: int, flip: bool = False, wrap: bool = False) -> list:
    def one(i: int) -> tuple:
        if i < distance and not wrap:
            return pairs[i]
        first, second = pairs[i - distance], pairs[i]
        return compose(*second, *first) if flip else compose(*first, *second)

    return [one(i) for i in range(len(pairs))]


def _in_place(pairs: list, distance: int) -> list:
    pairs = list(pairs)
    for i in range(distance, len(pairs)):
        pairs[i] = compose(*pairs[i - distance], *pairs[i])
    return pairs


one_round = compared(
    "a round of Hillis and Steele's scan",
    _round,
    [(list(_PAIRS), d) for d in (1, 2, 4)],
    {
        "swapped operands": Mistake(
            lambda pairs, d: _round(pairs, d, flip=True),
            "The map at i - distance is earlier in time, so it is the first operand.",
        ),
        "read after write": Mistake(
            _in_place,
            "Some lane has read a result of the same round. All lanes work at once: they read "
            "what was there before the round. Write into a new list.",
        ),
        "no guard": Mistake(
            lambda pairs, d: _round(pairs, d, wrap=True),
            "Lanes with i < distance have no lane that far before them, so they keep their pair. "
            "Python gave no error, because the index -1 means the last element.",
        ),
    },
)

_STATES = [3, 7, 4, 5, 10, 29]

to_exclusive = compared(
    "the state before every step",
    lambda h, h0: [h0, *h[:-1]],
    [(list(_STATES), 2), ([4], -1)],
    {
        "inclusive for exclusive": Mistake(
            lambda h, h0: list(h),
            "That is the inclusive scan again: element t holds the state after step t. In the "
            "exclusive scan it holds the state before step t.",
        ),
        "forgotten start": Mistake(
            lambda h, h0: [0, *h[:-1]],
            "Before the first step the state is h0, which need not be zero.",
        ),
        "wrong direction": Mistake(
            lambda h, h0: [*h[1:], h0],
            "You shifted the wrong way: element t holds the state after step t + 1.",
        ),
    },
)


def _loss(n: int) -> float:
    return (1 << (n - 1).bit_length()) / n


padding = compared(
    "the padded tree has this many leaves per step",
    _loss,
    [(8,), (9,), (257,), (1,), (1000,)],
    {
        "rounded down": Mistake(
            lambda n: (1 << (n.bit_length() - 1)) / n,
            "The tree needs at least n leaves: round up to a power of two, not down.",
        ),
        "one level too many": Mistake(
            lambda n: (1 << n.bit_length()) / n,
            "A length that is already a power of two needs no padding. Try n = 8.",
        ),
    },
)


def _examine_round(kernel: Callable) -> None:
    a, x = inputs(16)
    for distance in (1, 2, 4, 8):
        a_out, x_out = np.full_like(a, np.nan), np.full_like(x, np.nan)
        launch(kernel, 1, 16, a, x, a_out, x_out, distance)
        pairs = [
            compose(a[i - distance], x[i - distance], a[i], x[i]) if i >= distance else (a[i], x[i])
            for i in range(16)
        ]
        if np.isnan(a_out[:distance]).any() or np.isnan(x_out[:distance]).any():
            raise NotYet(
                "forgotten copy",
                f"At distance {distance} no thread writes the first {distance} elements. They "
                "are done already, but the next round reads them from the new arrays: copy them.",
            )
        got = list(zip(a_out, x_out, strict=True))
        if same(got, pairs):
            continue
        swapped = [
            compose(a[i], x[i], a[i - distance], x[i - distance]) if i >= distance else pairs[i]
            for i in range(16)
        ]
        if same(got, swapped):
            raise NotYet(
                "swapped operands", "The map at i - distance is the earlier one: it comes first."
            )
        wrong = next(i for i in range(16) if not same(got[i], pairs[i]))
        raise NotYet(
            "another value",
            f"At distance {distance}, element {wrong} is {got[wrong]}, expected {pairs[wrong]}.",
        )


scan_round = Check("your CUDA kernel does a round of the scan", _examine_round, {})
