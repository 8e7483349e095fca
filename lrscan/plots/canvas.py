"""The sheet that figures are drawn on: axes, scales, and what every figure says of its origin."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from lrscan.evidence.records import Records

MARKERS = ["o", "s", "^", "D", "v", "P"]


def grid(rows, columns):
    """Each pair of a row and a column, both with their numbers."""
    return (
        ((row, i), (column, j)) for i, row in enumerate(rows) for j, column in enumerate(columns)
    )


def axes(rows: int, columns: int, *, width: float, height: float):
    """A figure of panels, each so many inches wide and high, and the panels by row and column."""
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


def log_axes(panel, lengths: list[int]) -> None:
    """Both axes logarithmic, with a tick at each length."""
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=35, ha="right", fontsize=7)
    panel.minorticks_off()
    panel.tick_params(axis="y", labelsize=7)


def plain_ticks(panel) -> None:
    """The logarithmic y axis with ticks at 1, 2 and 5 of each decade, written out."""
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def labelled(figure: Figure, records: Records, title: str, threads: str = "") -> Figure:
    """Put title, device, profile and versions on the figure.

    ``threads`` says how many there were, where it is not what the provenance says.
    """
    latest = records.provenance["measurements"][-1]
    on_cpu = latest["device_type"] == "cpu"
    count = latest["threads"]["torch"] if on_cpu else 0
    runs = records.table["runs"].max() if "runs" in records.table else None
    notes = [
        f"profile {latest['profile'] or 'none'}",
        f"torch {latest['versions']['torch']}, numba {latest['versions']['numba']}",
        (threads or f"{count} thread{'s' * (count != 1)}") if on_cpu else None,
        f"median of {runs} runs" if pandas.notna(runs) else None,
        f"partial: {records.left} left to measure" if records.left else None,
    ]
    figure.suptitle(f"{title}\n{records.device_label}", fontsize=10)
    figure.supxlabel("; ".join(filter(None, notes)), fontsize=7, color="0.35")
    return figure
