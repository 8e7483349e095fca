"""How many times quicker a parallel algorithm is than the serial ones, from records of times."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from lrscan.records import Records

BASELINES = ("serial_paper", "serial")
PARALLEL = ("blocked", "single_pass")


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
