"""What the figures of training have in common: colours of models, titles, and learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas

from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments.models import NAMES
from lrscan.experiments.training_runs import span

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def colours() -> dict[str, Any]:
    """The colour of each model."""
    return dict(zip(NAMES, canvas.colours(len(NAMES)), strict=True))


def logarithmic(panel: Any) -> None:
    """Make both axes logarithmic."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.tick_params(labelsize=7)


def sizes(records: Records) -> str:
    """ ", distractors any, 128 hidden units, minibatch 8", as far as all runs share it."""
    table, shared = records.table, ""
    words = {"distractors": "distractors {}", "C": "{} hidden units", "B": "minibatch {}"}
    for column, phrase in words.items():
        if table[column].nunique() == 1:
            shared += f", {phrase.format(table[column].iloc[0])}"
    return shared


@own_settings()
def learning_curves(records: Records, curves: pandas.DataFrame) -> Figure:
    """Accuracy over wall time, mean and deviation over the seeds; a panel for each task.

    A dot is the end of the longest run of a model; the legend counts the runs that learned.

    Args:
        curves: :func:`lrscan.experiments.training_runs.curves` of the records, or a part of them
    """
    tasks = list(curves.groupby(["start_steps", "T", "distractors"]))
    columns = min(len(tasks), 2)
    figure, panels = canvas.axes(-(-len(tasks) // columns), columns, width=5.4, height=3.6)
    colour_of = colours()
    for panel in panels.flat[len(tasks) :]:
        panel.remove()
    for panel, ((start, steps, distractors), part) in zip(panels.flat, tasks, strict=False):
        panel.axhline(0.5, c="0.6", lw=1, ls=":")
        for (model, units), line in part.groupby(["model", "C"], sort=False):
            colour = colour_of.get(model)
            last = line.iloc[-1]
            label = f"{NAMES.get(model, model)}, {units} hidden"
            label += f", {last['learned']} of {last['runs']} learned"
            style = "-" if units == part["C"].min() else "--"
            panel.plot(line["seconds"], line["mean"], label=label, c=colour, ls=style)
            panel.plot(last["seconds"], last["mean"], "o", ms=4, c=colour)
            low, high = line["mean"] - line["deviation"], line["mean"] + line["deviation"]
            panel.fill_between(line["seconds"], low, high.clip(upper=1), color=colour, alpha=0.12)
        smoothing = f"moving average of {part['smoothing'].iloc[0]} iterations"
        panel.set_title(f"{span(steps, start, distractors)}; {smoothing}", fontsize=9)
        panel.set_xscale("log")
        panel.set_ylim(0.3, 1.02)
        panel.set_xlabel("wall time, seconds")
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18))  # below
    for row in panels:
        row[0].set_ylabel("accuracy on minibatches")
    title = f"Problem 2b{sizes(records)}\nmean and deviation over seeds"
    return canvas.labelled(figure, records, title)
