"""Exercises of notebooks 03 to 06: a CUDA kernel that grows, run in the simulator.

Its stages: one round of a scan; a block with shared memory and barriers; many tiles with a carry;
and at last the package's own correctness test, forward and backward.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import Check, Mistake, NotYet, NotYours, call, same
from lrscan.learn.machines import banks, kernels, monoids, simulator, trace, warp
from lrscan.learn.machines.accesses import Access

TILE = 32
BARRIERS = 10  # that a block of so many threads needs with one array of pairs


def inputs(steps: int, seed: int = 0):
    """(a, x), float32, whole numbers so that every order of operations gives the same bits."""
    numbers = np.random.default_rng(seed)
    a = numbers.choice([-1, 0, 1, 1, 2], steps).astype(np.float32)
    return a, numbers.integers(-3, 4, steps).astype(np.float32)


def stopped(error: Exception, words: str) -> NotYet:
    """What to say of an answer that stops in the simulator, where a kernel of ours does not.

    Raises NotYours if that one stops too.
    """
    a, x = inputs(TILE)
    try:
        simulator.launch(kernels.missing_barrier, 1, TILE, a, x, np.float32(1), np.empty_like(x))
    except Exception as ours:
        raise NotYours("The simulator", ours) from ours
    return NotYet(type(error).__name__, f"{words}: {error}")


def _launch(kernel, grid, threads, *arguments, **watched):
    """Launch, and turn what goes wrong into words."""
    try:
        log = simulator.launch(kernel, grid, threads, *arguments, **watched)
    except Exception as error:
        raise stopped(error, "The kernel stops") from None
    if not any(access.kind == "write" for access in log.accesses):
        raise NotYet("nothing written", "The kernel writes nothing yet: replace the three dots.")
    if log.stranded:
        block, thread = log.stranded[0]
        raise NotYet(
            "barrier not reached by all",
            f"Thread {thread} of block {block} waits at a barrier that other threads never "
            "reach. Every thread of the block has to come to every barrier, so it cannot stand "
            "inside an `if` that only some of them enter, nor after an early return.",
        )
    return log


def _no_races(log) -> None:
    if races := log.races():
        raise NotYet("missing barrier", f"{races[0]}. It may come out right today, and wrong "
                     "on another day: put a cuda.syncthreads() between the two.")  # fmt: skip


def _examine_round(kernel: Callable) -> None:
    a, x = inputs(16)
    for distance in (1, 2, 4, 8):
        a_out, x_out = np.full_like(a, np.nan), np.full_like(x, np.nan)
        _launch(kernel, 1, 16, a, x, a_out, x_out, distance)
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
        raise NotYet("another value", f"At distance {distance}, element {wrong} is {got[wrong]}, "
                     f"expected {pairs[wrong]}.")  # fmt: skip


round_kernel = Check("a round as a CUDA kernel", _examine_round, {})


def _states(a, x, h0):
    return np.array(trace.serial(a.tolist(), x.tolist(), h0).states, dtype=np.float32)


def _swapped(a, x, h0, tile=None):
    """What the block or tile kernel gives with the operands of compose the wrong way round."""
    states, size = [], tile or len(a)
    for start in range(0, len(a), size):
        pairs = monoids.scan(
            lambda first, second: compose(*second, *first),
            list(zip(a[start : start + size], x[start : start + size], strict=True)),
        )
        states += [P * h0 + R for P, R in pairs]
        h0 = states[-1]
    return np.array(states)


def _compare(h, a, x, h0, tile=None) -> None:
    expected = _states(a, x, h0)
    if same(h, expected):
        return
    if np.isnan(h).any():
        t = int(np.flatnonzero(np.isnan(h))[0])
        raise NotYet("unwritten memory", f"h[{t}] is not a number: it, or something that it is "
                     "made from, was read before anybody wrote it.")  # fmt: skip
    if h0 and same(h, _states(a, x, 0)):
        raise NotYet("forgotten start", "The states are those of a start from zero. After the "
                     "scan, h = P * h0 + R.")  # fmt: skip
    if same(h[1:], expected[:-1]) and same(h[0], h0):
        raise NotYet("exclusive for inclusive", "h[t] is the state after step t, not before it.")
    if same(h, _swapped(a, x, h0, tile)):
        raise NotYet(
            "swapped operands",
            "The states are those of a scan with the later map first. What lies at i - distance "
            "is earlier in time: it is the first operand of compose.",
        )
    if tile:
        alone = [_states(a[k : k + tile], x[k : k + tile], h0 if k == 0 else 0)
                 for k in range(0, len(a), tile)]  # fmt: skip
        if same(h, np.concatenate(alone)):
            raise NotYet(
                "forgotten carry",
                f"The first {tile} states are right; every later tile "
                "starts from zero. It has to start from the carry of the tile before.",
            )
        again = [_states(a[k : k + tile], x[k : k + tile], h0) for k in range(0, len(a), tile)]
        if same(h, np.concatenate(again)):
            raise NotYet("h0 for the carry", "Every tile starts from h0. Only the first one does.")
    t = next(t for t in range(len(h)) if not same(h[t], expected[t]))
    raise NotYet("another value", f"h[{t}] is {h[t]:g}, expected {expected[t]:g}, for {len(a)} "
                 f"steps from h0 = {h0:g}.")  # fmt: skip


def _examine_block(kernel: Callable) -> None:
    for (steps, h0), order in itertools.product(
        ((1, 3.0), (5, 2.0), (TILE, -1.0)), ("ascending", "descending", 1)
    ):
        a, x = inputs(steps, steps)
        h = np.full_like(a, np.nan)
        log = _launch(kernel, 1, TILE, a, x, h0, h, order=order)
        _no_races(log)
        _compare(h, a, x, h0)
    if log.barriers > BARRIERS:
        raise NotYet(
            "too many barriers",
            f"The states are right, but each thread passes {log.barriers} barriers. For {TILE} "
            f"threads {BARRIERS} are enough, two in each of five rounds. At a barrier all threads "
            "wait for the slowest.",
        )


block_scan = Check("a block scans up to 32 steps, whatever the order of its threads",
                   _examine_block, {})  # fmt: skip


def _examine_tiles(kernel: Callable) -> None:
    for steps, h0 in ((TILE, 2.0), (2 * TILE, 1.0), (3 * TILE, -1.0), (2 * TILE + 5, 3.0)):
        a, x = inputs(steps, steps)
        h, carry, ready = outputs = _outputs(x)
        log = _launch(kernel, len(carry), TILE, a, x, h0, *outputs, late="ready")
        _no_races(log)
        _handed_over(log)
        _compare(h, a, x, h0, TILE)
    _passed_on(carry, ready, h)


def _outputs(x):
    """(h, carry, ready) of a tile kernel, with nothing in them yet."""
    tiles = -(-len(x) // TILE)
    return np.full_like(x, np.nan), np.full(tiles, np.nan, x.dtype), np.zeros(tiles, np.int32)


def run_tiles(kernel: Callable, a, x, h0: float):
    """The states, by a tile kernel (a, x, h0, h, carry, ready) over any number of steps."""
    h, carry, ready = outputs = _outputs(x)
    jitted = kernel if hasattr(kernel, "py_func") else simulator.cuda.jit(kernel)
    jitted[len(carry), TILE](a, x, h0, *outputs)
    return h


def _handed_over(log) -> None:
    """Every value of another tile is read after its flag, which was set after the value.

    Two accesses of a block are in order if one thread makes both, or with a barrier between.
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
            looks = [one for one in waits.get((block, tile), ()) if _in_order(one, access)]
            if not _waited(looks):
                what = f"{access.array}[{access.index}]"
                _no_wait(f"reads {what} without waiting for its flag", block)
            (value_at, value), (flag_at, flag) = written[place], flags.get(tile, (at, access))
            if flag_at < value_at or not _in_order(value, flag):
                raise NotYet(
                    "flag before value",
                    f"ready[{tile}] is set before {access.array}[{access.index}] is written, or "
                    "by another thread without a barrier in between. A tile that sees the flag "
                    "may read a value that is not there yet.",
                )
    for (block, tile), looks in waits.items():
        if tile != block and not _waited(looks):
            _no_wait(f"looks at ready[{tile}] once and goes on", block)


