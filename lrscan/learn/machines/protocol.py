"""Look-back between tiles, as programs to be run in every order of their loads and stores.

A program is a generator function of (k, pair), the number of a tile and its pair. It yields
accesses as in :mod:`lrscan.learn.machines.interleave`, and returns the carry: the pair of
everything before tile k. Flags are 0 until a value is published, then 1 for a total and 2 for a
prefix. The arrays of memory are::

    flag, total, prefix   one cell per tile; the flag publishes a value
    word                  flag and value together, for programs that write both as one word
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from lrscan.core.algebra import compose
from lrscan.learn.machines.interleave import Exploration, Read, Release, Wait, Write, explore

Pair = tuple[Any, Any]

TOTAL, PREFIX = 1, 2
PAIRS = [(2, 3), (3, 1), (1, 4), (2, 2)]
UNWRITTEN = (0, -99)
IDENTITY = (1, 0)


def run(tile: Callable[..., Generator], tiles: int, *, relaxed: bool = True) -> Exploration:
    """Run some tiles of a program in every order, and check their carries.

    Args:
        tile:    the program
        tiles:   the number of tiles, at most 4
        relaxed: whether ordinary stores may arrive late
    """
    expected = carries()

    def check(results: dict) -> str | None:
        for k, got in results.items():
            if got != expected[k]:
                return f"tile {k} has the carry {got}, expected {expected[k]}"
        return None

    programs = [lambda k=k: tile(k, PAIRS[k]) for k in range(tiles)]
    memory: dict[str, list] = {name: [0] * tiles for name in ("flag", "word")}
    memory |= {name: [UNWRITTEN] * tiles for name in ("total", "prefix")}
    return explore(programs, memory, check, relaxed=relaxed, noun="tile")


def carries(flip: bool = False) -> list[Pair]:
    """Return the pair of everything before each tile; the last pair is that of all tiles.

    With ``flip`` the operands of every composition are swapped.
    """
    pairs = [IDENTITY]
    for pair in PAIRS:
        pairs.append(compose(*pair, *pairs[-1]) if flip else compose(*pairs[-1], *pair))
    return pairs


def look_back(
    k: int,
    pair: Pair,
    *,
    flag_first: bool = False,
    store: type = Release,
    flip: bool = False,
    onward: bool = True,
    stop: bool = True,
    used: bool = True,
) -> Generator[Any, Any, Pair]:
    """Walk back over totals until a prefix is met (Merrill and Garland 2016).

    The options make typical mistakes.

    Args:
        k:          the number of the tile
        pair:       its pair
        flag_first: set the flag before the value
        store:      the store of a flag; a Write may arrive before the value
        flip:       swap the operands of compose
        onward:     if False, look at one tile only
        stop:       if False, continue after a prefix
        used:       if False, take totals even where there is a prefix
    """
    if flag_first:
        yield store("flag", k, TOTAL)
    yield Write("total", k, pair)
    if not flag_first:
        yield store("flag", k, TOTAL)
    carry: Pair = IDENTITY
    at = k - 1
    while at >= 0:
        whole = (yield Wait("flag", at)) == PREFIX and used
        value: Pair = yield Read("prefix" if whole else "total", at)
        carry = compose(*carry, *value) if flip else compose(*value, *carry)
        if (whole and stop) or not onward:
            break
        at -= 1
    yield Write("prefix", k, compose(*carry, *pair))
    yield store("flag", k, PREFIX)
    return carry


def one_word(k: int, pair: Pair) -> Generator[Any, Any, Pair]:
    """Look back with flag and value in one word, which no order of stores can separate."""
    yield Write("word", k, (TOTAL, pair))
    carry: Pair = IDENTITY
    at = k - 1
    while at >= 0:
        kind: int
        value: Pair
        kind, value = yield Wait("word", at)
        carry = compose(*value, *carry)
        if kind == PREFIX:
            break
        at -= 1
    yield Write("word", k, (PREFIX, compose(*carry, *pair)))
    return carry
