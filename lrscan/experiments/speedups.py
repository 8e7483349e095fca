"""Speed-ups of parallel algorithms over serial ones, and their comparison with the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas

from lrscan.evidence.records import Records
from lrscan.experiments.verdicts import (
    CPU_CANNOT_TELL,
    HOLDS,
    HOLDS_PLAIN,
    NOT_REPRODUCED,
    NOT_TRIED,
    WEAKER,
    Finding,
    times,
)

BASELINES = ("serial_paper", "serial")
PARALLEL = ("blocked", "single_pass")


def speedups(measured: Records, by: Sequence[str]) -> pandas.DataFrame:
    """Return serial over parallel median times, for every pair of algorithms that was measured.

    Args:
        measured: times, one for each algorithm and combination of the columns ``by``
        by:       the columns that identify what was computed

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


class PaperCell(NamedTuple):
    """Cell of one of the paper's tables.

    Attributes:
        model:   the paper's name for it; empty if a table is about the kernel alone
        at:      the values of its columns in a table of :func:`speedups`
        speedup: the paper's number
    """

    model: str
    at: dict[str, Any]
    speedup: float


def compare(
    table: pandas.DataFrame, steps: int, cells: Iterable[PaperCell], on_gpu: bool
) -> Finding:
    """Compare the best parallel speed-ups with the paper's, cell by cell.

    On a GPU the speed-ups over the plain loop are compared with the paper's, and those over the
    tuned serial kernel with 1. The ratio is that of the cell that is furthest behind the paper. On
    a CPU there is no verdict.

    Args:
        table:  from :func:`speedups`
        steps:  the length of all cells
        cells:  of the paper
        on_gpu: True if a GPU was measured
    """
    table = table[table["algorithm"].isin(PARALLEL)]
    parts: list[str] = []
    found: list[tuple[float, float, float]] = []
    for model, at, theirs in cells:
        rows = table[(table[list(at)] == pandas.Series(at)).all(axis=1)]
        plain = rows[rows["baseline"] == ("serial_paper" if on_gpu else "serial")]
        if plain.empty:
            continue
        best = plain.loc[plain["speedup"].idxmax()]
        tuned = rows.loc[rows["baseline"] == "serial", "speedup"].max()
        found.append((best["speedup"], tuned, float(best["speedup"] / theirs)))
        width = f"{'n' if model else 'm'} = {best['C']}"
        parts.append(f"{model} {best['speedup']:.2f}x ({best['algorithm']}, {width}".strip())
        parts[-1] += f"; {tuned:.2f}x over the tuned serial kernel)" if on_gpu else ")"
    if not found:
        return Finding(f"nothing was measured at T = {steps:,}", NOT_TRIED)
    text = f"at T = {steps:,}: " + "; ".join(parts)
    if not on_gpu:
        return Finding(text, CPU_CANNOT_TELL)
    over_plain, over_tuned, ratio = (min(column) for column in zip(*found, strict=True))
    if over_plain <= 1:
        return Finding(text, NOT_REPRODUCED, ratio)
    if ratio < 1:
        return Finding(text, WEAKER, ratio)
    return Finding(text, HOLDS if over_tuned > 1 else HOLDS_PLAIN, ratio)


def fastest(table: pandas.DataFrame, on_gpu: bool) -> str:
    """Return the largest parallel speed-up over the plain serial loop; empty if there is none.

    Args:
        table:  rows of what :func:`speedups` returned
        on_gpu: True if a GPU was measured
    """
    baseline = "serial_paper" if on_gpu else "serial"
    rows = table[table["algorithm"].isin(PARALLEL) & (table["baseline"] == baseline)]
    return "" if rows.empty else times(rows["speedup"].max())
