"""Across blocks: checks of ``tile_scan`` and ``look_back``."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import Check, Mistake, NotYet, same
from lrscan.learn.exercises.launches import TILE, Array, compare, inputs, launch, no_races
from lrscan.learn.machines import protocol, simulator
from lrscan.learn.machines.accesses import Access, Log
from lrscan.learn.machines.interleave import (
    Exploration,
    Read,
    Release,
    TooMany,
    Wait,
    Write,
    explore,
)
from lrscan.learn.machines.protocol import IDENTITY, PAIRS, PREFIX, TOTAL, UNWRITTEN, Pair, carries


def _examine_tiles(kernel: Callable) -> None:
    for steps, h0 in ((TILE, 2.0), (2 * TILE, 1.0), (3 * TILE, -1.0), (2 * TILE + 5, 3.0)):
        a, x = inputs(steps, steps)
        h, carry, ready = outputs = _outputs(x)
        log = launch(kernel, len(carry), TILE, a, x, h0, *outputs, late="ready")
        no_races(log)
        _handed_over(log)
        compare(h, a, x, h0, TILE)
    _passed_on(carry, ready, h)


def _outputs(x: Array) -> tuple[Array, Array, Array]:
    """Return (h, carry, ready) for a tile kernel, with nothing in them yet."""
    tiles = -(-len(x) // TILE)
    return np.full_like(x, np.nan), np.full(tiles, np.nan, x.dtype), np.zeros(tiles, np.int32)


def run_tiles(kernel: Callable, a: Array, x: Array, h0: Any) -> Array:
    """Return the states that a tile kernel (a, x, h0, h, carry, ready) computes."""
    h, carry, ready = outputs = _outputs(x)
    jitted: Any = kernel if hasattr(kernel, "py_func") else simulator.cuda.jit(kernel)
    jitted[len(carry), TILE](a, x, h0, *outputs)
    return h


def _handed_over(log: Log) -> None:
    """Raise NotYet unless values of other tiles are read after flags that were set after them.

    Two accesses of a block are in order if one thread makes both, or if a barrier is between them.
    """
    written: dict[tuple, tuple[int, Access]] = {}
    flags: dict[int, tuple[int, Access]] = {}
    waits: dict[tuple, list[Access]] = {}
    for at, access in enumerate(log.accesses):
        block, place = access.block, (access.array, access.index)
        if access.array == "ready":
            if access.kind == "write":
                flags[access.index] = at, access
            else:
                waits.setdefault((block, access.index), []).append(access)
        elif access.kind == "write":
            written[place] = at, access
        elif place in written and (tile := written[place][1].block) != block:
            polls = [one for one in waits.get((block, tile), ()) if _in_order(one, access)]
            if not _waited(polls):
                place_read = f"{access.array}[{access.index}]"
                _no_wait(f"reads {place_read} without waiting for its flag", block)
            (value_at, value), (flag_at, flag) = written[place], flags.get(tile, (at, access))
            if flag_at < value_at or not _in_order(value, flag):
                raise NotYet(
                    "flag before value",
                    f"ready[{tile}] is set before {access.array}[{access.index}] is written, or "
                    "another thread sets it with no barrier in between. A tile that sees the flag "
                    "may read a value that is not there yet.",
                )
    for (block, tile), polls in waits.items():
        if tile != block and not _waited(polls):
            _no_wait(f"reads ready[{tile}] only once", block)


def _waited(polls: list[Access]) -> bool:
    """Return True if a thread polled twice: the flags are late, so all are 0 the first time."""
    return len(polls) > len({one.thread for one in polls})


def _in_order(first: Access, second: Access) -> bool:
    return first.thread == second.thread or first.epoch < second.epoch


def _no_wait(action: str, tile: int) -> None:
    raise NotYet(
        "no wait",
        f"Tile {tile} {action}. It must read the flag again and again until it is 1. The simulator "
        f"runs the blocks in order, so the result may be right here. On a GPU, tile {tile} may "
        f"read before tile {tile - 1} has written.",
    )


def _passed_on(carry: Array, ready: Array, h: Array) -> None:
    if (ready != 1).any():
        tile = int(np.flatnonzero(ready != 1)[0])
        raise NotYet(
            "flag not set",
            f"The states are right, but at the end ready[{tile}] is {ready[tile]}. Every tile must "
            "set its flag to 1 for the next tile.",
        )
    ends = np.append(h[TILE - 1 :: TILE], h[-1])[: len(carry)]
    if not same(carry, ends):
        tile = next(k for k in range(len(carry)) if not same(carry[k], ends[k]))
        raise NotYet(
            "another carry",
            f"The states are right, but carry[{tile}] is {carry[tile]:g}. It must hold the state "
            f"after tile {tile}, which is {ends[tile]:g}.",
        )


tile_scan = Check(
    "your kernel scans any number of tiles, and each passes its carry to the next",
    _examine_tiles,
    {},
)


def _examine_look_back(tile: Callable) -> None:
    try:
        alone = protocol.run(tile, 1)
        strict = protocol.run(tile, 3, relaxed=False)
    except TooMany:
        raise NotYet(
            "endless polling",
            "Your tile reads the same flag again and again. When the flag is 1, the total is "
            "there: take it and continue. (Wait sleeps until the flag is set; it needs no loop.)",
        ) from None
    except Exception as error:
        raise NotYet(type(error).__name__, f"A tile fails: {error}") from None
    if alone.results == {0: None}:
        raise NotYet(
            "nothing returned",
            "The tile returns no carry. Return the pair of everything before it; for tile 0 this "
            "is the identity.",
        )
    if strict.problem:
        raise NotYet(*_explain(strict))
    relaxed = protocol.run(tile, 3)
    if relaxed.problem:
        raise NotYet(
            "plain store for the flag",
            f"{relaxed}\nIt works if stores arrive in the order of the program, but ordinary "
            "stores may arrive late. Set the flag with Release, which arrives after all earlier "
            "stores.",
        )
    if strict.states < 30:
        raise NotYet(
            "no look-back",
            "No tile reads a total: each waits for the prefix before it, which is a chain. Publish "
            "the total before you look back.",
        )
    prefixes = carries()[1:4]
    if strict.memory["flag"] != (PREFIX,) * 3 or strict.memory["prefix"] != tuple(prefixes):
        raise NotYet(
            "no prefix",
            f"The carries are right, but at the end flag = {strict.memory['flag']} and prefix = "
            f"{strict.memory['prefix']}. Expected are flags of 2 and prefix = {tuple(prefixes)}. "
            "Without prefixes every tile walks back to the first one. Write the prefix, then set "
            "the flag to 2.",
        )
    done: dict[str, list] = {"flag": [PREFIX] * 3, "total": [UNWRITTEN] * 3, "prefix": prefixes}
    late = explore([lambda: tile(2, PAIRS[2])], done, lambda results: None)
    if late.results.get(0) != carries()[2]:
        raise NotYet(
            "prefix not used",
            "Tile 2 finds flag 2 at tile 1, but it takes totals all the same. The prefix of tile 1 "
            "is its whole carry: take that, and stop.",
        )


def _explain(outcome: Exploration) -> tuple[str, str]:
    text = str(outcome)
    garbage = any(
        "reads total" in line or "reads prefix" in line
        for line in outcome.schedule
        if str(UNWRITTEN) in line
    )
    if outcome.problem and outcome.problem.startswith("stuck"):
        return "stuck", f"{text}\nNo tile can continue: a tile waits for a flag that nobody sets."
    if garbage:
        return (
            "flag before value",
            f"{text}\nA tile read a value that was not written yet, although its flag was set. "
            "Write the value first, then set the flag.",
        )
    if _reads_on(outcome.schedule):
        return (
            "prefix counted twice",
            f"{text}\nA prefix covers everything up to its tile. A tile that has read one is done: "
            "everything further back is in it already.",
        )
    for name, (right, words) in _ARITHMETIC.items():
        if outcome.results.items() <= dict(enumerate(right)).items():
            return name, f"{text}\n{words}"
    return "another carry", text


def _reads_on(schedule: list[str]) -> bool:
    """Return True if a program reads another value after a prefix."""
    done: set[str] = set()
    for line in schedule:
        if found := re.match(r"tile (\d) reads (total|prefix)", line):
            if found[1] in done:
                return True
            done |= {found[1]} if found[2] == "prefix" else set()
    return False


_ARITHMETIC = {
    "swapped operands": (
        carries(flip=True),
        "The tile further back is earlier in time, so its pair is the first operand of compose.",
    ),
    "one tile only": (
        [IDENTITY, PAIRS[0], PAIRS[1]],
        "Tile 2 took the total of tile 1 and stopped. Only a prefix ends the walk.",
    ),
}


def _totals_only(k: int, pair: Pair) -> Generator[Any, Any, Pair]:
    yield Write("total", k, pair)
    yield Release("flag", k, TOTAL)
    carry: Pair = IDENTITY
    for at in reversed(range(k)):
        yield Wait("flag", at)
        total: Pair = yield Read("total", at)
        carry = compose(*total, *carry)
    return carry


def _polling(k: int, pair: Pair) -> Generator[Any, Any, Pair]:
    yield Write("total", k, pair)
    yield Release("flag", k, TOTAL)
    while k and (yield Wait("flag", k - 1)) != PREFIX:
        pass
    carry: Pair = (yield Read("prefix", k - 1)) if k else IDENTITY
    yield Write("prefix", k, compose(*carry, *pair))
    yield Release("flag", k, PREFIX)
    return carry


look_back = Check(
    "your look-back is right in every order of three tiles, even if stores arrive late",
    _examine_look_back,
    {
        "flag before value": Mistake(lambda k, p: protocol.look_back(k, p, flag_first=True), ""),
        "plain store for the flag": Mistake(lambda k, p: protocol.look_back(k, p, store=Write), ""),
        "swapped operands": Mistake(lambda k, p: protocol.look_back(k, p, flip=True), ""),
        "one tile only": Mistake(lambda k, p: protocol.look_back(k, p, onward=False), ""),
        "prefix counted twice": Mistake(lambda k, p: protocol.look_back(k, p, stop=False), ""),
        "no prefix": Mistake(_totals_only, ""),
        "prefix not used": Mistake(lambda k, p: protocol.look_back(k, p, used=False), ""),
        "endless polling": Mistake(_polling, ""),
    },
)
