"""GILR-LSTM on problem 2b at growing lengths, up to one million steps (Table 3, claim C7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas

from lrscan.evidence import paper
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, training_figures, training_runs
from lrscan.experiments.models import NAMES
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.training_runs import RIVALS, outcomes, span, spans
from lrscan.experiments.verdicts import (
    HOLDS,
    HOLDS_CURRICULUM,
    HOLDS_PRIOR,
    NOT_REPRODUCED,
    NOT_TRIED,
    Finding,
)
from lrscan.train import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHING = 0.1  # of the labels, with a curriculum up to long sequences
_MOST_EVENTS = 2**20  # in a minibatch
_ASIDE = {"LSTM": 1.3, "SerialLSTM": 1.6}  # to the right, so that marks do not hide each other
_FEWEST_OF_A_LINE = 3  # runs that learned; the median of fewer is not drawn


def measure(
    *,
    device: str,
    lengths: Sequence[int],
    lstm_lengths: Sequence[int],
    grown_lengths: Sequence[int],
    seeds: Sequence[int],
    hidden: int,
    batch: int,
    distractors: str,
    initialisations: Sequence[str],
    rate: float,
    iterations: int,
    sequences: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Train the GILR-LSTM on problem 2b at growing lengths, without a search (Table 3, last row).

    All runs of the first seed come first, then those of the next. Within a seed the GILR-LSTM comes
    first.

    Args:
        device:          "auto", "cpu" or "cuda"
        lengths:         T without a curriculum
        lstm_lengths:    lengths, with or without a curriculum, at which torch's LSTM is trained too
        grown_lengths:   lengths that a curriculum reaches, always from the initialisation "graded"
        seeds:           of the runs
        hidden:          units of a layer
        batch:           sequences in a minibatch; fewer if b T would exceed 2**20
        distractors:     see :class:`lrscan.train.Settings`
        initialisations: without a curriculum
        rate:            learning rate without a curriculum; with one it is doubled, and labels are
                         smoothed
        iterations:      after which a run gives up
        sequences:       fresh sequences for the accuracy at the end
        resume:          see :func:`lrscan.experiments.training_runs.train_all`
        until:           likewise
    """
    runs = [
        Settings(
            model=name,
            steps=steps,
            start_steps=start,
            hidden=hidden,
            batch=max(1, min(batch, _MOST_EVENTS // steps)),
            start_batch=batch if start else 0,
            distractors=distractors,
            initialisation=way,
            iterations=iterations,
            seed=seed,
            rate=2 * rate if start else rate,
            label_smoothing=_SMOOTHING if start else 0.0,
        )
        for seed, name, (steps, start) in product(seeds, RIVALS, spans(lengths, grown_lengths))
        if name == "GILRLSTM" or steps in lstm_lengths
        for way in (["graded"] if start else initialisations)
    ]
    return training_runs.train_all("long_memory", runs, device, sequences, resume, until)


@own_settings()
def plot(records: Records) -> Figure:
    """Draw iterations and time until problem 2b is learned, over its length; a mark for each run.

    A row for each initialisation or curriculum. A line joins the medians of a model over the runs
    that learned, where three or more did; a cross is a run that gave up.
    """
    table = outcomes(records)
    start = table["start_steps"]
    way = "initialisation " + table["initialisation"]
    table["way"] = way.where(start.eq(0), "lengths doubled from " + start.map("{:,}".format))
    ways = list(table.groupby("way", sort=False))
    theirs = _published()
    figure, panels = canvas.axes(len(ways), 2, height=2.3, sharex=True, sharey="col")
    columns = [("iterations", "strict_at"), ("seconds", "strict_seconds")]
    for row, (name, runs) in zip(panels, ways, strict=True):
        for panel, (value, to) in zip(row, columns, strict=True):
            _draw_runs(panel, runs, value, to)
            for model, rows in theirs.groupby("name"):
                colour, marker = canvas.look(model)
                style = canvas.hollow(marker=marker, ms=5, c=colour)
                panel.plot(rows["sequence_length"], rows[value], **style)
            panel.set_ylabel(f"{value} until learned")
            canvas.log_axes(panel, [*table["T"], *theirs["sequence_length"]])
            canvas.plain_ticks(panel, steps=(1,))
        canvas.row_title(row, f"{name.capitalize()}: {_learned(runs)}")
    for panel in panels[-1]:
        panel.set_xlabel("sequence length T")
    key = [canvas.mark(NAMES[model], *canvas.look(NAMES[model]), ls="-") for model in RIVALS]
    key += [canvas.mark("gave up", canvas.GREY, "x"), canvas.paper_mark()]
    ours = table[table["model"] == "GILRLSTM"]
    longest = ours[ours["T"] == ours["T"].max()]
    title = "Problem 2b: iterations and time until it is learned"
    if len(longest):
        title = f"{longest['strict_at'].count()} of {len(longest)} GILR-LSTM runs learned to "
        title += f"remember {longest['T'].max():,} steps ({' or '.join(longest['way'].unique())})"
    about = f"Problem 2b{training_figures.sizes(records)}, until 99% of fresh sequences are right. "
    about += "Lines: medians of three or more runs that learned. "
    about += f"The paper: {_hidden(theirs)}, until five minibatches in a row are right"
    return canvas.labelled(figure, records, title, about, key)


def _published() -> pandas.DataFrame:
    """Return the paper's Table 3 with the names, units and columns of the figure."""
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    names = dict(zip(("GILR-LSTM", "cuDNN LSTM"), (NAMES[one] for one in RIVALS), strict=True))
    return theirs.assign(
        name=theirs["model"].map(names),
        iterations=1e3 * theirs["iterations_thousands"],
        seconds=3600 * theirs["wall_hours"],
    )


def _draw_runs(panel: Any, runs: pandas.DataFrame, value: str, to: str) -> None:
    """Draw ``to`` of the runs that learned, and crosses at ``value`` of those that gave up."""
    for model, part in runs.groupby("model", sort=False):
        colour, marker = canvas.look(NAMES.get(model, model))
        part = part.assign(at=part["T"] * _ASIDE.get(model, 1.0))
        learned = part.groupby("at")[to]
        middle = learned.median()[learned.count() >= _FEWEST_OF_A_LINE]
        panel.plot(middle.index, middle, "-", lw=1.2, c=colour)
        panel.plot(part["at"], part[to], c=colour, marker=marker, ms=4, ls="", label=model)
        failed = part[part["strict_at"].isna()]
        panel.plot(failed["at"], failed[value], "x", c=colour)


def _learned(runs: pandas.DataFrame) -> str:
    """Return how many runs of each model learned, in words."""
    counts = [
        f"{part['strict_at'].count()} of {len(part)} {NAMES.get(model, model)}"
        for model, part in runs.groupby("model", sort=False)
    ]
    return f"{', '.join(counts)} learned"


def _hidden(published: pandas.DataFrame) -> str:
    """Return the units of the paper's models, as "512 units (64 at T = 1,048,576)"."""
    usual = published["hidden"].mode().iloc[0]
    others = published[published["hidden"] != usual]
    at_lengths = [f"{row.hidden} at T = {row.sequence_length:,}" for row in others.itertuples()]
    return f"{usual} units" + (f" ({', '.join(at_lengths)})" if at_lengths else "")


def plot_curves(records: Records) -> Figure:
    """Draw the learning curves at the longest length."""
    curves = training_runs.curves(records)
    return training_figures.learning_curves(records, curves[curves["T"] == curves["T"].max()])


def verdict(records: Records) -> Finding:
    """Return the longest length that was learned, and the longer ones that were not, in three ways.

    The ways are an initialisation that knows where to look, a curriculum of growing lengths, and
    neither of the two.
    """
    every = outcomes(records)
    table = every[every["model"] == "GILRLSTM"]
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    million = theirs.loc[theirs["sequence_length"].idxmax()]
    far = million["sequence_length"]
    sentences, ratio = [], None
    verdict = NOT_REPRODUCED if (table["T"] >= far).any() else NOT_TRIED
    prior, grown = table["initialisation"] == "early", table["start_steps"] > 0
    for runs, holds in (
        (table[prior], HOLDS_PRIOR),
        (table[grown & ~prior], HOLDS_CURRICULUM),
        (table[~grown & ~prior], HOLDS),
    ):
        if runs.empty:
            continue
        learned = runs[runs["strict_at"].notna()]
        steps = learned["T"].max() if len(learned) else 0
        longest = learned[learned["T"] == steps]
        parts = [
            f"{span(length, part['start_steps'].iloc[0])}, "
            f"{part['strict_at'].count()} of {len(part)} runs learned"
            for length, part in runs[runs["T"] >= steps].groupby("T")
        ]
        if len(longest):
            iterations, seconds = longest["strict_at"].mean(), longest["strict_seconds"].mean()
            took = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.2g} s"
            parts[0] += f", {iterations:,.0f} iterations, {took}"
        sentences.append(f"{runs['initialisation'].iloc[0]}: {'; '.join(parts)}")
        if steps >= far and 2 * len(longest) > (runs["T"] == steps).sum():
            verdict = holds
            # The paper describes neither a prior nor a curriculum: iterations compare without them.
            if holds == HOLDS:
                ratio = float(iterations / (1e3 * million["iterations_thousands"]))
    rival = every[(every["model"] == "LSTM") & (every["T"] >= far)]
    if rival.empty:
        sentences.append(f"an LSTM was not tried at T = {far:,}")
    else:
        sentences.append(
            f"{rival['strict_at'].count()} of {len(rival)} runs of an LSTM learned T = {far:,}"
        )
    return Finding("; ".join(sentences), verdict, ratio)


def headline(records: Records) -> str:
    """Return the longest length that the GILR-LSTM learned in any way."""
    table = outcomes(records).query("model == 'GILRLSTM'").dropna(subset=["strict_at"])
    return "" if table.empty else f"{table['T'].max():,} steps"


EXPERIMENT = Experiment(
    name="long_memory",
    notebook="reproduce/06_one_million_steps",
    measure=measure,
    parameters=(
        "device",
        "lengths",
        "lstm_lengths",
        "grown_lengths",
        "seeds",
        "hidden",
        "batch",
        "distractors",
        "initialisations",
        "rate",
        "iterations",
        "sequences",
    ),
    resumes=True,
    figures={
        "long_memory": Plot(
            plot,
            "Iterations and seconds until problem 2b is learned, over sequence length, with a "
            "row of panels for each initialisation and for the curriculum. A marker is a run, a "
            "cross a run that gave up. Hollow markers are the paper's numbers for 1,024, 8,192 "
            "and 1,048,576 steps.",
        ),
        "long_memory_curves": Plot(
            plot_curves,
            "Accuracy on minibatches over wall time at the longest length, mean and "
            "deviation over the seeds, with a panel for runs with a curriculum and one "
            "for runs without.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
