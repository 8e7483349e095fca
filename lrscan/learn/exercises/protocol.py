"""Exercise of notebook 05: look-back between tiles, run in every order."""

from __future__ import annotations

import re
from collections.abc import Callable

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import Check, Mistake, NotYet
from lrscan.learn.machines.interleave import Outcome, Read, Release, TooMany, Wait, Write, explore

TOTAL, PREFIX = 1, 2
PAIRS = [(2, 3), (3, 1), (1, 4), (2, 2)]
UNWRITTEN = (0, -99)
IDENTITY = (1, 0)


def run(tile: Callable, tiles: int, *, relaxed: bool = True) -> Outcome:
    """A look-back program of so many tiles, in every order.

    ``tile(k, pair)`` is a generator that returns the pair of everything before tile k.
    """
    expected = _beginnings()

    def check(results: dict) -> str | None:
        for k, got in results.items():
            if got != expected[k]:
                return f"tile {k} has the carry {got}, expected {expected[k]}"
        return None

    programs = [lambda k=k: tile(k, PAIRS[k]) for k in range(tiles)]
    memory = {"flag": [0] * tiles, "total": [UNWRITTEN] * tiles, "prefix": [UNWRITTEN] * tiles}
    memory["word"] = [0] * tiles
    return explore(programs, memory, check, relaxed=relaxed, noun="tile")


def _examine(tile: Callable) -> None:
    try:
        alone = run(tile, 1)
        strict = run(tile, 3, relaxed=False)
    except TooMany:
        raise NotYet(
            "endless polling",
            "Your tile asks for the same flag again and again. When the flag is 1 the total is "
            "there: take it and walk on. (Wait sleeps until the flag is set; it needs no loop.)",
        ) from None
    except Exception as error:
        raise NotYet(type(error).__name__, f"A tile stops: {error}") from None
    if alone.results == {0: None}:
        raise NotYet("nothing returned", "The tile ends with no carry: return the pair of "
                     "everything before it; for tile 0 that is the identity.")  # fmt: skip
    if strict.problem:
        raise NotYet(*_explain(strict))
    relaxed = run(tile, 3)
    if relaxed.problem:
        raise NotYet(
            "plain store for the flag",
            f"{relaxed}\nIn order of the program it works, but ordinary stores may arrive late: "
            "set the flag with Release, which arrives after the stores before it.",
        )
    if strict.states < 30:
        raise NotYet("no look-back", "No tile reads a total; each waits for the prefix before it. "
                     "That is a chain. Publish the total before you look back.")  # fmt: skip
    prefixes = _beginnings()[1:4]
    if strict.memory["flag"] != (PREFIX,) * 3 or strict.memory["prefix"] != tuple(prefixes):
        raise NotYet(
            "no prefix",
            f"The carries are right, but at the end flag = {strict.memory['flag']} and prefix = "
            f"{strict.memory['prefix']}, where {tuple(prefixes)} is right. Without prefixes every "
            "tile walks to the first: write the prefix, then set the flag to 2.",
        )
    done = {"flag": [PREFIX] * 3, "total": [UNWRITTEN] * 3, "prefix": prefixes}
    late = explore([lambda: tile(2, PAIRS[2])], done, lambda results: None)
    if late.results.get(0) != _beginnings()[2]:
        raise NotYet("prefix not used", "Tile 2 finds flag 2 at tile 1, and yet it takes totals. "
                     "The prefix of tile 1 is its whole carry: take that, and stop.")  # fmt: skip


def _explain(outcome: Outcome) -> tuple[str, str]:
    text = str(outcome)
    garbage = any("reads total" in line or "reads prefix" in line for line in outcome.schedule
                  if str(UNWRITTEN) in line)  # fmt: skip
    if outcome.problem.startswith("stuck"):
        return "stuck", f"{text}\nNobody can go on: a flag that is waited for is never set."
    if garbage:
        return (
            "flag before value",
            f"{text}\nSomebody read a value that was not written yet, although its flag was set. "
            "Write the value first, then set the flag.",
        )
    if _reads_on(outcome.schedule):
        return (
            "prefix counted twice",
            f"{text}\nA prefix holds everything up to its tile. Whoever has read one is done: what "
            "lies further back is in it already.",
        )
    for name, (right, words) in _ARITHMETIC.items():
        if outcome.results.items() <= dict(enumerate(right)).items():
            return name, f"{text}\n{words}"
    return "another carry", text


