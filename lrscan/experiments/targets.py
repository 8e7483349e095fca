"""Targets of the CUDA kernels, compared with the records of a GPU.

Shares are of the speed of a copy on the device in the same run, see
:func:`lrscan.experiments.throughput.summarise`. The targets are for an H100, on which a
deterministic sum of 2**28 floats in CUB reaches a share of 0.87. The algorithm "auto" is judged, at
its worst shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas

from lrscan.evidence import paper, records
from lrscan.evidence.records import Records
from lrscan.experiments import kernel_speedup, throughput
from lrscan.experiments.rivals import RIVALS
from lrscan.experiments.speedups import PARALLEL

MET, MISSED, OPEN = "met", "missed", "not measured"
_MANY_COLUMNS, _FEW_COLUMNS = 1024, 32
_DIRECTIONS = ("forward", "backward")
# The columns that identify a measurement, apart from the algorithm.
_CASE = ["direction", "dtype", "layout", "T", "B", "C"]
# (layout, T, B, C, target in milliseconds) of well-known shapes, forward.
_KNOWN = (
    ("BCT", 65_536, 8, 1536, 3.6),
    ("CT", 2**19, 1, 64, 0.16),
    ("TC", 2**20, 1, 1, 0.015),
)


class Target(NamedTuple):
    """Target and the measurement that it is compared with.

    Attributes:
        what:     the quantity, in words
        wanted:   the target
        unit:     of both numbers
        most:     True if the target is an upper bound, False if it is a lower one
        measured: the worst measurement; None if there is none
        where:    the shape that was worst
    """

    what: str
    wanted: float
    unit: str
    most: bool
    measured: float | None
    where: str

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return OPEN
        met = self.measured <= self.wanted if self.most else self.measured >= self.wanted
        return MET if met else MISSED


def table(directory: Path, device: str) -> pandas.DataFrame:
    """Return every target compared with the records of a device, a row for each target.

    Args:
        directory: the folder with one folder for each device
        device:    slug of the device

    Returns:
        Columns: target, wanted, measured, unit, where, verdict ("met", "missed", "not measured").
    """
    found = {
        name: records.find(name, device, directory=directory)
        for name in ("throughput", "kernel_speedup", "call_cost")
    }
    rates = _rows(found["throughput"])
    if found["throughput"] is not None:
        rates = rates.assign(share=throughput.summarise(found["throughput"]))
    times, costs = _rows(found["kernel_speedup"]), _rows(found["call_cost"])
    every = [
        *_shares(rates),
        *_durations(rates),
        *_rivals(rates),
        _auto(pandas.concat([one for one in (rates, times) if len(one)] or [rates])),
        *_table_1(found["kernel_speedup"]),
        _call(costs),
    ]
    rows = [
        (
            t.what,
            f"{'at most' if t.most else 'at least'} {t.wanted:g}",
            t.measured,
            t.unit,
            t.where,
            t.verdict,
        )
        for t in every
    ]
    return pandas.DataFrame(
        rows, columns=["target", "wanted", "measured", "unit", "where", "verdict"]
    )


def _rows(found: Records | None) -> pandas.DataFrame:
    """Return the rows of records; none if there are no records."""
    return pandas.DataFrame(columns=[*records.COLUMNS, "share"]) if found is None else found.table


def _worst(
    what: str, wanted: float, unit: str, rows: pandas.DataFrame, values: str, most: bool = False
) -> Target:
    """Return a target with the worst of its rows, by the column ``values``."""
    if rows.empty:
        return Target(what, wanted, unit, most, None, "")
    row = rows.loc[rows[values].idxmax() if most else rows[values].idxmin()]
    sizes = ", ".join(f"{axis} {row[axis]:,}" for axis in "TBC")
    return Target(what, wanted, unit, most, float(row[values]), f"{row['layout']}, {sizes}")


def _shares(rates: pandas.DataFrame) -> Iterator[Target]:
    """Yield targets for shares of the speed of a copy, by dtype, columns, layout and direction."""
    ours = rates[rates["algorithm"] == "auto"]
    width = ours["B"] * ours["C"]
    size = ours["T"] * width
    large = ours[(width >= _MANY_COLUMNS) & (size >= 2**26)]
    # Sizes are a little below a power of two if it is not divisible by the columns.
    thin = {
        power: ours[(width <= _FEW_COLUMNS) & (size > 0.99 * 2**power) & (size <= 2**power)]
        for power in (26, 28)
    }

    def target(
        dtype: str, direction: str, of: str, wanted: float, rows: pandas.DataFrame
    ) -> Target:
        own = rows[(rows["dtype"] == dtype) & (rows["direction"] == direction)]
        return _worst(f"{dtype} {direction}, {of}", wanted, "of a copy", own, "share")

    many = f"{_MANY_COLUMNS:,} columns and more"
    for layout in ("TBC", "BTC", "BCT"):
        rows = large[large["layout"] == layout]
        for direction, wanted in zip(_DIRECTIONS, (0.90, 0.85), strict=True):
            yield target("float32", direction, f"{layout}, {many}", wanted, rows)
    for power, wanted in ((26, 0.80), (28, 0.87)):
        for direction in _DIRECTIONS:
            of = f"thin, 2**{power} elements"
            yield target("float32", direction, of, wanted, thin[power])
    for direction in _DIRECTIONS:
        yield target("bfloat16", direction, many, 0.85, large)
        for power in (26, 28):
            of = f"thin, 2**{power} elements"
            yield target("bfloat16", direction, of, 0.75, thin[power])


def _durations(rates: pandas.DataFrame) -> Iterator[Target]:
    """Yield targets for the milliseconds of well-known shapes, forward."""
    ours = rates[(rates["algorithm"] == "auto") & (rates["direction"] == "forward")]
    ours = ours[ours["dtype"] == "float32"]
    for layout, T, B, C, wanted in _KNOWN:
        shape = (ours["T"] == T) & (ours["B"] == B) & (ours["C"] == C)
        rows = ours[shape & (ours["layout"] == layout)]
        what = f"float32 forward, {B * C:,} column{'s' * (B * C > 1)} of {T:,}"
        yield _worst(what, wanted, "ms", rows, "median_ms", most=True)


def _rivals(rates: pandas.DataFrame) -> Iterator[Target]:
    """Yield targets for a rival's time over ours, in the case in which it comes closest."""
    ours = rates.loc[rates["algorithm"] == "auto", [*_CASE, "median_ms"]]
    for name in RIVALS:
        rows = rates[rates["algorithm"] == name].merge(ours, on=_CASE, suffixes=("", "_ours"))
        rows["ratio"] = rows["median_ms"] / rows["median_ms_ours"]
        yield _worst(f"its time over ours: {name}", 1.0, "times", rows, "ratio")


