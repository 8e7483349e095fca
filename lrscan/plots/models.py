"""Figures of the models in training: Table 2, the heat map, and the cost of a step over length."""

from __future__ import annotations

import numpy as np
import pandas
import seaborn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lrscan.evidence import paper
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.plots.canvas import MARKERS, axes, labelled, log_axes, plain_ticks


@own_settings()
def training_speedup(records: Records, speedups: pandas.DataFrame) -> Figure:
    """Table 2 again: training with a serial kernel over training with another, beside the paper's.

    ``speedups`` is :func:`lrscan.bench.speedups` of the records, by model, T, B and C. A row for
    each width and serial algorithm, a column for each other one.
    """
    rows = speedups[["C", "baseline"]].drop_duplicates().sort_values("C", kind="stable")
    algorithms, names = speedups["algorithm"].unique(), records.table["model"].unique()
    figure, panels = axes(len(rows), len(algorithms), width=3.9, height=2.8)
    colours = seaborn.color_palette("colorblind", len(names))
    published = paper.table("table2_rnn_speedup")
    for row, (width, baseline) in zip(panels, rows.itertuples(index=False), strict=True):
        for panel, algorithm in zip(row, algorithms, strict=True):
            cell = speedups[
                (speedups["C"] == width)
                & (speedups["baseline"] == baseline)
                & (speedups["algorithm"] == algorithm)
            ]
            panel.axhline(1, c="0.6", lw=1)
            for name, colour, marker in zip(names, colours, MARKERS, strict=False):
                ours = cell[cell["model"] == name].sort_values("T")
                theirs = published[published["model"] == name]
                style = {"c": colour, "marker": marker, "ms": 5}
                panel.plot(ours["T"], ours["speedup"], label=name, **style)
                panel.plot(
                    theirs["sequence_length"], theirs["speedup"], mfc="none", ls=":", lw=1,
                    label=f"{name}, paper ({paper.HARDWARE})", **style,
                )  # fmt: skip
            log_axes(panel, sorted({*speedups["T"], *published["sequence_length"]}))
            plain_ticks(panel)
            panel.set_title(f"{baseline} / {algorithm}, {width} hidden units", fontsize=9)
        row[0].set_ylabel("speed-up")
    for panel in panels[-1]:
        panel.set_xlabel("sequence length T")
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
    events = records.provenance["measurements"][-1]["parameters"]["events"]
    return labelled(
        figure,
        records,
        f"Table 2: training speed-up by switching the kernel, b T = {events:,}, float32\n"
        "the paper: b T = 65,536 and, by its text, 256 hidden units",
    )


@own_settings()
def lstm_throughput(records: Records, throughputs: pandas.DataFrame) -> Figure:
    """The heat map again: training throughput over minibatch and length, beside the paper's.

    ``throughputs`` is :func:`lrscan.bench.throughputs` of the records. Left ours, right the
    paper's; above thousand events a second, below the ratio to the LSTM at the same minibatch.
    """
    value, lstm = "thousand_events_per_s", "LSTM"
    theirs = paper.heatmap()
    figure, panels = axes(2, 2, width=5.4, height=4.2)
    hidden = throughputs["C"].iloc[0]
    for column, (table, where) in enumerate(
        [(throughputs, f"{records.device_label}, {hidden} hidden units"),
         (theirs, f"the paper ({paper.HARDWARE}), 256 hidden units")]
    ):  # fmt: skip
        rows = table.assign(row=[0 if m == lstm else t for m, t in zip(
            table["model"], table["T"].fillna(0), strict=True)])  # fmt: skip
        speed = rows.pivot_table(index="row", columns="B", values=value, aggfunc="max")
        speed.index = [lstm if t == 0 else f"{int(t):,}" for t in speed.index]
        ratio = rows[rows["row"] > 0].pivot(index="row", columns="B", values="ratio")
        ratio.index = [f"{int(t):,}" for t in ratio.index]
        _heat(panels[0][column], speed, f"thousand events/s: {where}", "viridis", None)
        _heat(panels[1][column], ratio, "GILR-LSTM over LSTM", "RdBu_r", (1 / 32, 32))
    return labelled(
        figure, records,
        "Training throughput, two layers, 32 inputs, float32: "
        "the LSTM and, by sequence length, the GILR-LSTM",
    )  # fmt: skip


def _heat(panel, table: pandas.DataFrame, title: str, colours: str, limits) -> None:
    """Numbers in coloured cells; the colours are logarithmic."""
    values = table.to_numpy(dtype=float)
    low, high = limits or (np.nanmin(values), np.nanmax(values))
    labels = [[_short(v) for v in row] for row in values]
    seaborn.heatmap(
        table, ax=panel, norm=LogNorm(low, max(high, low * 1.01)), cmap=colours, annot=labels,
        fmt="", annot_kws={"size": 7}, linewidths=0.5, cbar=False,
    )  # fmt: skip
    panel.grid(False)
    panel.set_title(title, fontsize=8)
    panel.set_xlabel("minibatch b", fontsize=8)
    panel.set_ylabel("sequence length T", fontsize=8)
    panel.tick_params(labelsize=7, rotation=0)


def _short(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@own_settings()
def step_time(records: Records) -> Figure:
    """Time of a training step over length, beside one in proportion to length."""
    table = records.table.sort_values("T")
    figure, ((panel,),) = axes(1, 1, width=5.6, height=3.6)
    panel.plot(table["T"], table["reference_ms"] / 1e3, "k--", lw=1, label="in proportion to T")
    panel.errorbar(
        table["T"], table["median_ms"] / 1e3,
        yerr=[(table["median_ms"] - table["q1_ms"]) / 1e3,
              (table["q3_ms"] - table["median_ms"]) / 1e3],
        fmt="o-", capsize=3, label="measured (quartiles)",
    )  # fmt: skip
    log_axes(panel, sorted(table["T"]))
    plain_ticks(panel)
    panel.set_xlabel("sequence length T")
    panel.set_ylabel("seconds a step")
    panel.legend(fontsize=8)
    hidden = table["C"].iloc[0]
    return labelled(
        figure, records,
        f"A training step of GILR-LSTM, two layers of {hidden}, minibatch 1, float32",
    )  # fmt: skip
