"""Long measurements in pieces: each is written at once, and a later call measures the rest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lrscan.evidence import records, workspace
from lrscan.evidence.records import Records

_log = logging.getLogger(__name__)


class Paused(Exception):
    """Signal that the time was up before everything was measured.

    Attributes:
        measured: the records so far; None if there are none yet
        left:     the number of pieces still to be measured
    """

    def __init__(self, experiment: str, measured: Records | None, left: int) -> None:
        super().__init__(f"{left} pieces of {experiment} are left")
        self.measured, self.left = measured, left


class Failures:
    """Record of the pieces that failed; the other pieces are measured all the same."""

    def __init__(self) -> None:
        self._first: Exception | None = None
        self.names: list[str] = []

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Note an error of the body, write its traceback to the log, and continue."""
        try:
            yield
        except Exception as error:
            _log.exception("%s failed", name)
            self._first = self._first or error
            self.names.append(name)

    def check(self, of: int) -> None:
        """Raise the first error, if there was one among the ``of`` pieces."""
        if self._first is not None and of > 1:
            some = f"{len(self.names)} of {of} failed, {self.names[0]} first"
            raise RuntimeError(f"{some}: {self._first}") from self._first
        if self._first is not None:
            raise self._first


def in_pieces(
    experiment: str,
    pieces: Iterable[Mapping[str, Any]],
    measure: Callable[[int], tuple[list[dict[str, Any]], dict[str, str]]],
    provenance: Mapping[str, Any],
    *,
    resume: bool = False,
    until: float = math.inf,
    later: Iterable[Mapping[str, Any]] = (),
) -> Records:
    """Measure one piece after the other, and write each at once.

    If a piece fails, the others are measured all the same. The provenance says in "left" how many
    pieces are still to be measured, if there are any.

    Args:
        experiment: name of the records
        pieces:     for each piece, the columns that identify its rows
        measure:    from the number of a piece to its rows, and to what was not available with the
                    reasons
        provenance: from ``provenance.collect``; the reasons are added to it in "not_available"
        resume:     keep pieces that were measured with the same parameters, seed, commit, versions
                    and profile, and measure the others
        until:      start no piece later than this, by ``time.monotonic``, except the first
        later:      pieces to leave for another call, with ``resume``

    Returns:
        The records.

    Raises:
        Paused: the time was up before the last piece
        RuntimeError: one of several pieces failed; the message names the first that did
        Exception: the only piece failed
        ValueError: there is no piece
    """
    planned, later = [dict(piece) for piece in pieces], [dict(piece) for piece in later]
    whole = dict(provenance)
    measured = _earlier(experiment, provenance) if resume else None
    done: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    if measured is not None:
        names = list(planned[0])
        done = measured.table[names].drop_duplicates().to_dict("records")
        missing = measured.provenance["measurements"][-1].get("not_available", {})
    failures = Failures()
    for number, piece in enumerate(planned):
        if piece in done or piece in later:
            continue
        if (measured is not None or failures.names) and time.monotonic() > until:
            break
        label = ", ".join(f"{name} {value}" for name, value in piece.items())
        _log.info("%s, %d of %d: %s", experiment, number + 1, len(planned), label)
        with failures.noted(label):
            rows, reasons = measure(number)
            done.append(piece)
            missing = missing | reasons
            if missing:
                whole["not_available"] = missing
            records.say_left(whole, sum(one not in done for one in planned))
            if measured is None:
                measured = records.write(experiment, rows, whole)
            else:
                measured = records.add(experiment, rows, whole, key=tuple(piece))
    failures.check(len(planned))
    left = [piece for piece in planned if piece not in done]
    if any(piece not in later for piece in left):
        raise Paused(experiment, measured, len(left))
    if measured is None:
        raise ValueError(f"{experiment}: there is nothing to measure")
    return measured


def _earlier(experiment: str, provenance: Mapping[str, Any]) -> Records | None:
    """Return the records in this run's folder that this measurement can continue, if any."""
    found = records.find(experiment, provenance["device"], directory=workspace.records_folder())
    if found is None:
        return None
    before = found.provenance["measurements"][-1]
    same = ("parameters", "seed", "commit", "versions", "profile")
    return found if all(before[name] == provenance[name] for name in same) else None
