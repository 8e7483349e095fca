"""A long measurement in pieces: each is written as soon as it is taken, and none is taken twice."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lrscan import records, workspace
from lrscan.records import Records

_log = logging.getLogger(__name__)


class Paused(Exception):
    """Time was up.

    measured  the records so far
    left      pieces that are still to be measured
    """

    def __init__(self, measured: Records, left: int) -> None:
        super().__init__(f"{left} pieces of {measured.experiment} are left")
        self.measured, self.left = measured, left


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
    """Measure piece after piece, and write each at once.

    Arguments
    ---------
    experiment   the records' name
    pieces       for each piece, the columns of its rows that tell it from the others
    measure      of the number of a piece: its rows, and what was not available with the reason
    provenance   what ``provenance.collect`` returned; the reasons are kept there, in
                 "not_available"
    resume       keep the pieces that are there, if they were measured with the same parameters,
                 seed, commit and versions, and measure the others
    until        no piece is begun later than this, by ``time.monotonic``; the first always is
    later        pieces that another call will measure, with ``resume``

    The provenance says in "left" how many pieces are still to be measured, if there are any.

    Raises
    ------
    Paused
        Time was up before the last piece, or some were left for later.
    """
    pieces, later = [dict(piece) for piece in pieces], [dict(piece) for piece in later]
    whole = dict(provenance)
    measured = _there(experiment, provenance) if resume else None
    done, missing = [], {}
    if measured is not None:
        names = list(pieces[0])
        done = measured.table[names].drop_duplicates().to_dict("records")
        missing = measured.provenance["measurements"][-1].get("not_available", {})
    for number, piece in enumerate(pieces):
        if piece in done or piece in later:
            continue
        if measured is not None and time.monotonic() > until:
            break
        told = ", ".join(f"{name} {value}" for name, value in piece.items())
        _log.info("%s, %d of %d: %s", experiment, number + 1, len(pieces), told)
        rows, reasons = measure(number)
        done.append(piece)
        missing = missing | reasons
        if missing:
            whole["not_available"] = missing
        records.say_left(whole, sum(one not in done for one in pieces))
        if measured is None:
            measured = records.write(experiment, rows, whole)
        else:
            measured = records.add(experiment, rows, whole, key=tuple(piece))
    if left := sum(one not in done for one in pieces):
        raise Paused(measured, left)
    return measured


def _there(experiment: str, provenance: Mapping[str, Any]) -> Records | None:
    """Records of this run's folder that this measurement may go on with."""
    found = records.find(experiment, provenance["device"], directory=workspace.records_folder())
    if found is None:
        return None
    before = found.provenance["measurements"][-1]
    same = ("parameters", "seed", "commit", "versions", "profile")
    return found if all(before[name] == provenance[name] for name in same) else None
