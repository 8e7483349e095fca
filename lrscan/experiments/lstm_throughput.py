"""Training throughput of the GILR-LSTM beside torch's LSTM (the heat map, claim C5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from lrscan.evidence import paper, provenance
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, timing, training_steps
from lrscan.experiments.models import LAYERS
from lrscan.experiments.registry import Experiment
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.verdicts import (
    CPU_HOLDS,
    HOLDS,
    NOT_REPRODUCED,
    NOT_TRIED,
    PARTLY,
    WEAKER,
    Finding,
)
from lrscan.nn import GILRLSTM
from lrscan.train.precision import full_float32

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUTS, OUTPUTS = 32, 2
_PAPER_HIDDEN = 256


def measure(
    *,
    device: str,
    seed: int,
    hidden: int,
    lengths: Iterable[int],
    minibatches: Iterable[int],
    most_events: int,
    lstm_lengths: Iterable[int],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of a training step of GILR-LSTM and of torch's LSTM over length and minibatch.

    The paper's sizes otherwise: two layers, 32 inputs, a linear read-out of two classes from the
    last output, cross-entropy; forward and backward, float32 without TF32 on both sides. On a GPU
    torch's LSTM is cuDNN's. Small minibatches are measured first, and among them long sequences.

    Args:
        hidden:       n of both models
        lengths:      T of the GILR-LSTM
        minibatches:  b of both
        most_events:  cells with b T above it are left out
        lstm_lengths: T of the LSTM, whose throughput hardly depends on it
        runs:         samples of each time
        resume, until: as for :func:`lrscan.experiments.resume.in_pieces`, with a piece for each
                      model, length and minibatch
    """
    where = provenance.resolve_device(device)
    lengths_of = {"GILR-LSTM": list(lengths), "LSTM": list(lstm_lengths)}
    minibatches = list(minibatches)
    makers: dict[str, Callable[..., nn.Module]] = {"GILR-LSTM": GILRLSTM, "LSTM": nn.LSTM}
    algorithms = {"GILR-LSTM": "auto", "LSTM": "torch"}
    cells: list[dict[str, Any]] = [
        {"model": name, "T": steps, "B": batch, "C": hidden}
        for batch in sorted(minibatches)
        for name, of_model in lengths_of.items()
        for steps in sorted(of_model, reverse=True)
        if steps * batch <= most_events
    ]

    def measure_cell(number: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
        cell = cells[number]
        name, steps, batch = cell["model"], cell["T"], cell["B"]
        torch.manual_seed(seed)
        net = makers[name](INPUTS, hidden, LAYERS).to(where)
        read_out = nn.Linear(hidden, OUTPUTS).to(where)
        x = torch.randn(steps, batch, INPUTS).to(where)
        label = torch.randint(OUTPUTS, (batch,)).to(where)
        with full_float32():
            step = training_steps.of_read_out(net, read_out, x, _cross_entropy(label))
            if not all(part.isfinite().all() for part in step()):
                raise RuntimeError(f"{name}: not finite at T = {steps}, b = {batch}")
            timings = timing.time_all({algorithms[name]: step}, where, runs)
        return training_steps.rows(timings, cell, seed, runs), {}

    parameters = {
        "hidden": hidden,
        "lengths": lengths_of["GILR-LSTM"],
        "minibatches": minibatches,
        "most_events": most_events,
        "lstm_lengths": lengths_of["LSTM"],
        "runs": runs,
    }
    origin = provenance.collect(where, parameters, seed)
    return in_pieces("lstm_throughput", cells, measure_cell, origin, resume=resume, until=until)


def _cross_entropy(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: nn.functional.cross_entropy(logits, label)


def summarise(records: Records) -> pandas.DataFrame:
    """Training throughput of every cell of the heat map, and how it compares.

    Returns:
        Columns: model, T, B, C, thousand_events_per_s, and ratio: over that of the LSTM at the
        same minibatch, at whichever of its lengths it is quickest.
    """
    table = records.table[["model", "T", "B", "C", "median_ms"]].copy()
    table[["T", "B", "C"]] = table[["T", "B", "C"]].astype(int)
    table["thousand_events_per_s"] = table["T"] * table["B"] / table["median_ms"]
    best = table[table["model"] == "LSTM"].groupby("B")["thousand_events_per_s"].max()
    table["ratio"] = table["thousand_events_per_s"] / table["B"].map(best)
    return table.drop(columns="median_ms")


@own_settings()
def plot(records: Records) -> Figure:
    """The heat map again: training throughput over minibatch and length, beside the paper's.

    Ours is on the left, the paper's on the right; above are thousands of events per second, below
    the ratio to the LSTM at the same minibatch.
    """
    ours = summarise(records)
    figure, panels = canvas.axes(2, 2, width=5.4, height=4.2)
    sides = [
        (ours, f"{records.device_label}, {ours['C'].iloc[0]} hidden units"),
        (paper.heatmap(), f"the paper ({paper.HARDWARE}), {_PAPER_HIDDEN} hidden units"),
    ]
    for column, (table, where) in enumerate(sides):
        # The LSTM has one row, above those of the lengths.
        rows = table.assign(row=table["T"].fillna(0).mask(table["model"] == "LSTM", 0).astype(int))
        speed = rows.pivot_table(
            index="row", columns="B", values="thousand_events_per_s", aggfunc="max"
        )
        speed.index = ["LSTM" if t == 0 else f"{t:,}" for t in speed.index]
        ratio = rows[rows["row"] > 0].pivot(index="row", columns="B", values="ratio")
        ratio.index = [f"{t:,}" for t in ratio.index]
        _heat(panels[0][column], speed, f"thousand events/s: {where}", "viridis", None)
        _heat(panels[1][column], ratio, "GILR-LSTM over LSTM", "RdBu_r", (1 / 32, 32))
    return canvas.labelled(
        figure,
        records,
        "Training throughput, two layers, 32 inputs, float32: "
        "the LSTM and, by sequence length, the GILR-LSTM",
    )


def _heat(
    panel: Any,
    table: pandas.DataFrame,
    title: str,
    colours: str,
    limits: tuple[float, float] | None,
) -> None:
    """Draw numbers in coloured cells; the colours are logarithmic."""
    import seaborn
    from matplotlib.colors import LogNorm

    values = table.to_numpy(dtype=float)
    low, high = limits or (np.nanmin(values), np.nanmax(values))
    labels = [[_short(v) for v in row] for row in values]
    seaborn.heatmap(
        table,
        ax=panel,
        norm=LogNorm(low, max(high, low * 1.01)),
        cmap=colours,
        annot=labels,
        fmt="",
        annot_kws={"size": 7},
        linewidths=0.5,
        cbar=False,
    )
    panel.grid(False)
    panel.set_title(title, fontsize=8)
    panel.set_xlabel("minibatch b", fontsize=8)
    panel.set_ylabel("sequence length T", fontsize=8)
    panel.tick_params(labelsize=7, rotation=0)


def _short(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(records: Records) -> Finding:
    """The ratio of the heat map at its smallest minibatch and longest sequence.

    It is compared with the paper's number where that is of the same minibatch, length and width.
    """
    ours = summarise(records)
    # In a partial record a minibatch may have no LSTM yet.
    ours = ours[(ours["model"] == "GILR-LSTM") & ours["ratio"].notna()]
    ours = ours[ours["B"] == ours["B"].min()]
    if ours.empty:
        return Finding("no minibatch has both models yet", NOT_TRIED)
    longest = ours.loc[ours["T"].idxmax()]
    text = f"{longest['ratio']:.1f}x (b = {longest['B']}, T = {longest['T']:,}, n = {longest['C']})"
    if longest["ratio"] <= 1:
        return Finding(text, NOT_REPRODUCED)
    if not records.on_gpu:
        return Finding(text, CPU_HOLDS)
    theirs = paper.heatmap()
    at = theirs.loc[theirs["T"].idxmax()]
    if (longest["T"], longest["B"], longest["C"]) != (at["T"], at["B"], _PAPER_HIDDEN):
        return Finding(text, PARTLY)
    ratio = float(longest["ratio"] / at["ratio"])
    return Finding(text, HOLDS if ratio >= 1 else WEAKER, ratio)


EXPERIMENT = Experiment(
    name="lstm_throughput",
    notebook="reproduce/04_lstm_throughput",
    measure=measure,
    parameters=(
        "device",
        "seed",
        "hidden",
        "lengths",
        "minibatches",
        "most_events",
        "lstm_lengths",
        "runs",
    ),
    resumes=True,
    figures={"lstm_throughput": plot},
    verdict=verdict,
)
