"""The GILR-LSTM on problem 2b at growing lengths, to one million steps (Table 3, claim C7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import pandas

from lrscan.evidence import paper
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, training_figures, training_runs
from lrscan.experiments.models import NAMES
from lrscan.experiments.registry import Experiment
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

_SMOOTHING = 0.1  # of the labels of a curriculum, up to long sequences
_MOST_EVENTS = 2**20  # of a minibatch of a long sequence
_ASIDE = {"LSTM": 1.15, "SerialLSTM": 1.3}  # to the right, so that marks do not hide each other
_FEWEST_OF_A_LINE = 3  # runs that learned


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
    """Runs of the GILR-LSTM at growing lengths, without a search (Table 3, the last row).

    One seed of everything comes first, then the next, and of every seed the GILR-LSTM first.

    Args:
        grown_lengths: lengths that a curriculum reaches, always from the initialisation "graded"
        lstm_lengths:  those among all these at which torch's LSTM is trained too, likewise
        batch:         sequences in a minibatch, fewer where b T would exceed 2**20
        rate:          learning rate without a curriculum; twice that, and smoothed labels, with one
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken, likewise
        resume, until: as for :func:`lrscan.experiments.training_runs.train_all`
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
    """Iterations and time until problem 2b is learned, over its length; a mark for each run.

    A line joins the medians of a model and an initialisation or curriculum, over the runs that
    learned, where three or more did; a cross is a run that gave up.
    """
    table = outcomes(records)
    figure, panels = canvas.axes(1, 2, width=4.8, height=3.8)
    colour_of = training_figures.colours()
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    theirs["iterations"] = 1e3 * theirs["iterations_thousands"]
    theirs["seconds"] = 3600 * theirs["wall_hours"]
    start = table["start_steps"]
    way = table["initialisation"].where(start.eq(0), "lengths doubled from " + start.astype(str))
    table = table.assign(way=way)
    markers = dict(zip(way.unique(), canvas.MARKERS, strict=False))
    ticks = sorted({*table["T"], *theirs["sequence_length"]})
    for panel, (value, to) in zip(
        panels[0], [("iterations", "strict_at"), ("seconds", "strict_seconds")], strict=True
    ):
        for (model, kind), runs in table.groupby(["model", "way"], sort=False):
            colour = colour_of.get(model)
            runs = runs.assign(at=runs["T"] * _ASIDE.get(model, 1.0))
            learned = runs.groupby("at")[to]
            middle = learned.median()[learned.count() >= _FEWEST_OF_A_LINE]
            panel.plot(middle.index, middle, "-", lw=1, c=colour)
            failed = runs[runs["strict_at"].isna()]
            label = f"{NAMES.get(model, model)}, {kind}"
            label += f" ({len(failed)} of {len(runs)} gave up)" if len(failed) else ""
            panel.plot(
                runs["at"], runs[to], label=label, c=colour, marker=markers[kind], ms=4, ls=""
            )
            panel.plot(failed["at"], failed[value], "x", c=colour)
        for model, name in zip(RIVALS, ("GILR-LSTM", "cuDNN LSTM"), strict=True):
            published = theirs[theirs["model"] == name]
            panel.plot(
                published["sequence_length"],
                published[value],
                "s",
                mfc="none",
                ls=":",
                lw=1,
                c=colour_of[model],
                label=f"{name}, paper ({paper.HARDWARE}),\nfive minibatches in a row right,\n"
                f"{_hidden(published)} hidden units",
            )
        training_figures.logarithmic(panel)
        panel.set_xscale("log", base=2)
        canvas.length_ticks(panel, ticks)
        panel.set_xlabel("sequence length T")
        panel.set_ylabel(value)
    canvas.legend_beside(figure, panels[0][0], size=7)
    return canvas.labelled(
        figure,
        records,
        f"Problem 2b{training_figures.sizes(records)}\n"
        "until 99% of fresh sequences are right\n"
        "(cross: a run that gave up; line: median of three or more that learned)",
    )


def _hidden(published: pandas.DataFrame) -> str:
    """ "512, 64 at T = 1,048,576", as the lengths of a model have them."""
    usual = published["hidden"].mode().iloc[0]
    others = published[published["hidden"] != usual]
    at_lengths = [f"{row.hidden} at T = {row.sequence_length:,}" for row in others.itertuples()]
    return ", ".join([str(usual), *at_lengths])


def plot_curves(records: Records) -> Figure:
    """The learning curves at the longest length."""
    curves = training_runs.curves(records)
    return training_figures.learning_curves(records, curves[curves["T"] == curves["T"].max()])


def verdict(records: Records) -> Finding:
    """The longest length that was learned, in each of three ways, and longer ones that were not.

    The ways: from an initialisation that knows where to look, by a curriculum of growing lengths,
    and with neither.
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
    figures={"long_memory": plot, "long_memory_curves": plot_curves},
    verdict=verdict,
)