def _reads_on(schedule: list[str]) -> bool:
    """Whether a program reads another value after a prefix."""
    done = set()
    for line in schedule:
        if found := re.match(r"tile (\d) reads (total|prefix)", line):
            if found[1] in done:
                return True
            done |= {found[1]} if found[2] == "prefix" else set()
    return False


def _beginnings(flip: bool = False) -> list:
    """For each tile the pair of everything before it, and at last that of all tiles."""
    pairs = [IDENTITY]
    for pair in PAIRS:
        pairs.append(compose(*pair, *pairs[-1]) if flip else compose(*pairs[-1], *pair))
    return pairs


_ARITHMETIC = {
    "swapped operands": (
        _beginnings(flip=True),
        "What lies further back is earlier in time: it is the first operand of compose.",
    ),
    "one tile only": (
        [IDENTITY, PAIRS[0], PAIRS[1]],
        "Tile 2 has taken the total of tile 1 and stopped. Only a prefix ends the walk.",
    ),
}


def tile(
    k, pair, *, flag_first=False, store=Release, flip=False, onward=True, stop=True, used=True
):
    """A tile with look-back; its options are typical mistakes."""
    if flag_first:
        yield store("flag", k, TOTAL)
    yield Write("total", k, pair)
    if not flag_first:
        yield store("flag", k, TOTAL)
    carry, at = IDENTITY, k - 1
    while at >= 0:
        whole = (yield Wait("flag", at)) == PREFIX and used
        value = yield Read("prefix" if whole else "total", at)
        carry = compose(*carry, *value) if flip else compose(*value, *carry)
        if (whole and stop) or not onward:
            break
        at -= 1
    yield Write("prefix", k, compose(*carry, *pair))
    yield store("flag", k, PREFIX)
    return carry


def _totals_only(k, pair):
    yield Write("total", k, pair)
    yield Release("flag", k, TOTAL)
    carry = IDENTITY
    for at in reversed(range(k)):
        yield Wait("flag", at)
        carry = compose(*(yield Read("total", at)), *carry)
    return carry


def _polling(k, pair):
    yield Write("total", k, pair)
    yield Release("flag", k, TOTAL)
    while k and (yield Wait("flag", k - 1)) != PREFIX:
        pass
    carry = (yield Read("prefix", k - 1)) if k else IDENTITY
    yield Write("prefix", k, compose(*carry, *pair))
    yield Release("flag", k, PREFIX)
    return carry


def one_word(k, pair):
    """A tile whose flag and value are one word, so that no order of stores can part them."""
    yield Write("word", k, (TOTAL, pair))
    carry, at = IDENTITY, k - 1
    while at >= 0:
        kind, value = yield Wait("word", at)
        carry = compose(*value, *carry)
        if kind == PREFIX:
            break
        at -= 1
    yield Write("word", k, (PREFIX, compose(*carry, *pair)))
    return carry


look_back = Check(
    "look-back is right in every order of three tiles, with stores that arrive late",
    _examine,
    {
        "flag before value": Mistake(lambda k, p: tile(k, p, flag_first=True), ""),
        "plain store for the flag": Mistake(lambda k, p: tile(k, p, store=Write), ""),
        "swapped operands": Mistake(lambda k, p: tile(k, p, flip=True), ""),
        "one tile only": Mistake(lambda k, p: tile(k, p, onward=False), ""),
        "prefix counted twice": Mistake(lambda k, p: tile(k, p, stop=False), ""),
        "no prefix": Mistake(_totals_only, ""),
        "prefix not used": Mistake(lambda k, p: tile(k, p, used=False), ""),
        "endless polling": Mistake(_polling, ""),
    },
)