def _waited(looks: list[Access]) -> bool:
    """Whether a thread looked twice: the flags are late, so the first time all are 0."""
    return len(looks) > len({one.thread for one in looks})


def _in_order(first: Access, second: Access) -> bool:
    return first.thread == second.thread or first.epoch < second.epoch


def _no_wait(what: str, tile: int) -> None:
    raise NotYet(
        "no wait",
        f"Tile {tile} {what}. It has to look again and again until the flag is 1. The simulator "
        f"runs blocks in order, so it may come out right here. On a GPU tile {tile} may read "
        f"before tile {tile - 1} has written.",
    )


def _passed_on(carry, ready, h) -> None:
    if (ready != 1).any():
        tile = int(np.flatnonzero(ready != 1)[0])
        raise NotYet("flag not set", f"The states are right, but at the end ready[{tile}] is "
                     f"{ready[tile]}. Every tile sets its flag to 1, for the next.")  # fmt: skip
    ends = np.append(h[TILE - 1 :: TILE], h[-1])[: len(carry)]
    if not same(carry, ends):
        tile = next(k for k in range(len(carry)) if not same(carry[k], ends[k]))
        raise NotYet("another carry", f"The states are right, but carry[{tile}] is "
                     f"{carry[tile]:g}. It is to hold the state after tile {tile}, "
                     f"{ends[tile]:g}.")  # fmt: skip


