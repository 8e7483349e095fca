"""The recurrence split over ranks of this machine, beside a model of bytes and latencies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas
import torch

from lrscan.distributed import cost
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments import ranks as processes
from lrscan.experiments.registry import Experiment

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
    """Time of the recurrence split over ranks of this machine, and of the exchange alone.

    Processes of one thread each, with gloo; on GPUs one for each device, with NCCL, and no more
    ranks than devices. float32, shape (T, C). The time of a run is that of the slowest rank. Rows
    of "whole" are of one process that does not split.
    """
    where = provenance.resolve_device(device)
    lengths, features = sorted(set(lengths)), sorted(set(features))
    gpu = where.type == "cuda"
    at_once = torch.cuda.device_count() if gpu else provenance.usable_cores()
    if wrong := [n for n in ranks if n < 1]:
        raise ValueError(f"ranks are at least 1, not {wrong[0]}")
    counts = sorted(n for n in {1, *ranks} if n <= at_once or not gpu)
    parameters = {"lengths": lengths, "features": features, "ranks": counts, "runs": runs}
    measured = processes.measure(parameters | {"seed": seed, "device": where.type})
    identity = {"dtype": "float32", "layout": "TC", "B": 1, "seed": seed, "runs": runs}
    identity |= {"profile": workspace.profile()}
    rows = [identity | row for row in measured]
    parameters |= {"at_once": at_once}
    return records.write("scaling", rows, provenance.collect(where, parameters, seed))


def fitted(records: Records) -> tuple[dict[tuple[str, int], cost.Device], cost.Link | None]:
    """The model's numbers: a device for each direction and number of columns, and the link.

    The devices come from one rank at the fewest and the most steps, the link from exchanges
    between two ranks. The model predicts everything else.
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
    """How many ranks the machine runs at the same time."""
    return records.provenance["measurements"][-1]["parameters"]["at_once"]


def _seconds(rows: pandas.DataFrame, by: str) -> dict[int, float]:
    return dict(zip(rows[by], rows["median_ms"] / 1e3, strict=True))


def summarise(records: Records) -> pandas.DataFrame:
    """Return the rows of "split" with the prediction of the model (``model_ms``, ``fitted``)."""
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
    """Time of a split recurrence over the number of ranks, measured and predicted by the model.

    Each number of columns of the recurrence has a column of panels, forward above, backward below;
    on the right is the exchange alone.
    """
    table = summarise(records)
    features = sorted(table.loc[table["direction"] != "exchange", "C"].unique())
    figure, panels = canvas.axes(2, len(features) + 1, width=3.6, height=2.9)
    at_once, most = _at_once(records), table["ranks"].max()
    whole = records.table[records.table["algorithm"] == "whole"]
    for row, direction in zip(panels, _DIRECTIONS, strict=True):
        for panel, columns in zip(row, features, strict=False):
            here = _where(table, direction, columns)
            alone = _where(whole, direction, columns).set_index("T")["median_ms"]
            _draw_lines(panel, here, "T", "T = {:,}")
            colours = canvas.colours(here["T"].nunique())
            for colour, ms in zip(colours, alone.sort_index(), strict=True):
                panel.axhline(ms, c=colour, ls=":", lw=1)
            panel.set_title(f"{direction}, C = {columns}", fontsize=9)
            panel.legend(fontsize=6)
        row[0].set_ylabel("ms")
    exchange, key = panels[0][-1], panels[1][-1]
    _draw_lines(exchange, table[table["direction"] == "exchange"], "C", "C = {:,}")
    exchange.set_title("the exchange alone", fontsize=9)
    if exchange.lines:
        exchange.legend(fontsize=6)
    _draw_key(key)
    shown = [*panels[0], *panels[1][:-1]]
    limits = [limit for panel in shown if panel.lines for limit in _limits(panel)]
    for panel in shown:
        panel.set_ylim(min(limits), max(limits))
        panel.set_xticks(sorted(table["ranks"].unique()))
        panel.tick_params(labelsize=7)
        panel.minorticks_off()
        if most > at_once:
            panel.axvspan(at_once + 0.5, most + 0.5, color="0.93", zorder=0)
    for panel in (*panels[-1][:-1], exchange):
        panel.set_xlabel("ranks", fontsize=8)
    title = "A recurrence split along time over processes, float32"
    return canvas.labelled(figure, records, title, threads="a thread a rank")


def _where(table: pandas.DataFrame, direction: str, columns: int) -> pandas.DataFrame:
    return table[(table["direction"] == direction) & (table["C"] == columns)]


def _draw_lines(panel: Any, table: pandas.DataFrame, by: str, label: str) -> None:
    """Draw medians with quartiles, and the model dashed, in a colour for each value of ``by``."""
    groups = zip(
        table.groupby(by), canvas.colours(table[by].nunique()), canvas.MARKERS * 2, strict=False
    )
    for (value, line), colour, marker in groups:
        spread = (line["median_ms"] - line["q1_ms"], line["q3_ms"] - line["median_ms"])
        panel.errorbar(
            line["ranks"],
            line["median_ms"],
            spread,
            fmt=marker,
            ms=5,
            mfc="none",
            lw=1,
            c=colour,
            label=label.format(value),
        )
        panel.plot(line["ranks"], line["model_ms"], "--", lw=1, c=colour)
        ends = line[line["fitted"]]
        panel.plot(ends["ranks"], ends["model_ms"], ".", ms=4, c=colour)


def _limits(panel: Any) -> tuple[float, float]:
    panel.set_yscale("log")
    panel.autoscale_view()
    return panel.get_ylim()


def _draw_key(panel: Any) -> None:
    """Say what the signs of the other panels mean."""
    panel.axis("off")
    meanings = {
        "marker": "measured: median and quartiles",
        "dashed": "the model",
        "dot": "measured point that the model was fitted to",
        "dotted": "one process that does not split",
        "grey": "more ranks than processors: they take turns",
    }
    lines = [f"{sign}: {meaning}" for sign, meaning in meanings.items()]
    panel.text(0, 0.9, "\n\n".join(lines), fontsize=7, va="top", transform=panel.transAxes)


EXPERIMENT = Experiment(
    name="scaling",
    notebook="reproduce/07_beyond_one_device",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "ranks", "runs"),
    figures={"scaling": plot},
)
