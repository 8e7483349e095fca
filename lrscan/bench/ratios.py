"""Ratios from records of times: over the serial algorithms, and over moving the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from lrscan.evidence.records import Records

BASELINES = ("serial_paper", "serial")
PARALLEL = ("blocked", "single_pass")
# So many bytes take a GPU's memory at its full speed, whatever their number.
_LARGE_BYTES = 2**28


def speedups(measured: Records, by: Sequence[str] = ("T", "C")) -> pandas.DataFrame:
    """Serial over other median time, for every pair that was measured.

    Args:
        measured: times, one a row of ``by`` and algorithm
        by:       the columns that tell what was computed

    Returns:
        Columns: ``by``, baseline ("serial_paper", "serial"), algorithm (any other), speedup.
    """
    times = measured.table.pivot(index=list(by), columns="algorithm", values="median_ms")
    there = [name for name in (*BASELINES, *PARALLEL, "auto") if name in times]
    tables = []
    for baseline in there:
        for algorithm in there:
            if baseline in BASELINES and algorithm not in BASELINES:
                ratio = (times[baseline] / times[algorithm]).rename("speedup").reset_index()
                tables.append(ratio.assign(baseline=baseline, algorithm=algorithm))
    return pandas.concat(tables, ignore_index=True)


def shares(measured: Records) -> pandas.Series:
    """The share of the speed of memory that each row reached.

    It is the time of moving the row's bytes over the row's time. The first is the reference's,
    measured in the same run. On a GPU the fastest of the large copies
    of a run stands for all of them: some ways to make a copy are slow at some sizes, and a share
    above one would only say that such a way was taken.
    """
    table = measured.table
    moving = table["reference_ms"]
    if measured.on_gpu:
        large = table["bytes"] >= _LARGE_BYTES
        fastest = (moving / table["bytes"])[large].min()
        moving = moving.mask(large, table["bytes"] * fastest)
    return moving / table["median_ms"]
