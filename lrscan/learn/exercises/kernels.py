"""Exercises of notebooks 03 to 06: a CUDA kernel that grows, run in the simulator.

Its stages: one round of a scan; a block with shared memory and barriers; many tiles with a carry;
and at last the package's own correctness test, forward and backward.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from lrscan.algebra import compose
from lrscan.learn import banks, monoids, simulator, trace, warp
from lrscan.learn.exercises.check import Check, Mistake, NotYet, call, same

TILE = 32


def inputs(steps: int, seed: int = 0):
    """(a, x), float32, whole numbers so that every order of operations gives the same bits."""
    numbers = np.random.default_rng(seed)
    a = numbers.choice([-1, 0, 1, 1, 2], steps).astype(np.float32)
    return a, numbers.integers(-3, 4, steps).astype(np.float32)


def _launch(kernel, grid, threads, *arguments, order="ascending"):
    """Launch, and turn what goes wrong into words."""
    try:
        log = simulator.launch(kernel, grid, threads, *arguments, order=order)
    except Exception as error:
        raise NotYet(type(error).__name__, f"The kernel stops: {error}") from None
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


block_scan = Check("a block scans up to 32 steps, whatever the order of its threads",
                   _examine_block, {})  # fmt: skip


def _examine_tiles(kernel: Callable) -> None:
    for steps, h0 in ((TILE, 2.0), (2 * TILE, 1.0), (3 * TILE, -1.0), (2 * TILE + 5, 3.0)):
        a, x = inputs(steps, steps)
        h, carry, ready, tiles = run_tiles(kernel, a, x, h0, watched=True)
        _compare(h, a, x, h0, TILE)


def run_tiles(kernel: Callable, a, x, h0: float, *, watched: bool = False):
    """Run a tile kernel (a, x, h0, h, carry, ready) over any number of steps.

    Returns:
        (h, carry, ready, tiles)
    """
    tiles = -(-len(a) // TILE)
    h, carry = np.full_like(x, np.nan), np.full(tiles, np.nan, x.dtype)
    ready = np.zeros(tiles, np.int32)
    if not watched:
        jitted = kernel if hasattr(kernel, "py_func") else simulator.cuda.jit(kernel)
        jitted[tiles, TILE](a, x, h0, h, carry, ready)
        return h, carry, ready, tiles
    log = _launch(kernel, tiles, TILE, a, x, h0, h, carry, ready)
    _no_races(log)
    written = [access.array for access in log.accesses if access.kind == "write"]
    if tiles > 1 and "ready" in written and "carry" in written[written.index("ready") :]:
        first = written.index("ready")
        if "carry" not in written[:first]:
            raise NotYet(
                "flag before value",
                "ready is set before carry is written. A tile that "
                "sees the flag in between reads a carry that is not there yet.",
            )
    return h, carry, ready, tiles


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
})  # fmt: skip
