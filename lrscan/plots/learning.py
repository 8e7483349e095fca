"""Figures of training on problem 2b: learning curves, the search, and growth with length."""

from __future__ import annotations

import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure

from lrscan.bench.trained import span
from lrscan.evidence import paper
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.plots.canvas import MARKERS, axes, labelled, plain_ticks

NAMES = {"GILRLSTM": "GILR-LSTM", "LSTM": "LSTM (torch)", "SerialLSTM": "LSTM (the paper's)"}
_COLOURS = dict(zip(NAMES, seaborn.color_palette("colorblind"), strict=False))
_ASIDE = {"LSTM": 1.15, "SerialLSTM": 1.3}  # to the right, so that marks do not hide each other


@own_settings()
def learning_curves(records: Records, curves: pandas.DataFrame) -> Figure:
    """Accuracy over wall time, mean and deviation over the seeds; a panel a task.

    A dot is the end of the longest run of a model; the legend counts the runs that learned.

    ``curves`` is :func:`lrscan.bench.curves` of the records.
    """
    tasks = list(curves.groupby(["start_steps", "T", "distractors"]))
    columns = min(len(tasks), 2)
    figure, panels = axes(-(-len(tasks) // columns), columns, width=5.4, height=3.6)
    for panel in panels.flat[len(tasks) :]:
        panel.remove()
    for panel, ((start, steps, distractors), part) in zip(panels.flat, tasks, strict=False):
        panel.axhline(0.5, c="0.6", lw=1, ls=":")
        for (model, units), line in part.groupby(["model", "C"], sort=False):
            style = {"c": _COLOURS.get(model), "ls": "-" if units == part["C"].min() else "--"}
            last = line.iloc[-1]
            told = f"{NAMES.get(model, model)}, {units} hidden"
            told += f", {last['learned']} of {last['runs']} learned"
            panel.plot(line["seconds"], line["mean"], label=told, **style)
            panel.plot(last["seconds"], last["mean"], "o", ms=4, c=style["c"])
            low, high = line["mean"] - line["deviation"], line["mean"] + line["deviation"]
            panel.fill_between(
                line["seconds"], low, high.clip(upper=1), color=style["c"], alpha=0.12
            )
        smoothing = f"moving average of {part['smoothing'].iloc[0]} iterations"
        panel.set_title(f"{span(steps, start, distractors)}; {smoothing}", fontsize=9)
        panel.set_xscale("log")
        panel.set_ylim(0.3, 1.02)
        panel.set_xlabel("wall time, seconds")
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18))  # below
    for row in panels:
        row[0].set_ylabel("accuracy on minibatches")
    title = f"Problem 2b{_sizes(records)}\nmean and deviation over seeds"
    return labelled(figure, records, title)


@own_settings()
def search(records: Records, outcomes: pandas.DataFrame) -> Figure:
    """Iterations to the strict criterion over the learning rate; a panel a length, start and model.

    ``outcomes`` is :func:`lrscan.bench.outcomes` of the records. A mark is a run, a cross one that
    gave up; lines join the medians over the seeds, where more than half of them learned.
    """
    spans, models = list(outcomes.groupby(["start_steps", "T"])), list(outcomes["model"].unique())
    ways = list(outcomes["initialisation"].unique())
    figure, panels = axes(len(spans), len(models), width=3.8, height=2.6)
    colours = seaborn.color_palette("colorblind", len(ways))
    least = outcomes[["strict_at", "iterations"]].min().min()
    for row, ((start, steps), part) in zip(panels, spans, strict=True):
        for panel, model in zip(row, models, strict=True):
            runs = part[part["model"] == model]
            for k, (way, colour, marker) in enumerate(zip(ways, colours, MARKERS, strict=False)):
                of = runs[runs["initialisation"] == way]
                of = of.assign(rate=of["rate"] * 1.05 ** (k - 1))  # side by side
                line = of["strict_at"].fillna(np.inf).groupby(of["rate"]).median()
                panel.plot(line.where(np.isfinite(line)), c=colour)
                panel.plot(of["rate"], of["strict_at"], marker, c=colour, label=way)
                failed = of[of["strict_at"].isna()]
                panel.plot(failed["rate"], failed["iterations"], "x", c=colour)
            _logarithmic(panel)
            rates = sorted(outcomes["rate"].unique())
            panel.set_xticks(rates, [f"{rate:g}" for rate in rates])
            panel.minorticks_off()
            panel.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
            panel.set_ylim(least / 1.5, 1.5 * outcomes["iterations"].max())
            plain_ticks(panel)
            panel.set_title(f"{NAMES.get(model, model)}, {span(steps, start)}", fontsize=9)
        row[0].set_ylabel("iterations")
    for panel in panels[-1]:
        panel.set_xlabel("learning rate")
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return labelled(
        figure, records,
        f"Search on problem 2b{_sizes(records)}\n"
        "iterations until 99% of fresh sequences are right (cross: gave up)",
    )  # fmt: skip


