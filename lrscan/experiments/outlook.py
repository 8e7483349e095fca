"""Predictions of the model of ``scaling`` for devices that are not here; nothing is measured."""

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
    """Return the times that the model predicts for a split over several devices.

    Args:
        device:  one of the devices
        links:   links between them, by name
        steps:   T
        columns: C
        ranks:   counts of devices

    Returns:
        Columns: direction, link, T, C, ranks, split_s, exchange_s, and speedup, which is over one
        device that does not split.
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
    """Draw the speed-up over one device, by the model alone.

    Args:
        table:  from :func:`predict`
        device: what the model assumes of a device, in words
    """
    figure, ((panel,),) = canvas.axes(1, 1, height=3.3)
    styles = dict(zip(table["link"].unique(), ("-", "--", ":"), strict=False))
    counts = sorted(table["ranks"].unique())
    panel.plot(counts, counts, c="0.7", lw=1.2, label="in proportion to devices")
    for (direction, link), line in table.groupby(["direction", "link"], sort=False):
        panel.plot(
            line["ranks"],
            line["speedup"],
            ls=styles[link],
            c=canvas.look(direction).colour,
            label=f"{direction}, {link}",
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    canvas.length_ticks(panel, counts)
    panel.set_yticks(counts, [f"{n:,}" for n in counts])
    panel.minorticks_off()
    panel.set_xlabel("devices")
    panel.set_ylabel("times as fast as one device")
    most = table[table["ranks"] == counts[-1]]
    ends = [canvas.short(one) for one in (most["speedup"].min(), most["speedup"].max())]
    title = f"A model, not a measurement: {counts[-1]:,} devices do the work of {' to '.join(ends)}"
    about = f"{table['T'].iloc[0]:,} steps of {table['C'].iloc[0]} columns. {device}"
    return canvas.finish(figure, title, about, "", panel.lines)
