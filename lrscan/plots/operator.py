"""Figures of the operator alone: its errors, its speed-up, its share of the speed of memory."""

from __future__ import annotations

import pandas
import seaborn
from matplotlib.figure import Figure

from lrscan.evidence import paper
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.plots.canvas import MARKERS, axes, grid, labelled, log_axes, plain_ticks

# An error of zero has no place on a logarithmic axis: it is drawn on the lower edge, here.
FLOOR = 1e-3


@own_settings()
def correctness(records: Records) -> Figure:
    """Error of every algorithm over the bound that rounding allows, by length.

    A column a dtype; forward above, backward below. A mark is of the check that came closest to
    its bound, whatever the number of columns.
    """
    table = records.table.assign(share=records.table["error"] / records.table["bound"])
    dtypes, algorithms = list(table["dtype"].unique()), sorted(table["algorithm"].unique())
    figure, panels = axes(2, len(dtypes), width=3.4, height=2.7)
    colours = seaborn.color_palette("colorblind", len(algorithms))
    for (direction, row), (dtype, column) in grid(["forward", "backward"], dtypes):
        panel = panels[row][column]
        cell = table[(table["dtype"] == dtype) & (table["direction"] == direction)]
        worst = cell.groupby(["algorithm", "T"])["share"].max()
        panel.axhline(1, c="k", ls="--", lw=1, label="all that rounding allows")
        for k, (algorithm, colour, marker) in enumerate(
            zip(algorithms, colours, MARKERS, strict=False)
        ):
            size = 9 - 2 * k  # equal errors show as nested markers
            one = worst[algorithm].clip(lower=FLOOR)
            panel.plot(one.index, one, marker, ms=size, mfc="none", c=colour, label=algorithm)
        log_axes(panel, sorted(table["T"].unique()))
        panel.set_ylim(FLOOR * 0.7, max(2, 2 * worst.max()))
        panel.set_title(f"{dtype}, {direction}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("sequence length T")
    for row in panels:
        row[0].set_ylabel("error / bound")
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return labelled(
        figure, records,
        "Error against the serial float64 loop, over what rounding allows\n"
        "(zero is drawn on the lower edge)",
    )  # fmt: skip


@own_settings()
def kernel_speedup(records: Records, speedups: pandas.DataFrame) -> Figure:
    """Table 1 again: time of a serial kernel over that of a parallel one, beside the paper's.

    ``speedups`` is :func:`lrscan.bench.speedups` of the records. A panel for each pair of
    algorithms, a row for each serial one.
    """
    baselines, algorithms = (list(speedups[name].unique()) for name in ("baseline", "algorithm"))
    figure, panels = axes(len(baselines), len(algorithms), width=4.6, height=3.6)
    ours = sorted(speedups["C"].unique())
    colours = dict(zip(ours, seaborn.color_palette("colorblind", len(ours)), strict=True))
    published = paper.table("table1_kernel_speedup")
    for (baseline, row), (algorithm, column) in grid(baselines, algorithms):
        panel = panels[row][column]
        pair = speedups[(speedups["baseline"] == baseline) & (speedups["algorithm"] == algorithm)]
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
        log_axes(panel, sorted(speedups["T"].unique()))
        plain_ticks(panel)
        panel.set_title(f"{baseline} / {algorithm}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("sequence length T")
    for row in panels:
        row[0].set_ylabel("speed-up (above 1: parallel is faster)")
    panels[0][0].legend(fontsize=7)
    return labelled(figure, records, "Table 1: serial over parallel time, minibatch 1, float32")


@own_settings()
def throughput(records: Records, shares: pandas.Series) -> Figure:
    """Share of the speed of memory, for every layout and algorithm.

    ``shares`` is :func:`lrscan.bench.shares` of the records. A row of panels for each dtype, a
    column for each direction.
    """
    table = records.table.assign(share=shares)
    table = table.sort_values(["T", "C"], kind="stable").sort_values(
        "layout", key=lambda layout: -layout.str.len(), kind="stable"
    )
    cases = ["layout", "T", "B", "C"]
    dtypes = list(records.table["dtype"].unique())
    most = max(len(part[cases].drop_duplicates()) for _, part in table.groupby("dtype"))
    height = max(4.0, 0.2 * most + 0.6)
    figure, panels = axes(len(dtypes), 2, width=5.0, height=height)
    algorithms = sorted(table["algorithm"].unique())
    colours = seaborn.color_palette("colorblind", len(algorithms))
    styles = list(zip(algorithms, colours, MARKERS * 2, strict=False))
    for (dtype, row), (direction, column) in grid(dtypes, ("forward", "backward")):
        panel, of_dtype = panels[row][column], table[table["dtype"] == dtype]
        part = of_dtype[of_dtype["direction"] == direction]
        order = of_dtype[cases].drop_duplicates().reset_index(drop=True)
        names = [_case(one) for one in order.itertuples()] if column == 0 else [""] * len(order)
        panel.axvline(1, c="0.6", lw=1)
        for algorithm, colour, marker in styles:
            one = part[part["algorithm"] == algorithm]
            at = order.merge(one, on=cases, how="left")["share"]
            if at.notna().any():
                panel.plot(at, order.index, marker, mfc="none", c=colour, label=algorithm)
        panel.set_yticks(order.index, names, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlim(0, None)
        panel.set_title(f"{dtype}, {direction}", fontsize=9)
        panel.set_xlabel("share of the speed of memory", fontsize=8)
    named = {}
    for panel in panels.flat:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named, fontsize=7, loc="outside right center")
    title = "Time to move the bytes over time of the recurrence\n"
    title += "TC: channels lie side by side; CT: time does"
    return labelled(figure, records, title)


@own_settings()
def call_cost(records: Records) -> Figure:
    """Microseconds of the host for one call on a tiny tensor, beside those of a multiplication."""
    table = records.table
    figure, panels = axes(1, 1, width=5.4, height=2.4)
    panel, thickness = panels[0][0], 0.38
    at = range(len(table))
    colours = seaborn.color_palette("colorblind", 2)
    middle = 1e3 * table["median_ms"]
    spread = [middle - 1e3 * table["q1_ms"], 1e3 * table["q3_ms"] - middle]
    ours = {"height": thickness, "color": colours[0], "label": "linear_recurrence"}
    panel.barh([n - thickness / 2 for n in at], middle, xerr=spread, **ours)
    theirs = {"height": thickness, "color": colours[1], "label": "torch.mul"}
    panel.barh([n + thickness / 2 for n in at], 1e3 * table["reference_ms"], **theirs)
    words = {
        "forward": "without gradients", "recorded": "recorded for a backward pass",
        "training": "and its backward pass",
    }  # fmt: skip
    panel.set_yticks(at, [words[direction] for direction in table["direction"]], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("microseconds a call (bars: quartiles)", fontsize=8)
    panel.legend(fontsize=7)
    return labelled(figure, records, "What a call costs the host, 4 steps of 3 columns")


def _case(row) -> str:
    """A row of tensors: its layout and sizes."""
    batch = f", B {row.B:,}" if row.B > 1 else ""
    return f"{row.layout}  T {row.T:,}{batch}, C {row.C:,}"
