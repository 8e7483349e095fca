"""What the model of `scaling` predicts for devices that are not here. Nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas

from lrscan.distributed import cost
from lrscan.evidence.figures import own_settings
from lrscan.experiments import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def predict(
    device: cost.Device,
    links: Mapping[str, cost.Link],
    steps: int,
    columns: int,
    ranks: Sequence[int],
) -> pandas.DataFrame:
    """What the model says of such devices, for links by name.

    Returns:
        Columns: direction, link, T, C, ranks, split_s, exchange_s, and the speedup over one device
        that does not split.
    """
    rows = [
        {
            "direction": direction,
            "link": name,
            "T": steps,
            "C": columns,
            "ranks": count,
            "split_s": cost.split_s(device, link, direction, steps, columns, count),
            "exchange_s": cost.exchange_s(link, columns, count),
            "whole_s": cost.whole_s(device, direction, steps, columns),
        }
        for direction in cost.PASSES
        for name, link in links.items()
        for count in ranks
    ]
    table = pandas.DataFrame(rows)
    return table.assign(speedup=table.pop("whole_s") / table["split_s"])


@own_settings()
def plot(table: pandas.DataFrame, device: str) -> Figure:
    """Speed-up over one device, by the model alone; ``table`` is what :func:`predict` returned."""
    figure, ((panel,),) = canvas.axes(1, 1, width=6.4, height=3.6)
    colours = dict(zip(("forward", "backward"), canvas.colours(2), strict=True))
    styles = dict(zip(table["link"].unique(), ("-", "--", ":"), strict=False))
    for (direction, link), line in table.groupby(["direction", "link"], sort=False):
        panel.plot(
            line["ranks"],
            line["speedup"],
            ls=styles[link],
            c=colours[direction],
            label=f"{direction}, {link}",
        )
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
