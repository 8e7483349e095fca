"""Targets of the CUDA kernels, beside the records of a GPU.

Shares are of the speed of a copy on the device in the same run, see
:func:`lrscan.experiments.throughput.summarise`. The wanted numbers are for an H100; the share of a
deterministic sum of 2**28 floats in CUB there is 0.87. "auto" is judged, in the worst shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_FORWARD_OR_BACKWARD = ("forward", "backward")
Chosen = Callable[[pandas.DataFrame], pandas.Series]
# What tells one measurement of a record from another, but for the algorithm.
_CASE = ["direction", "dtype", "layout", "T", "B", "C"]


class Target(NamedTuple):
    """A number that is wanted, and what was measured.

    most      whether the number wanted is the most allowed, or the least
    measured  the worst; None if there is none
    where     the shape that was worst
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
    """Every target beside the records of a device, a row for each target.

    Arguments
    ---------
    directory   the folder with one folder for each device
    device      the device's slug

    Returns
    -------
    pandas.DataFrame
        Columns: target, wanted, measured, unit, where, verdict ("met", "missed", "not measured").
    """
    measured = [
        records.find(name, device, directory=directory)
        for name in ("throughput", "kernel_speedup", "call_cost")
    ]
    rates, times, cost = (None if one is None else one.table for one in measured)
    if measured[0] is not None:
        rates = measured[0].table.assign(share=throughput.summarise(measured[0]))
    every = [
        *_shares(rates), *_durations(rates), *_rivals(rates), _auto(rates, times),
        *_table_1(measured[1]), _call(cost),
    ]
    rows = [
        (t.what, f"{'at most' if t.most else 'at least'} {t.wanted:g}", t.measured, t.unit, t.where,
         t.verdict)
        for t in every
    ]
    return pandas.DataFrame(
        rows, columns=["target", "wanted", "measured", "unit", "where", "verdict"]
    )


def _worst(
    what: str,
    wanted: float,
    unit: str,
    most: bool,
    values: pandas.Series | None,
    rows: pandas.DataFrame | None,
) -> Target:
    """The target with the worst of ``values``, which belong to ``rows``."""
    if values is None or rows is None or values.empty:
        return Target(what, wanted, unit, most, None, "")
    at = values.idxmax() if most else values.idxmin()
    row = rows.loc[at]
    sizes = ", ".join(f"{axis} {row[axis]:,}" for axis in "TBC")
    return Target(what, wanted, unit, most, float(values[at]), f"{row['layout']}, {sizes}")


def _shares(rates: pandas.DataFrame | None) -> Iterator[Target]:
    """Shares of the speed of a copy, by dtype, columns, layout and direction."""
    for what, wanted, chosen in _share_classes():
        rows, share = None, None
        if rates is not None:
            rows = rates[(rates["algorithm"] == "auto") & chosen(rates)]
            share = rows["share"]
        yield _worst(what, wanted, "of a copy", False, share, rows)


def _share_classes() -> Iterator[tuple[str, float, Chosen]]:
    """(what, wanted, which rows of "auto" it is about)"""

    def of(
        direction: str, dtype: str, columns: str, elements: int, layouts: Sequence[str] = ()
    ) -> Chosen:
        def chosen(rows: pandas.DataFrame) -> pandas.Series:
            width = rows["B"] * rows["C"]
            few = width <= _FEW_COLUMNS if columns == "thin" else width >= _MANY_COLUMNS
            size = rows["T"] * width
            large = size >= elements if columns == "many" else _about(size, elements)
            kept = few & large & (rows["direction"] == direction) & (rows["dtype"] == dtype)
            return kept & rows["layout"].isin(layouts) if layouts else kept

        return chosen

    many = f"{_MANY_COLUMNS:,} columns and more"
    for layout in ("TBC", "BTC", "BCT"):
        for direction, wanted in (("forward", 0.90), ("backward", 0.85)):
            what = f"float32 {direction}, {layout}, {many}"
            yield what, wanted, of(direction, "float32", "many", 2**26, [layout])
    for power, wanted in ((26, 0.80), (28, 0.87)):
        for direction in _FORWARD_OR_BACKWARD:
            what = f"float32 {direction}, thin, 2**{power} elements"
            yield what, wanted, of(direction, "float32", "thin", 2**power)
    for direction in _FORWARD_OR_BACKWARD:
        yield f"bfloat16 {direction}, {many}", 0.85, of(direction, "bfloat16", "many", 2**26)
        for power in (26, 28):
            what = f"bfloat16 {direction}, thin, 2**{power} elements"
            yield what, 0.75, of(direction, "bfloat16", "thin", 2**power)


def _about(size: pandas.Series, elements: int) -> pandas.Series:
    """So many elements, up to what does not divide by the columns."""
    return (size > 0.99 * elements) & (size <= elements)


def _durations(rates: pandas.DataFrame | None) -> Iterator[Target]:
    """Shapes of fame, forward, in milliseconds."""
    for layout, T, B, C, wanted in (
        ("BCT", 65_536, 8, 1536, 3.6), ("CT", 2**19, 1, 64, 0.16), ("TC", 2**20, 1, 1, 0.015),
    ):
        rows, times = None, None
        if rates is not None:
            shape = (rates["T"] == T) & (rates["B"] == B) & (rates["C"] == C)
            own = (rates["algorithm"] == "auto") & (rates["direction"] == "forward")
            rows = rates[shape & own & (rates["layout"] == layout) & (rates["dtype"] == "float32")]
            times = rows["median_ms"]
        what = f"float32 forward, {B * C:,} column{'s' * (B * C > 1)} of {T:,}"
        yield _worst(what, wanted, "ms", True, times, rows)


def _rivals(rates: pandas.DataFrame | None) -> Iterator[Target]:
    """A rival's time over ours, in the case where the rival comes nearest."""
    for name in RIVALS:
        rows, ratio = None, None
        if rates is not None:
            ours = rates.loc[rates["algorithm"] == "auto", [*_CASE, "median_ms"]]
            rows = rates[rates["algorithm"] == name].merge(ours, on=_CASE, suffixes=("", "_ours"))
            ratio = rows["median_ms"] / rows["median_ms_ours"]
        yield _worst(f"its time over ours: {name}", 1.0, "times", False, ratio, rows)


def _auto(*tables: pandas.DataFrame | None) -> Target:
    """Time of the best algorithm over that of "auto"."""
    there = [t[~t["algorithm"].isin([*RIVALS])] for t in tables if t is not None]
    rows, ratio = None, None
    if there:
        every = pandas.concat(there, ignore_index=True)
        auto = every["algorithm"] == "auto"
        best = every[~auto].groupby(_CASE)["median_ms"].min().rename("best_ms").reset_index()
        rows = every[auto].merge(best, on=_CASE)
        ratio = rows["best_ms"] / rows["median_ms"]
    return _worst("the best algorithm's time over that of auto", 0.95, "times", False, ratio, rows)


def _table_1(times: Records | None) -> Iterator[Target]:
    """The best parallel algorithm over "serial_paper" at 65,536 steps, against the paper's."""
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


def _call(cost: pandas.DataFrame | None) -> Target:
    """What the host spends in a call without gradients."""
    rows = values = None
    if cost is not None:
        rows = cost[cost["direction"] == "forward"]
        values = rows["median_ms"] * 1e3
    return _worst("host cost of a call", 25.0, "microseconds", True, values, rows)
