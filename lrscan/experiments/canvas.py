"""The sheet that figures are drawn on: axes, scales, colours, and what a figure says of its origin.

Matplotlib and seaborn are imported when something is drawn, not with the experiments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pandas

from lrscan.evidence.records import Records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P")
_Row = TypeVar("_Row")
_Column = TypeVar("_Column")


def grid(
    rows: Iterable[_Row], columns: Iterable[_Column]
) -> Iterator[tuple[tuple[_Row, int], tuple[_Column, int]]]:
    """Each pair of a row and a column, both with their numbers."""
    columns = list(columns)
    return (
        ((row, i), (column, j)) for i, row in enumerate(rows) for j, column in enumerate(columns)
    )


def axes(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """A figure of panels, each so many inches wide and high, and the panels by row and column."""
    import matplotlib.pyplot as plt
    import seaborn

    with seaborn.axes_style("whitegrid"):
        figure, panels = plt.subplots(
            rows,
            columns,
            figsize=(width * columns, height * rows + 0.6),
            squeeze=False,
            layout="constrained",
        )
    plt.close(figure)  # pyplot must not show it a second time
    return figure, panels


def colours(count: int) -> list[Any]:
    """So many colours that the colour-blind can tell apart."""
    import seaborn

    return list(seaborn.color_palette("colorblind", count))


def log_axes(panel: Any, lengths: Iterable[int]) -> None:
    """Make both axes logarithmic, with a tick at each length."""
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    length_ticks(panel, lengths)
    panel.minorticks_off()
    panel.tick_params(axis="y", labelsize=7)


def length_ticks(panel: Any, lengths: Iterable[int]) -> None:
    """Put a tick at each length."""
    lengths = list(lengths)
    panel.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=35, ha="right", fontsize=7)


def plain_ticks(panel: Any) -> None:
    """Put ticks at 1, 2 and 5 of each decade of a logarithmic y axis, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def outer_labels(panels: Any, x: str, y: str) -> None:
    """Name the x axis below the last row of panels, and the y axis left of the first column."""
    for panel in panels[-1]:
        panel.set_xlabel(x)
    for row in panels:
        row[0].set_ylabel(y)


def legend_beside(figure: Figure, panel: Any, *, size: int) -> None:
    """Put the legend of a panel to the right of all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=size, loc="outside right center")


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
