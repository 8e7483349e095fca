"""Training throughput of the GILR-LSTM and of torch's LSTM (the heat map, claim C5)."""

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
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.verdicts import (
    CPU_HOLDS,
    HOLDS,
    NOT_REPRODUCED,
    NOT_TRIED,
    PARTLY,
    WEAKER,
    Finding,
    times,
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
    """Measure the time of a training step of GILR-LSTM and torch's LSTM, over length and minibatch.

    The other sizes are the paper's: two layers, 32 inputs, a linear read-out of two classes from
    the last output, cross-entropy. A step is forward and backward, in float32 without TF32 for both
    models. On a GPU torch's LSTM is cuDNN's. Small minibatches are measured first, and within a
    minibatch long sequences.

    Args:
        device:       "auto", "cpu" or "cuda"
        seed:         of weights and inputs
        hidden:       n of both models
        lengths:      T of the GILR-LSTM
        minibatches:  b of both
        most_events:  cells with a larger b T are left out
        lstm_lengths: T of the LSTM, whose throughput hardly depends on it
        runs:         samples of each time
        resume:       see :func:`lrscan.experiments.resume.in_pieces`, with a piece for each model,
                      length and minibatch
        until:        likewise
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
                raise RuntimeError(
                    f"{name}: loss or gradients are not finite at T = {steps}, b = {batch}"
                )
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
    """Return the training throughput of every cell of the heat map, and its ratio to the LSTM.

    Returns:
        Columns: model, T, B, C, thousand_events_per_s, and ratio, which is the throughput over that
        of the LSTM at the same minibatch, at the length at which the LSTM is fastest.
    """
    table = records.table[["model", "T", "B", "C", "median_ms"]].copy()
    table[["T", "B", "C"]] = table[["T", "B", "C"]].astype(int)
    table["thousand_events_per_s"] = table["T"] * table["B"] / table["median_ms"]
    best = table[table["model"] == "LSTM"].groupby("B")["thousand_events_per_s"].max()
    table["ratio"] = table["thousand_events_per_s"] / table["B"].map(best)
    return table.drop(columns="median_ms")


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the heat map again: training throughput over minibatch and length, and the paper's.

    Ours is on the left, the paper's on the right. Above, in cells, is the ratio to the LSTM at the
    same minibatch; below are events per second, darker for longer sequences.
    """
    ours, theirs = summarise(records), paper.heatmap()
    figure, panels = canvas.axes(2, 2, height=2.9)
    panels[1][1].sharey(panels[1][0])
    sides = [
        (ours, f"here, {ours['C'].iloc[0]} units"),
        (theirs, f"the paper ({paper.HARDWARE}), {_PAPER_HIDDEN} units"),
    ]
    for (cells, lines), (table, where) in zip(panels.T, sides, strict=True):
        _draw_ratios(cells, table)
        _draw_lines(lines, table)
        canvas.subtitle(cells, where)
        lines.set_xlabel("sequences per minibatch")
    low, high = panels[1][0].get_ylim()
    panels[1][0].set_ylim(10 ** np.floor(np.log10(low)), high)
    canvas.plain_ticks(panels[1][0], steps=(1,))
    panels[0][0].set_ylabel("sequence length T")
    panels[1][0].set_ylabel("million events per second")
    panels[1][1].tick_params(labelleft=False)
    lengths = sorted(ours.loc[ours["model"] == "GILR-LSTM", "T"])
    key = [
        canvas.mark("LSTM", *canvas.look("LSTM (torch)"), ls="-"),
        canvas.mark(
            f"GILR-LSTM, T = {lengths[0]:,} (light) to {lengths[-1]:,} (dark)",
            *canvas.look("GILR-LSTM"),
            ls="-",
        ),
    ]
    about = "Two layers, 32 inputs, float32. Cells: times as fast as the LSTM"
    return canvas.labelled(figure, records, _title(ours, theirs), about, key)


def _draw_ratios(panel: Any, table: pandas.DataFrame) -> None:
    """Draw the ratio to the LSTM in coloured cells; the colours are logarithmic."""
    import seaborn
    from matplotlib.colors import LogNorm

    ratios = table[table["model"] == "GILR-LSTM"].pivot(index="T", columns="B", values="ratio")
    ratios.index = [f"{steps:,.0f}" for steps in ratios.index]
    values = ratios.to_numpy(dtype=float)
    seaborn.heatmap(
        ratios,
        ax=panel,
        norm=LogNorm(1 / 64, 64),
        cmap="RdBu_r",
        annot=[[_ratio(value) for value in row] for row in values],
        fmt="",
        annot_kws={"size": canvas.SMALL},
        linewidths=0.5,
        cbar=False,
    )
    panel.grid(False)
    panel.set(xlabel="", ylabel="")
    panel.spines[:].set_visible(False)
    panel.tick_params(labelsize=canvas.SMALL, rotation=0, length=0, pad=2)


def _ratio(value: float) -> str:
    """Return the text of a cell, at most three characters."""
    return "" if np.isnan(value) else f"{value:.{0 if value >= 10 else 1}f}"


def _draw_lines(panel: Any, table: pandas.DataFrame) -> None:
    """Draw events per second over minibatch: the LSTM, and the GILR-LSTM for each length."""
    speed = table.assign(million_per_s=table["thousand_events_per_s"] / 1e3)
    lstm = speed[speed["model"] == "LSTM"].groupby("B")["million_per_s"].max()
    groups = speed[speed["model"] == "GILR-LSTM"].groupby("T")
    colour, marker = canvas.look("GILR-LSTM")
    for (_, line), tint in zip(groups, canvas.tints(colour, len(groups)), strict=True):
        panel.plot(line["B"], line["million_per_s"], marker=marker, ms=4, c=tint, lw=1.2)
    colour, marker = canvas.look("LSTM (torch)")
    panel.plot(lstm.index, lstm, marker=marker, ms=5, c=colour)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    canvas.length_ticks(panel, table["B"])


def _title(ours: pandas.DataFrame, theirs: pandas.DataFrame) -> str:
    """Return the finding: the ratio at the smallest minibatch and the longest sequence."""
    ratios = ours[(ours["model"] == "GILR-LSTM") & ours["ratio"].notna()]
    if ratios.empty:
        return "Training throughput of the GILR-LSTM and the LSTM"
    ratios = ratios[ratios["B"] == ratios["B"].min()]
    best = ratios.loc[ratios["T"].idxmax()]
    title = f"T = {best['T']:,}, minibatch {best['B']}: the GILR-LSTM "
    title += f"trains {canvas.short(best['ratio'])} times as fast as the LSTM"
    same = theirs[(theirs["T"] == best["T"]) & (theirs["B"] == best["B"])]
    return title if same.empty else f"{title}, in the paper {canvas.short(same['ratio'].iloc[0])}"


def verdict(records: Records) -> Finding:
    """Return the verdict on the ratio at the smallest minibatch and the longest sequence.

    The ratio is compared with the paper's if minibatch, length and width are the same.
    """
    ours = summarise(records)
    # In partial records a minibatch may lack the LSTM.
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


def headline(records: Records) -> str:
    """Return the ratio at the smallest minibatch, there at the longest sequence."""
    ratios = summarise(records).query("model == 'GILR-LSTM'").dropna(subset=["ratio"])
    ratios = ratios[ratios["B"] == ratios["B"].min()].sort_values("T")
    return "" if ratios.empty else times(ratios["ratio"].iloc[-1])


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
    figures={
        "lstm_throughput": Plot(
            plot,
            "Above, heat maps over minibatch and sequence length: how many times as fast as the "
            "LSTM the GILR-LSTM trains. Below, millions of events per second of both models "
            "over the minibatch. Ours is on the left, the paper's on the right.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
