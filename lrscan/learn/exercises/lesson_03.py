"""Work and depth: checks of `one_round`, `to_exclusive`, `padding` and `scan_round`."""

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
            "The map that comes earlier in time is the first operand, and it is the one at "
            "i - distance.",
        ),
        "read after write": Mistake(
            _in_place,
            "Some lane has read a result of this very round. All lanes work at once: they read "
            "what was there before it. Write into a new list.",
        ),
        "no guard": Mistake(
            lambda pairs, d: _round(pairs, d, wrap=True),
            "Lanes with i < distance have nobody before them. Python's index -1 is the last "
            "element, so no error told you. They keep their pair.",
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
            "That is the inclusive scan again: element t holds the state after step t. "
            "The exclusive one holds the state before it.",
        ),
        "forgotten start": Mistake(
            lambda h, h0: [0, *h[:-1]],
            "Before the first step the state is h0, which need not be zero.",
        ),
        "wrong direction": Mistake(
            lambda h, h0: [*h[1:], h0],
            "You have shifted the other way: element t holds the state after step t + 1.",
        ),
    },
)


def _loss(n: int) -> float:
    return (1 << (n - 1).bit_length()) / n


padding = compared(
    "what padding costs",
    _loss,
    [(8,), (9,), (257,), (1,), (1000,)],
    {
        "rounded down": Mistake(
            lambda n: (1 << (n.bit_length() - 1)) / n,
            "The tree needs at least n leaves: the next power of two up, not down.",
        ),
        "one level too many": Mistake(
            lambda n: (1 << n.bit_length()) / n,
            "A length that is a power of two already needs no padding: look at n = 8.",
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
                f"At distance {distance} nobody writes the first {distance} elements. They are "
                "done already, but the next round reads them from the new arrays: copy them.",
            )
        got = list(zip(a_out, x_out, strict=True))
        if same(got, pairs):
            continue
        swapped = [
            compose(a[i], x[i], a[i - distance], x[i - distance]) if i >= distance else pairs[i]
            for i in range(16)
        ]
        if same(got, swapped):
            raise NotYet("swapped operands", "The earlier map, at i - distance, comes first.")
        wrong = next(i for i in range(16) if not same(got[i], pairs[i]))
        raise NotYet(
            "another value",
            f"At distance {distance}, element {wrong} is {got[wrong]}, expected {pairs[wrong]}.",
        )


scan_round = Check("a round as a CUDA kernel", _examine_round, {})
