"""Figures from records. Nothing is computed here: every number comes from a table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas
import seaborn
from matplotlib.figure import Figure

from lrscan import paper
from lrscan.records import Records

MARKERS = ["o", "s", "^", "D", "v", "P"]
# An error of zero has no place on a logarithmic axis: it is drawn on the lower edge, here.
FLOOR = {
    "float64": 1e-18,
    "float32": 1e-9,
    "float16": 1e-5,
    "bfloat16": 1e-4,
    "complex64": 1e-9,
    "complex128": 1e-18,
}


def correctness(records: Records) -> Figure:
    """Largest error of every algorithm over length, beside the bound that rounding allows.

    A column a dtype; forward above, backward below.
    """
    table = records.table
    dtypes, algorithms = list(table["dtype"].unique()), sorted(table["algorithm"].unique())
    figure, axes = _axes(2, len(dtypes), width=3.4, height=2.7)
    colours = seaborn.color_palette("colorblind", len(algorithms))
    for (direction, row), (dtype, column) in _grid(["forward", "backward"], dtypes):
        panel = axes[row][column]
        cell = table[(table["dtype"] == dtype) & (table["direction"] == direction)]
        worst = cell.groupby(["algorithm", "T"])[["error", "bound"]].max().reset_index()
        bound = worst.groupby("T")["bound"].max()
        panel.plot(bound.index, bound, "k--", lw=1, label="bound from rounding")
        for k, (algorithm, colour, marker) in enumerate(
            zip(algorithms, colours, MARKERS, strict=False)
        ):
            size = 9 - 2 * k  # equal errors show as nested markers
            one = worst[worst["algorithm"] == algorithm]
            seen = one["error"].clip(lower=FLOOR[dtype])
            panel.plot(one["T"], seen, marker, ms=size, mfc="none", c=colour, label=algorithm)
        _log_axes(panel, sorted(table["T"].unique()))
        panel.set_ylim(FLOOR[dtype] * 0.7, None)
        panel.set_title(f"{dtype}, {direction}", fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("sequence length T")
    for row in axes:
        row[0].set_ylabel("error / largest value")
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return _labelled(
        figure, records, "Error against the serial float64 loop (zero is drawn on the lower edge)"
    )


def kernel_speedup(records: Records, speedups: pandas.DataFrame) -> Figure:
    """Table 1 again: time of a serial kernel over that of a parallel one, beside the paper's.

    ``speedups`` is :func:`lrscan.bench.speedups` of the records. A panel a pair of algorithms.
    """
    pairs = list(speedups.groupby(["baseline", "algorithm"], sort=False))
    figure, axes = _axes(1, len(pairs), width=4.6, height=3.6)
    ours = sorted(speedups["C"].unique())
    colours = dict(zip(ours, seaborn.color_palette("colorblind", len(ours)), strict=True))
    published = paper.table("table1_kernel_speedup")
    for panel, ((baseline, algorithm), pair) in zip(axes[0], pairs, strict=True):
        panel.axhline(1, c="0.6", lw=1)
        for features, marker in zip(ours, MARKERS, strict=False):
            line = pair[pair["C"] == features]
            style = {"c": colours[features], "marker": marker}
            panel.plot(line["T"], line["speedup"], label=f"m = {features}", **style)
            theirs = published[published["features"] == features]
            panel.plot(
                theirs["sequence_length"],
                theirs["speedup"],
                mfc="none",
                ls=":",
                lw=1,
                label=f"m = {features}, paper ({paper.HARDWARE})",
                **style,
            )
        _log_axes(panel, sorted(speedups["T"].unique()))
        panel.set_title(f"{baseline} / {algorithm}", fontsize=9)
        panel.set_xlabel("sequence length T")
    axes[0][0].set_ylabel("speed-up (above 1: parallel is faster)")
    axes[0][0].legend(fontsize=7)
    return _labelled(figure, records, "Table 1: serial over parallel time, minibatch 1, float32")


def throughput(records: Records) -> Figure:
    """Share of the speed of memory, for every layout and algorithm; a panel a direction.

    The share is the time of the reference, which moves the same bytes, over that measured.
    """
    table = records.table.assign(share=records.table["reference_ms"] / records.table["median_ms"])
    figure, axes = _axes(1, 2, width=5.0, height=4.6)
    algorithms = sorted(table["algorithm"].unique())
    colours = seaborn.color_palette("colorblind", len(algorithms))
    styles = list(zip(algorithms, colours, MARKERS * 2, strict=False))
    cases = ["layout", "T", "C"]
    for panel, direction in zip(axes[0], ("forward", "backward"), strict=True):
        part = table[table["direction"] == direction]
        order = part[cases].drop_duplicates().reset_index(drop=True)
        names = [f"{row.layout}  T {row.T:,}, C {row.C:,}" for row in order.itertuples()]
        panel.axvline(1, c="0.6", lw=1)
        for algorithm, colour, marker in styles:
            one = part[part["algorithm"] == algorithm]
            at = order.merge(one, on=cases, how="left")["share"]
            if at.notna().any():
                panel.plot(at, order.index, marker, mfc="none", c=colour, label=algorithm)
        panel.set_yticks(order.index, names, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlim(0, None)
        panel.set_title(direction, fontsize=9)
        panel.set_xlabel("share of the speed of memory", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    return _labelled(figure, records, "Time to move the bytes over time of the recurrence, float32")


def _grid(rows, columns):
    return (
        ((row, i), (column, j)) for i, row in enumerate(rows) for j, column in enumerate(columns)
    )


def _axes(rows: int, columns: int, *, width: float, height: float):
    with seaborn.axes_style("whitegrid"):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width * columns, height * rows + 0.6),
            squeeze=False,
            layout="constrained",
        )
    plt.close(figure)  # pyplot must not show it a second time
    return figure, axes


def _log_axes(panel, lengths: list[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=35, ha="right", fontsize=7)
    panel.minorticks_off()
    panel.tick_params(axis="y", labelsize=7)


def _labelled(figure: Figure, records: Records, title: str) -> Figure:
    """Put title, device, profile and versions on the figure."""
    latest = records.provenance["measurements"][-1]
    runs = records.table["runs"].max() if "runs" in records.table else None
    notes = [
        f"profile {latest['profile'] or 'none'}",
        f"torch {latest['versions']['torch']}, numba {latest['versions']['numba']}",
        f"{latest['threads']['torch']} threads" if latest["device_type"] == "cpu" else None,
        f"median of {runs} runs" if runs else None,
    ]
    figure.suptitle(f"{title}\n{records.device_label}", fontsize=10)
    figure.supxlabel("; ".join(filter(None, notes)), fontsize=7, color="0.35")
    return figure