@own_settings()
def growth(records: Records, outcomes: pandas.DataFrame) -> Figure:
    """Iterations and time until problem 2b is learned, over its length; a mark a run.

    ``outcomes`` is :func:`lrscan.bench.outcomes` of the records. A line joins the medians of a
    model and an initialisation or curriculum, over the runs that learned, where three or more
    did; a cross is a run that gave up.
    """
    figure, panels = axes(1, 2, width=4.8, height=3.8)
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    theirs["iterations"] = 1e3 * theirs["iterations_thousands"]
    theirs["seconds"] = 3600 * theirs["wall_hours"]
    start = outcomes["start_steps"]
    way = outcomes["initialisation"].where(start.eq(0), "lengths doubled from " + start.astype(str))
    outcomes = outcomes.assign(way=way)
    markers = dict(zip(way.unique(), MARKERS, strict=False))
    ticks = sorted({*outcomes["T"], *theirs["sequence_length"]})
    for panel, (value, to) in zip(
        panels[0], [("iterations", "strict_at"), ("seconds", "strict_seconds")], strict=True
    ):
        for (model, way), runs in outcomes.groupby(["model", "way"], sort=False):
            style = {"c": _COLOURS.get(model), "marker": markers[way], "ms": 4, "ls": ""}
            runs = runs.assign(at=runs["T"] * _ASIDE.get(model, 1.0))
            learned = runs.groupby("at")[to]
            middle = learned.median()[learned.count() >= 3]
            panel.plot(middle.index, middle, "-", lw=1, c=style["c"])
            failed = runs[runs["strict_at"].isna()]
            told = f"{NAMES.get(model, model)}, {way}"
            told += f" ({len(failed)} of {len(runs)} gave up)" if len(failed) else ""
            panel.plot(runs["at"], runs[to], label=told, **style)
            panel.plot(failed["at"], failed[value], "x", c=style["c"])
        for model, name in {"GILRLSTM": "GILR-LSTM", "LSTM": "cuDNN LSTM"}.items():
            published = theirs[theirs["model"] == name]
            panel.plot(
                published["sequence_length"], published[value], "s", mfc="none", ls=":", lw=1,
                c=_COLOURS[model],
                label=f"{name}, paper ({paper.HARDWARE}),\nfive minibatches in a row right,\n"
                f"{_hidden(published)} hidden units",
            )  # fmt: skip
        _logarithmic(panel)
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=35, ha="right", fontsize=7)
        panel.set_xlabel("sequence length T")
        panel.set_ylabel(value)
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
    return labelled(
        figure, records,
        f"Problem 2b{_sizes(records)}\n"
        "until 99% of fresh sequences are right\n"
        "(cross: a run that gave up; line: median of three or more that learned)",
    )  # fmt: skip


def _hidden(published: pandas.DataFrame) -> str:
    """"512, 64 at T = 1,048,576", as the lengths of a model have them."""
    usual = published["hidden"].mode().iloc[0]
    others = published[published["hidden"] != usual]
    told = [f"{row.hidden} at T = {row.sequence_length:,}" for row in others.itertuples()]
    return ", ".join([str(usual), *told])


def _logarithmic(panel) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.tick_params(labelsize=7)


def _sizes(records: Records) -> str:
    """", distractors any, 128 hidden units, minibatch 8", as far as all runs share it."""
    table, told = records.table, []
    for column, words in {
        "distractors": "distractors {}", "C": "{} hidden units", "B": "minibatch {}",
    }.items():  # fmt: skip
        if table[column].nunique() == 1:
            told.append(words.format(table[column].iloc[0]))
    return "".join(f", {one}" for one in told)
