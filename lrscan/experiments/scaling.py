"""Recurrence split over ranks of this machine, and a model of its bytes and latencies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas
import torch

from lrscan.distributed import cost
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments import ranks as processes
from lrscan.experiments.registry import Experiment, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DIRECTIONS = ("forward", "backward")


def measure(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    ranks: Sequence[int],
    runs: int,
) -> Records:
    """Measure the time of a recurrence split over ranks of this machine, and of the exchange alone.

    On a CPU the ranks are processes of one thread each, with gloo. On GPUs there is one for each
    device, with NCCL, and there are no more ranks than devices. The tensors are float32 of shape
    (T, C). The time of a run is that of the slowest rank. Rows of "whole" are of one process that
    does not split.

    Args:
        device:   "auto", "cpu" or "cuda"
        seed:     of the inputs
        lengths:  T
        features: C
        ranks:    counts of ranks; 1 is always measured
        runs:     samples of each time

    Raises:
        ValueError: a count of ranks is below 1
    """
    where = provenance.resolve_device(device)
    lengths, features = sorted(set(lengths)), sorted(set(features))
    gpu = where.type == "cuda"
    at_once = torch.cuda.device_count() if gpu else provenance.usable_cores()
    if wrong := [n for n in ranks if n < 1]:
        raise ValueError(f"ranks must be at least 1, not {wrong[0]}")
    counts = sorted(n for n in {1, *ranks} if n <= at_once or not gpu)
    parameters = {"lengths": lengths, "features": features, "ranks": counts, "runs": runs}
    measured = processes.measure(parameters | {"seed": seed, "device": where.type})
    identity = {"dtype": "float32", "layout": "TC", "B": 1, "seed": seed, "runs": runs}
    identity |= {"profile": workspace.profile()}
    rows = [identity | row for row in measured]
    parameters |= {"at_once": at_once}
    return records.write("scaling", rows, provenance.collect(where, parameters, seed))


def fitted(records: Records) -> tuple[dict[tuple[str, int], cost.Device], cost.Link | None]:
    """Fit the model: a device for each direction and number of columns, and the link.

    The devices are fitted to one rank at the fewest and the most steps, the link to exchanges
    between two ranks. Everything else is a prediction. The link is None if two ranks were not
    measured.
    """
    table = records.table
    at_once = _at_once(records)
    alone = table[(table["algorithm"] == "split") & (table["ranks"] == 1)]
    devices = {
        key: cost.fitted_device(_seconds(one, "bytes"), at_once)
        for key, one in alone.groupby(["direction", "C"])
    }
    pair = table[(table["direction"] == "exchange") & (table["ranks"] == 2)]
    if pair.empty:
        return devices, None
    return devices, cost.fitted_link(_seconds(pair, "C"), 2)


def _at_once(records: Records) -> int:
    """Return the number of ranks that the machine runs at the same time."""
    return records.provenance["measurements"][-1]["parameters"]["at_once"]


def _seconds(rows: pandas.DataFrame, by: str) -> dict[int, float]:
    return dict(zip(rows[by], rows["median_ms"] / 1e3, strict=True))


def summarise(records: Records) -> pandas.DataFrame:
    """Return the rows of "split" with the model's time, and whether it was fitted to the row.

    Returns:
        The columns of the records, ``model_ms`` and ``fitted``.
    """
    devices, link = fitted(records)
    table = records.table[records.table["algorithm"] == "split"].copy()
    ends = {table["T"].min(), table["T"].max()}
    link = cost.Link(0, 1) if link is None else link  # one rank exchanges nothing

    def predicted_ms(row: Any) -> float:
        if row.direction == "exchange":
            alone = cost.exchange_s(link, row.C, row.ranks)
            return cost.shared(next(iter(devices.values())), row.ranks) * alone * 1e3
        device = devices[row.direction, row.C]
        return cost.split_s(device, link, row.direction, row.T, row.C, row.ranks) * 1e3

    rows = list(table.itertuples())
    table["model_ms"] = [predicted_ms(row) for row in rows]
    table["fitted"] = [
        row.ranks == 2 if row.direction == "exchange" else row.ranks == 1 and row.T in ends
        for row in rows
    ]
    return table


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the time of a split recurrence over the number of ranks, measured and modelled.

    Each number of columns of the recurrence has a row of panels, forward on the left, backward on
    the right; below is the exchange alone.
    """
    table = summarise(records)
    features = sorted(table.loc[table["direction"] != "exchange", "C"].unique())
    figure, panels = canvas.axes(len(features) + 1, 2, height=1.75, sharey=True)
    at_once, most = _at_once(records), table["ranks"].max()
    whole = records.table[records.table["algorithm"] == "whole"]
    lengths = sorted(table["T"].dropna().unique())
    colours = dict(zip(lengths, canvas.shades(len(lengths)), strict=True))
    for row, columns in zip(panels, features, strict=False):
        for panel, direction in zip(row, _DIRECTIONS, strict=True):
            _draw_lines(panel, _where(table, direction, columns), "T", colours)
            alone = _where(whole, direction, columns).set_index("T")["median_ms"]
            for steps, ms in alone.items():
                panel.axhline(ms, c=colours[steps], ls=":", lw=1.2)
            canvas.subtitle(panel, f"{direction}, {_columns(columns)}")
    exchange, beside = panels[-1]
    beside.remove()
    alone = table[table["direction"] == "exchange"]
    sizes = sorted(alone["C"].unique())
    colours_of_sizes = dict(zip(sizes, canvas.shades(len(sizes)), strict=True))
    _draw_lines(exchange, alone, "C", colours_of_sizes)
    canvas.subtitle(exchange, "the exchange alone")
    handles = [canvas.mark(_columns(n), c, "o") for n, c in colours_of_sizes.items()]
    legend = exchange.legend(
        handles=handles,
        title="values exchanged for",
        loc="center left",
        bbox_to_anchor=(1.05, 0.5),
        frameon=False,
        fontsize=canvas.KEY,
        alignment="left",
    )
    legend.set_in_layout(False)  # it is in the room of the panel that was removed
    shown = [*panels[:-1].flat, exchange]
    for panel in shown:
        panel.set_yscale("log")
        panel.set_xticks(sorted(table["ranks"].unique()))
        panel.set_xlim(0.6, most + 0.4)
        if most > at_once:
            panel.axvspan(at_once + 0.5, most + 0.4, color="0.93", zorder=0)
    canvas.plain_ticks(panels[0][0], steps=(1,))
    for row in panels:
        row[0].set_ylabel("milliseconds")
    for panel in panels[:-2].flat:
        panel.tick_params(labelbottom=False)
    for panel in (*panels[-2], exchange):
        panel.set_xlabel("processes")
    key = [canvas.mark(f"T = {int(n):,}", colour, "o") for n, colour in colours.items()]
    key += [
        None,
        canvas.mark("measured", canvas.GREY, "o", mfc="white"),
        canvas.mark("used for the fit", canvas.GREY, "o"),
        canvas.mark("the model", canvas.GREY, ls="--"),
        canvas.mark("one process, not split", canvas.GREY, ls=":"),
    ]
    about = "A float32 recurrence split along time. Bars: quartiles"
    if most > at_once:
        about += f". Grey: more processes than the {at_once} cores, which they share"
    return canvas.labelled(figure, records, _title(records), about, key, "1 thread per process")


