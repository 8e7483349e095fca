"""Figures of the recurrence beyond one device. Nothing is computed here."""

from __future__ import annotations

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.plots import canvas
from lrscan.plots.canvas import MARKERS, labelled
from lrscan.plots.learning import NAMES


@own_settings()
def scaling(records: Records, modelled: pandas.DataFrame) -> Figure:
    """Time of a split recurrence over the number of ranks, measured and modelled.

    ``modelled`` is :func:`lrscan.bench.modelled` of the records. A column a number of columns of
    the recurrence, forward above, backward below; on the right the exchange alone.
    """
    features = sorted(modelled.loc[modelled["direction"] != "exchange", "C"].unique())
    figure, axes = canvas.axes(2, len(features) + 1, width=3.6, height=2.9)
    at_once = records.provenance["measurements"][-1]["parameters"]["at_once"]
    whole = records.table[records.table["algorithm"] == "whole"]
    for row, direction in zip(axes, ("forward", "backward"), strict=True):
        for panel, columns in zip(row, features, strict=False):
            here = _where(modelled, direction, columns)
            alone = _where(whole, direction, columns).set_index("T")["median_ms"]
            _lines(panel, here, "T", "T = {:,}")
            for colour, ms in zip(_colours(here, "T"), alone.sort_index(), strict=True):
                panel.axhline(ms, c=colour, ls=":", lw=1)
            panel.set_title(f"{direction}, C = {columns}", fontsize=9)
            panel.legend(fontsize=6)
        row[0].set_ylabel("ms")
    exchange, key = axes[0][-1], axes[1][-1]
    _lines(exchange, modelled[modelled["direction"] == "exchange"], "C", "C = {:,}")
    exchange.set_title("the exchange alone", fontsize=9)
    if exchange.lines:
        exchange.legend(fontsize=6)
    _key(key)
    shown = [*axes[0], *axes[1][:-1]]
    limits = [limit for panel in shown if panel.lines for limit in _limits(panel)]
    for panel in shown:
        panel.set_ylim(min(limits), max(limits))
        panel.set_xticks(sorted(modelled["ranks"].unique()))
        panel.tick_params(labelsize=7)
        panel.minorticks_off()
        if modelled["ranks"].max() > at_once:
            panel.axvspan(at_once + 0.5, modelled["ranks"].max() + 0.5, color="0.93", zorder=0)
    for panel in (*axes[-1][:-1], exchange):
        panel.set_xlabel("ranks", fontsize=8)
    return labelled(
        figure, records, "A recurrence split along time over processes, float32",
        threads="a thread a rank",
    )  # fmt: skip


@own_settings()
def peak_memory(records: Records) -> Figure:
    """What a training step adds to the memory of its process, in one call and in pieces."""
    figure, axes = canvas.axes(1, 1, width=6.4, height=1.3)
    panel, table = axes[0][0], records.table
    piece = records.provenance["measurements"][-1]["parameters"]["piece_steps"]
    names = {"whole": "one call", "pieces": f"pieces of {piece:,}"}
    bars = panel.barh([names[one] for one in table["algorithm"]], table["bytes"] / 2**20)
    panel.bar_label(bars, fmt="%.0f MiB", fontsize=8, padding=3)
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.grid(visible=False, axis="y")  # it would cross the numbers
    panel.set_xlabel("MiB", fontsize=8)
    one = next(table.itertuples())
    told = f"{NAMES.get(one.model, one.model)}, {one.T:,} steps, {one.C} hidden units"
    return labelled(
        figure, records, f"Memory that a training step adds at its peak: {told}", threads="1 thread"
    )


@own_settings()
def outlook(table: pandas.DataFrame, device: str) -> Figure:
    """Speed-up over one device, by the model alone; ``table`` is :func:`lrscan.bench.outlook`."""
    figure, axes = canvas.axes(1, 1, width=6.4, height=3.6)
    panel = axes[0][0]
    colours = dict(zip(("forward", "backward"), seaborn.color_palette("colorblind"), strict=False))
    styles = dict(zip(table["link"].unique(), ("-", "--", ":"), strict=False))
    for (direction, link), line in table.groupby(["direction", "link"], sort=False):
        panel.plot(
            line["ranks"], line["speedup"], ls=styles[link], c=colours[direction],
            label=f"{direction}, {link}",
        )  # fmt: skip
    counts = sorted(table["ranks"].unique())
    panel.plot(counts, counts, c="0.6", lw=1, label="as many times as devices")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.set_xticks(counts, [f"{n:,}" for n in counts], fontsize=7)
    panel.minorticks_off()
    panel.set_xlabel("devices")
    panel.set_ylabel("speed-up over one that does not split")
    panel.legend(fontsize=7)
    steps, columns = table["T"].iloc[0], table["C"].iloc[0]
    figure.suptitle(
        f"A model, not a measurement: {steps:,} steps of {columns} columns\n{device}", fontsize=10
    )
    return figure


def _where(table: pandas.DataFrame, direction: str, columns: int) -> pandas.DataFrame:
    return table[(table["direction"] == direction) & (table["C"] == columns)]


def _colours(table: pandas.DataFrame, by: str) -> list:
    return list(seaborn.color_palette("colorblind", table[by].nunique()))


def _lines(panel: Axes, table: pandas.DataFrame, by: str, label: str) -> None:
    """Medians with quartiles, and the model dashed, a colour a value of ``by``."""
    groups = zip(table.groupby(by), _colours(table, by), MARKERS * 2, strict=False)
    for (value, line), colour, marker in groups:
        spread = (line["median_ms"] - line["q1_ms"], line["q3_ms"] - line["median_ms"])
        panel.errorbar(
            line["ranks"], line["median_ms"], spread, fmt=marker, ms=5, mfc="none", lw=1,
            c=colour, label=label.format(value),
        )  # fmt: skip
        panel.plot(line["ranks"], line["model_ms"], "--", lw=1, c=colour)
        fitted = line[line["fitted"]]
        panel.plot(fitted["ranks"], fitted["model_ms"], ".", ms=4, c=colour)


def _limits(panel: Axes) -> tuple[float, float]:
    panel.set_yscale("log")
    panel.autoscale_view()
    return panel.get_ylim()


def _key(panel: Axes) -> None:
    """What the signs of the other panels mean."""
    panel.axis("off")
    told = {
        "marker": "measured: median and quartiles",
        "dashed": "the model",
        "dot": "measured point that the model was fitted to",
        "dotted": "one process that does not split",
        "grey": "more ranks than processors: they take turns",
    }
    lines = [f"{sign}: {meaning}" for sign, meaning in told.items()]
    panel.text(0, 0.9, "\n\n".join(lines), fontsize=7, va="top", transform=panel.transAxes)
