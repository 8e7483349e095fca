"""Search for the smallest failing case of the smoke test, and for what the failure depends on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from lrscan.campaign.smoke import Notes, SmokeCase, check, simulated
from lrscan.core.checks import ALGORITHMS

# Extents to try: close to a thread's steps, a warp, a tile, and a group of tiles.
_EXTENTS = (1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 33, 64, 127, 128, 129, 256, 257, 300, 513, 1024, 2049)


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        case:     the smallest case that fails
        summary:  a sentence for the report
        complete: True if everything was tried
    """

    case: SmokeCase
    summary: str
    complete: bool


def smallest(
    failures: list[SmokeCase],
    device: torch.device,
    notes: Notes,
    until: float,
    say: Callable[[str], None] = lambda text: None,
) -> Found:
    """Shrink the simplest failure, then vary one property at a time.

    Args:
        failures: failed cases of the smoke test
        device:   the device that they failed on
        notes:    the cases tried so far; a process that continues after a crash skips them
        until:    the time, by ``time.monotonic``, after which no case is started
        say:      called with what is known so far

    Returns:
        The smallest failing case, and which variants of it fail and pass.

    Raises:
        ValueError: nothing failed
    """
    if not failures:
        raise ValueError("nothing failed")
    first = min(failures, key=lambda case: (_elements(case), bool(case.part), case.reverse))
    case, complete = first, True
    for smaller in _smaller(first):
        if time.monotonic() > until:
            complete = False
            break
        if not _passes(smaller, device, notes):
            case = smaller
            break
    say(f"the smallest failing case so far is {case}")
    summary, failing, passing = f"the smallest failing case is {case}", list[str](), list[str]()
    for name, other in _variants(case):
        if time.monotonic() > until:
            complete = False
            break
        (passing if _passes(other, device, notes) else failing).append(name)
    if failing:
        summary += f"; variants that fail: {', '.join(failing)}"
    if passing:
        summary += f"; variants that pass: {', '.join(passing)}"
    shares = notes.ended.get(case, {}).get("shares")
    if shares:
        wrong = [name for name, share in shares.items() if not share <= 1]
        summary += f"; wrong results: {', '.join(wrong)}"
    say(summary)
    return Found(case, summary, complete)


def _passes(case: SmokeCase, device: torch.device, notes: Notes) -> bool:
    if case not in notes.ended:
        check(case, device, notes)
    return notes.ended[case]["passed"]


def _elements(case: SmokeCase) -> int:
    return math.prod(case.shape)


def _smaller(case: SmokeCase) -> Iterator[SmokeCase]:
    """Yield the case with fewer steps or columns, from small to large."""
    axis = max(
        (a for a in range(len(case.shape)) if a != case.dim),
        key=lambda a: case.shape[a],
        default=case.dim,
    )
    shapes: set[tuple[int, ...]] = set()
    for steps in (n for n in _EXTENTS if n <= case.shape[case.dim]):
        for columns in (n for n in _EXTENTS if n <= case.shape[axis]):
            extents = [1] * len(case.shape)
            extents[axis], extents[case.dim] = columns, steps
            shapes.add(tuple(extents))
    shapes.discard(case.shape)
    for shape in sorted(shapes, key=lambda shape: (math.prod(shape), shape[case.dim])):
        yield case._replace(shape=shape)


def _variants(case: SmokeCase) -> Iterator[tuple[str, SmokeCase]]:
    """Yield (name of the change, changed case)."""
    algorithms = ALGORITHMS["cuda" if simulated() else "cpu"]
    if torch.cuda.is_available():
        algorithms = ALGORITHMS["cuda"]
    for algorithm in algorithms:
        if algorithm != case.algorithm:
            yield algorithm, case._replace(algorithm=algorithm)
    for dtype in ("float32", "float64", "bfloat16", "complex64"):
        if dtype != case.dtype and not case.wide_a:
            yield dtype, case._replace(dtype=dtype)
    yield "without h0" if case.start else "with h0", case._replace(start=not case.start)
    yield "forward in time" if case.reverse else "reversed", case._replace(reverse=not case.reverse)
    if case.part:
        yield "full-size coefficients", case._replace(part="")
