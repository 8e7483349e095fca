"""Common parts of the figures of training: sizes in words, and learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas

from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments.models import NAMES
from lrscan.experiments.training_runs import span

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sizes(records: Records) -> str:
    """Return the sizes that all runs share, as ", 128 hidden units, minibatch 8"."""
    table, shared = records.table, ""
    words = {"distractors": "distractors {}", "C": "{} hidden units", "B": "minibatch {}"}
    for column, phrase in words.items():
        if table[column].nunique() == 1:
            shared += f", {phrase.format(table[column].iloc[0])}"
    return shared


@own_settings()
def learning_curves(records: Records, curves: pandas.DataFrame) -> Figure:
    """Draw accuracy over wall time, mean and deviation over the seeds; a panel for each task.

    A dot is the end of the longest run of a model; the legend counts the runs that learned.

    Args:
        records: of training runs
        curves:  :func:`lrscan.experiments.training_runs.curves` of the records, or a part of them
    """
    tasks = list(curves.groupby(["start_steps", "T", "distractors"]))
    columns = min(len(tasks), 2)
    figure, panels = canvas.axes(-(-len(tasks) // columns), columns, height=3.0, sharey=True)
    for panel in panels.flat[len(tasks) :]:
        panel.remove()
    for panel, ((start, steps, distractors), part) in zip(panels.flat, tasks, strict=False):
        panel.axhline(0.5, c=canvas.GREY, lw=1, ls=":")
        for (model, units), line in part.groupby(["model", "C"], sort=False):
            name = NAMES.get(model, model)
            colour, last = canvas.look(name).colour, line.iloc[-1]
            label = f"{name}, {units} units: {last['learned']} of {last['runs']} learned"
            style = "-" if units == part["C"].min() else "--"
            panel.plot(line["seconds"], line["mean"], label=label, c=colour, ls=style)
            panel.plot(last["seconds"], last["mean"], "o", ms=5, c=colour)
            low, high = line["mean"] - line["deviation"], line["mean"] + line["deviation"]
            panel.fill_between(line["seconds"], low, high.clip(upper=1), color=colour, alpha=0.12)
        canvas.subtitle(panel, span(steps, start, distractors))
        panel.set_xscale("log")
        canvas.plain_ticks(panel, steps=(1,), axis="x")
        panel.set_ylim(0, 1.03)
        panel.legend(fontsize=canvas.SMALL, loc="lower left", borderpad=0.2, handlelength=1.5)
    for panel in panels[-1]:
        panel.set_xlabel("seconds of training")
    for row in panels:
        row[0].set_ylabel("accuracy on minibatches")
    about = f"Problem 2b{sizes(records)}. Moving averages of {_smoothing(curves)}; "
    about += "lines and bands: mean and deviation over seeds; dots: end of the longest run"
    return canvas.labelled(figure, records, _title(curves), about)


def _smoothing(curves: pandas.DataFrame) -> str:
    """Return the length of the moving averages in words, for each T if they differ."""
    by_length = dict(zip(curves["T"], curves["smoothing"], strict=True))
    if len({*by_length.values()}) == 1:
        return f"{curves['smoothing'].iloc[0]} iterations"
    parts = [f"{count} at T = {steps:,}" for steps, count in sorted(by_length.items())]
    return f"iterations ({', '.join(parts)})"


def _title(curves: pandas.DataFrame) -> str:
    """Return the finding: how many runs of each model learned, over all tasks and widths."""
    groups = curves.groupby(["model", "T", "start_steps", "distractors", "C"], sort=False)
    counts = groups[["learned", "runs"]].first().groupby(level="model", sort=False).sum()
    parts = [
        f"{row.learned} of {row.runs} runs of the {NAMES.get(row.Index, row.Index)}"
        for row in counts.itertuples()
    ]
    return f"{' and '.join(parts)} learned to remember the first input"