def _auto(every: pandas.DataFrame) -> Target:
    """Return the target for the time of the best algorithm over that of "auto"."""
    own = every[~every["algorithm"].isin([*RIVALS])]
    auto = own["algorithm"] == "auto"
    best = own[~auto].groupby(_CASE)["median_ms"].min().rename("best_ms").reset_index()
    rows = own[auto].merge(best, on=_CASE)
    rows["ratio"] = rows["best_ms"] / rows["median_ms"]
    what = "the best algorithm's time over that of auto"
    return _worst(what, 0.95, "times", rows, "ratio")


def _table_1(times: Records | None) -> Iterator[Target]:
    """Yield targets for the best speed-up over "serial_paper" at 65,536 steps: the paper's."""
    theirs = paper.table("table1_kernel_speedup")
    theirs = theirs[theirs["sequence_length"] == 65_536]
    for m, wanted in zip(theirs["features"], theirs["speedup"], strict=True):
        measured, where = None, ""
        if times is not None:
            ours = kernel_speedup.summarise(times)
            chosen = (ours["T"] == 65_536) & (ours["C"] == m) & ours["algorithm"].isin(PARALLEL)
            ours = ours[chosen & (ours["baseline"] == "serial_paper")]
            if len(ours):
                best = ours.loc[ours["speedup"].idxmax()]
                measured, where = float(best["speedup"]), str(best["algorithm"])
        what = f"Table 1, m = {m}: over serial_paper"
        yield Target(what, wanted, "times", False, measured, where)


def _call(costs: pandas.DataFrame) -> Target:
    """Return the target for the microseconds of the host per call without gradients."""
    rows = costs[costs["direction"] == "forward"]
    rows = rows.assign(microseconds=rows["median_ms"] * 1e3)
    return _worst("host cost of a call", 25.0, "microseconds", rows, "microseconds", most=True)
