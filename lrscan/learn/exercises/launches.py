"""Parts that the checks of CUDA kernels share: a launch in the simulator, comparing states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrscan.core.algebra import compose
from lrscan.learn.exercises.check import NotYet, NotYours, same
from lrscan.learn.machines import kernels, monoids, simulator, trace
from lrscan.learn.machines.accesses import Log

Array = np.ndarray

TILE = 32


def inputs(steps: int, seed: int = 0) -> tuple[Array, Array]:
    """Return (a, x) in float32.

    They are whole numbers, so that every order of operations gives the same bits.
    """
    numbers = np.random.default_rng(seed)
    a = numbers.choice([-1, 0, 1, 1, 2], steps).astype(np.float32)
    return a, numbers.integers(-3, 4, steps).astype(np.float32)


def stopped(error: Exception, words: str) -> NotYet:
    """Return the verdict on an answer that fails in the simulator, where a kernel of ours works.

    Raises:
        NotYours: our kernel fails as well
    """
    a, x = inputs(TILE)
    try:
        simulator.launch(kernels.missing_barrier, 1, TILE, a, x, np.float32(1), np.empty_like(x))
    except Exception as ours:
        raise NotYours("The simulator", ours) from ours
    return NotYet(type(error).__name__, f"{words}: {error}")


def launch(kernel: Callable, grid: int, threads: int, *arguments: Any, **watched: Any) -> Log:
    """Launch a learner's kernel in the simulator, and return the log of its accesses.

    Raises:
        NotYet: it fails, writes nothing, or leaves threads waiting at a barrier
    """
    try:
        log = simulator.launch(kernel, grid, threads, *arguments, **watched)
    except Exception as error:
        raise stopped(error, "The kernel fails") from None
    if not any(access.kind == "write" for access in log.accesses):
        raise NotYet("nothing written", "The kernel writes nothing yet: write its missing lines.")
    if log.stranded:
        block, thread = log.stranded[0]
        raise NotYet(
            "barrier not reached by all",
            f"Thread {thread} of block {block} waits at a barrier that other threads never "
            "reach. Every thread of the block must reach every barrier. So a barrier cannot be "
            "inside an `if` that only some threads enter, nor after an early return.",
        )
    return log


def no_races(log: Log) -> None:
    """Raise NotYet if two accesses have no barrier between them."""
    if races := log.races():
        raise NotYet(
            "missing barrier",
            f"{races[0]}. The result may be right today and wrong tomorrow: put a "
            "cuda.syncthreads() between the two.",
        )


def _states(a: Array, x: Array, h0: float) -> Array:
    return np.array(trace.serial(a.tolist(), x.tolist(), h0).states, dtype=np.float32)


def _swapped(a: Array, x: Array, h0: float, tile: int | None = None) -> Array:
    """Return the states of a block or tile kernel that swaps the operands of compose."""
    states, size = [], tile or len(a)
    for start in range(0, len(a), size):
        pairs = monoids.scan(
            lambda first, second: compose(*second, *first),
            list(zip(a[start : start + size], x[start : start + size], strict=True)),
        )
        states += [P * h0 + R for P, R in pairs]
        h0 = states[-1]
    return np.array(states)


def compare(h: Array, a: Array, x: Array, h0: float, tile: int | None = None) -> None:
    """Raise NotYet, with the mistake if it is known, unless h holds the right states.

    Args:
        h:    the states that the kernel wrote
        a:    the coefficients
        x:    the inputs
        h0:   the state before the first step
        tile: steps per tile, for a kernel of many tiles
    """
    expected = _states(a, x, h0)
    if same(h, expected):
        return
    if np.isnan(h).any():
        t = int(np.flatnonzero(np.isnan(h))[0])
        raise NotYet(
            "unwritten memory",
            f"h[{t}] is not a number: it was never written, or it was computed from memory that "
            "had not been written.",
        )
    if h0 and same(h, _states(a, x, 0)):
        raise NotYet(
            "forgotten start",
            "These are the states from a zero start. After the scan, h = P * h0 + R.",
        )
    if same(h[1:], expected[:-1]) and same(h[0], h0):
        raise NotYet("exclusive for inclusive", "h[t] is the state after step t, not before it.")
    if same(h, _swapped(a, x, h0, tile)):
        raise NotYet(
            "swapped operands",
            "These are the states of a scan that takes the later map first. The pair at "
            "i - distance is earlier in time, so it is the first operand of compose.",
        )
    if tile:
        alone = [
            _states(a[k : k + tile], x[k : k + tile], h0 if k == 0 else 0)
            for k in range(0, len(a), tile)
        ]
        if same(h, np.concatenate(alone)):
            raise NotYet(
                "forgotten carry",
                f"The first {tile} states are right, but every later tile starts from zero. It "
                "must start from the carry of the tile before.",
            )
        again = [_states(a[k : k + tile], x[k : k + tile], h0) for k in range(0, len(a), tile)]
        if same(h, np.concatenate(again)):
            raise NotYet("h0 for the carry", "Every tile starts from h0. Only the first one does.")
    t = next(t for t in range(len(h)) if not same(h[t], expected[t]))
    raise NotYet(
        "another value",
        f"h[{t}] is {h[t]:g}, expected {expected[t]:g}, for {len(a)} steps from h0 = {h0:g}.",
    )
