"""Inside one block: checks of ``block_scan``, ``cell_of`` and ``warp_scan``."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import Check, Mistake, NotYet, call, same
from lrscan.learn.exercises.launches import TILE, compare, inputs, launch, no_races
from lrscan.learn.machines import banks, warp

BARRIERS = 10  # enough for a block of TILE threads with one array of pairs


def _examine_block(kernel: Callable) -> None:
    for (steps, h0), order in itertools.product(
        ((1, 3.0), (5, 2.0), (TILE, -1.0)), ("ascending", "descending", 1)
    ):
        a, x = inputs(steps, steps)
        h = np.full_like(a, np.nan)
        log = launch(kernel, 1, TILE, a, x, h0, h, order=order)
        no_races(log)
        compare(h, a, x, h0)
    if log.barriers > BARRIERS:
        raise NotYet(
            "too many barriers",
            f"The states are right, but each thread passes {log.barriers} barriers. For {TILE} "
            f"threads, {BARRIERS} are enough: two in each of five rounds. At a barrier all threads "
            "wait for the slowest one.",
        )


block_scan = Check(
    "your block scans up to 32 steps, whatever the order of its threads", _examine_block, {}
)


def _examine_cells(index: Callable) -> None:
    cells = [call(index, i) for i in range(1024)]
    for i, cell in enumerate(cells):
        if not isinstance(cell, int | np.integer) or cell < 0:
            raise NotYet(
                "not a cell",
                f"Element {i} goes to {cell!r}, which is not a cell. Cells are whole numbers "
                "from 0 on; // divides and rounds down.",
            )
    if len(set(cells)) < 1024:
        first = next(i for i in range(1024) if cells[i] in cells[:i])
        other = cells.index(cells[first])
        raise NotYet(
            "two elements in one cell",
            f"Elements {other} and {first} both go to cell {cells[first]}: one would overwrite "
            "the other.",
        )
    if max(cells) > 1024 + 1024 // 8:
        raise NotYet(
            "too many cells",
            f"1,024 elements use {max(cells) + 1} cells. One unused cell after every 32 is enough.",
        )
    for stride in (1, 2, 4, 8, 16):
        touched = [cells[2 * stride * lane + stride - 1] for lane in range(32)]
        if (turns := banks.ways(touched)) > 1:
            raise NotYet(
                "conflicts remain",
                f"At stride {stride} the first lanes access the cells {touched[:4]}, and the warp "
                f"needs {turns} turns. The bank of a cell is its number modulo 32.",
            )


cell_of = Check(
    "no two lanes of the tree access the same bank",
    _examine_cells,
    {
        "conflicts remain": Mistake(lambda i: i, ""),
        "two elements in one cell": Mistake(lambda i: i % 512, ""),
        "too many cells": Mistake(lambda i: 33 * i, ""),
        "not a cell": Mistake(lambda i: i + i / 32, ""),
    },
)


def _examine_warp(program: Callable) -> None:
    for lanes in (2, 8, 32):
        a, x = (values.tolist() for values in inputs(lanes, lanes))
        try:
            result = warp.run(program, a, x, lanes=lanes)
        except warp.Divergence as problem:
            raise NotYet("shuffle inside an if", f"{problem}.") from None
        except Exception as error:
            raise NotYet(type(error).__name__, f"The program fails: {error}.") from None
        if all(value is None for value in result.values):
            raise NotYet("nothing returned", "At the end, return the pair of the lane: (p, r).")
        for lane, value in enumerate(result.values):
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise NotYet(
                    "not a pair",
                    "Every lane returns the pair (p, r), also a lane with no lane below it; lane "
                    f"{lane} returned {value!r}.",
                )
        pairs, swapped = [(a[0], x[0])], [(a[0], x[0])]
        for t in range(1, lanes):
            pairs.append(compose(*pairs[-1], a[t], x[t]))
            swapped.append(compose(a[t], x[t], *swapped[-1]))
        got = [tuple(value) for value in result.values]
        if same(got, pairs):
            continue
        if same(got, swapped):
            raise NotYet(
                "swapped operands",
                "The pair of the lane below is earlier in time, so it is the first operand.",
            )
        wrong = next(i for i in range(lanes) if not same(got[i], pairs[i]))
        if wrong == 0:
            raise NotYet(
                "no guard",
                "Lane 0 has no lane below it: a shuffle gives it its own value, and it must not "
                "compose with that.",
            )
        raise NotYet(
            "another value", f"Lane {wrong} of {lanes} has {got[wrong]}, expected {pairs[wrong]}."
        )


warp_scan = Check("your warp scans its 32 pairs without shared memory", _examine_warp, {})
