"""The sheet that figures are drawn on: axes, scales, and what every figure says of its origin."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas
import seaborn
from matplotlib.figure import Figure

from lrscan.records import Records

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


def labelled(figure: Figure, records: Records, title: str) -> Figure:
    """Put title, device, profile and versions on the figure."""
    latest = records.provenance["measurements"][-1]
    runs = records.table["runs"].max() if "runs" in records.table else None
    notes = [
        f"profile {latest['profile'] or 'none'}",
        f"torch {latest['versions']['torch']}, numba {latest['versions']['numba']}",
        f"{latest['threads']['torch']} threads" if latest["device_type"] == "cpu" else None,
        f"median of {runs} runs" if pandas.notna(runs) else None,
    ]
    figure.suptitle(f"{title}\n{records.device_label}", fontsize=10)
    figure.supxlabel("; ".join(filter(None, notes)), fontsize=7, color="0.35")
    return figure