tile_scan = Check("any number of tiles, the carry passed from each to the next",
                  _examine_tiles, {})  # fmt: skip


def _examine_warp(program: Callable) -> None:
    for lanes in (2, 8, 32):
        a, x = (values.tolist() for values in inputs(lanes, lanes))
        try:
            result = warp.run(program, a, x, lanes=lanes)
        except warp.Divergence as problem:
            raise NotYet("shuffle inside an if", f"{problem}.") from None
        except Exception as error:
            raise NotYet(type(error).__name__, f"The program stops: {error}.") from None
        if all(value is None for value in result.values):
            raise NotYet("nothing returned", "Return the pair of the lane at the end.")
        for lane, value in enumerate(result.values):
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise NotYet("no pair", "Every lane returns the pair (p, r), those with nobody "
                             f"below too; lane {lane} returned {value!r}.")  # fmt: skip
        pairs, swapped = [(a[0], x[0])], [(a[0], x[0])]
        for t in range(1, lanes):
            pairs.append(compose(*pairs[-1], a[t], x[t]))
            swapped.append(compose(a[t], x[t], *swapped[-1]))
        got = [tuple(value) for value in result.values]
        if same(got, pairs):
            continue
        if same(got, swapped):
            raise NotYet("swapped operands", "What comes from the lane below is earlier in time: "
                         "it is the first operand.")  # fmt: skip
        wrong = next(i for i in range(lanes) if not same(got[i], pairs[i]))
        if wrong == 0:
            raise NotYet("no guard", "Lane 0 has no lane below: a shuffle gives it its own value, "
                         "which it must not compose with.")  # fmt: skip
        raise NotYet("another value", f"Lane {wrong} of {lanes} has {got[wrong]}, expected "
                     f"{pairs[wrong]}.")  # fmt: skip


warp_scan = Check("a warp scans its 32 pairs without shared memory", _examine_warp, {})


def _examine_padding(index: Callable) -> None:
    cells = [call(index, i) for i in range(1024)]
    for i, cell in enumerate(cells):
        if not isinstance(cell, int | np.integer) or cell < 0:
            raise NotYet("no cell", f"Element {i} goes to {cell!r}. Cells have whole numbers, "
                         "from 0 on; // divides and drops the rest.")  # fmt: skip
    if len(set(cells)) < 1024:
        first = next(i for i in range(1024) if cells[i] in cells[:i])
        other = cells.index(cells[first])
        raise NotYet("two in one place", f"Elements {other} and {first} both go to {cells[first]}: "
                     "one would overwrite the other.")  # fmt: skip
    if max(cells) > 1024 + 1024 // 8:
        raise NotYet("too much room", f"1,024 elements use {max(cells) + 1} cells. One unused cell "
                     "after every 32 is enough.")  # fmt: skip
    for stride in (1, 2, 4, 8, 16):
        touched = [cells[2 * stride * lane + stride - 1] for lane in range(32)]
        if (turns := banks.ways(touched)) > 1:
            raise NotYet(
                "conflicts remain",
                f"At stride {stride} the first lanes go to "
                f"{touched[:4]}: {turns} turns. A bank is the address modulo 32.",
            )


padding = Check("no two lanes of the tree meet in a bank", _examine_padding, {
    "conflicts remain": Mistake(lambda i: i, ""),
    "two in one place": Mistake(lambda i: i % 512, ""),
    "too much room": Mistake(lambda i: 33 * i, ""),
    "no cell": Mistake(lambda i: i + i / 32, ""),
})  # fmt: skip