def _title(records: Records) -> str:
    """Return the finding: the best ratio of a split to one process that does not split."""
    table, cell = records.table, ["direction", "T", "C"]
    split = table[(table["algorithm"] == "split") & (table["ranks"] > 1)]
    whole = table.loc[table["algorithm"] == "whole", [*cell, "median_ms"]]
    both = split.merge(whole, on=cell, suffixes=("", "_whole"))
    if both.empty:
        return "A recurrence split along time over processes"
    both["ratio"] = both["median_ms_whole"] / both["median_ms"]
    best = both.loc[both["ratio"].idxmax()]
    return (
        f"At best {best['ranks']:.0f} processes are {canvas.short(best['ratio'])} times as fast as "
        f"one: {best['direction']}, {best['T']:,.0f} steps of {_columns(best['C'])}"
    )


def _columns(count: float) -> str:
    return f"{count:,.0f} column{'s' if count > 1 else ''}"


def _where(table: pandas.DataFrame, direction: str, columns: int) -> pandas.DataFrame:
    return table[(table["direction"] == direction) & (table["C"] == columns)]


def _draw_lines(panel: Any, table: pandas.DataFrame, by: str, colours: Mapping[Any, Any]) -> None:
    """Draw medians with quartiles, and the model dashed, in a colour for each value of ``by``.

    Measurements that the model is fitted to are full markers, all others are hollow.
    """
    for value, line in table.groupby(by):
        colour = colours[value]
        panel.plot(line["ranks"], line["model_ms"], "--", lw=1.2, c=colour)
        for fitted, points in line.groupby("fitted"):
            spread = (points["median_ms"] - points["q1_ms"], points["q3_ms"] - points["median_ms"])
            panel.errorbar(
                points["ranks"],
                points["median_ms"],
                spread,
                fmt="o",
                ms=5,
                mfc=colour if fitted else "white",
                lw=1.2,
                c=colour,
            )


EXPERIMENT = Experiment(
    name="scaling",
    notebook="reproduce/07_beyond_one_device",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "ranks", "runs"),
    figures={
        "scaling": Plot(
            plot,
            "Time of a recurrence split over processes, forward and backward, over the number "
            "of processes, for each length and number of columns, next to the prediction of a "
            "model. Below, the time of the exchange alone.",
        ),
    },
)
