"""Search for initialisation and learning rate on problem 2b, with seeds of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas

from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, training_figures, training_runs
from lrscan.experiments.models import NAMES
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.training_runs import RIVALS, SEARCHED, TASK, outcomes, span, spans
from lrscan.train import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FINALISTS, _FINALIST_SEEDS = 4, 3


def measure(
    *,
    device: str,
    seed: int,
    lengths: Sequence[int],
    grown_lengths: Sequence[int],
    hidden: int,
    batch: int,
    initialisations: Sequence[str],
    rates: Sequence[float],
    iterations: int,
    sequences: int,
    names: Sequence[str] = RIVALS,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Search for the best settings on problem 2b: each one once, then the best with more seeds.

    The first runs take every model, initialisation and rate at the shortest length, without a
    curriculum and with one. Then the finalists, the four best of each model, run at every length
    with three seeds.

    Args:
        device:          "auto", "cpu" or "cuda"
        seed:            of the first runs; the finalists run with the next two as well
        lengths:         T without a curriculum
        grown_lengths:   lengths that a curriculum reaches
        hidden:          units of a layer
        batch:           sequences in a minibatch
        initialisations: to try
        rates:           learning rates to try
        iterations:      after which a run gives up
        sequences:       fresh sequences for the accuracy at the end
        names:           of models, see :class:`lrscan.train.Settings`
        resume:          see :func:`lrscan.experiments.training_runs.train_all`
        until:           likewise
    """

    def run(
        name: str, initialisation: str, rate: float, task: tuple[int, int], seed: int
    ) -> Settings:
        return Settings(
            model=name,
            steps=task[0],
            start_steps=task[1],
            hidden=hidden,
            batch=batch,
            initialisation=initialisation,
            rate=rate,
            iterations=iterations,
            seed=seed,
        )

    first = [
        run(name, initialisation, rate, task, seed)
        for task, name, initialisation, rate in product(
            spans(sorted(lengths)[:1], sorted(grown_lengths)[:1]), names, initialisations, rates
        )
    ]
    given = (device, sequences)
    measured = training_runs.train_all("problem_2b_search", first, *given, resume, until)
    table = outcomes(measured)
    table = ranked(table[table["run"].isin([one.name() for one in first])])
    best = table.groupby(["model", "start_steps"]).head(_FINALISTS)
    again = [
        run(one.model, one.initialisation, one.rate, task, seed + number)
        for task in spans(sorted(lengths), sorted(grown_lengths))
        for one in best[best["start_steps"] == task[1]].itertuples()
        for number in range(_FINALIST_SEEDS)
    ]
    return training_runs.train_all("problem_2b_search", again, *given, resume, until, measured)


def ranked(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the settings of a search, the best first, for every model and task.

    Settings with the most seeds come first, so that one run is not compared with three. The further
    order is by the number of seeds that met the strict criterion, the median of the iterations to
    it, and the accuracy on fresh sequences at the end.

    Args:
        table: from :func:`lrscan.experiments.training_runs.outcomes` of the search

    Returns:
        Columns: model, distractors, T, start_steps, initialisation, rate, seeds, learned (how many
        seeds), iterations (their median; infinite if half or more did not learn), held_out (mean).
    """
    table = table.assign(iterations=table["strict_at"].fillna(np.inf))
    settings = table.groupby(["model", *TASK, *SEARCHED], sort=False).agg(
        seeds=("seed", "size"),
        learned=("strict_at", "count"),
        iterations=("iterations", "median"),
        held_out=("held_out", "mean"),
    )
    order = settings.reset_index().sort_values(
        ["seeds", "learned", "iterations", "held_out"],
        ascending=[False, False, True, False],
        kind="stable",
    )
    return order.sort_values([*TASK, "model"], kind="stable", ignore_index=True)


def chosen(search: Records) -> pandas.DataFrame:
    """Return the best settings of a search for each model and task, see :func:`ranked`."""
    return ranked(outcomes(search)).groupby(["model", *TASK], sort=False).head(1)


def search_records(device: str) -> Records:
    """Return the records of a search: of this run, else the committed ones, else another device's.

    Raises:
        FileNotFoundError: there are none
    """
    where = provenance.device_slug(device)
    own, committed = workspace.records_folder(), workspace.committed_records()
    places = [(own, where), (committed, where)]
    places += [(committed, other) for other in records.devices("problem_2b_search")]
    for folder, slug in places:
        if (found := records.find("problem_2b_search", slug, directory=folder)) is not None:
            return found
    raise FileNotFoundError("there are no records of a search; run: lrscan bench problem_2b_search")


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the iterations to the strict criterion over the learning rate.

    Each length and start has a row of panels, each model a column. A mark is a run, a cross one
    that gave up; lines join the medians over the seeds, where more than half of them learned.
    """
    table = outcomes(records)
    tasks, models = list(table.groupby(["start_steps", "T"])), list(table["model"].unique())
    ways = [name for name in canvas.LOOKS if (table["initialisation"] == name).any()]
    figure, panels = canvas.axes(len(tasks), len(models), height=2.2, sharex=True, sharey=True)
    least = table[["strict_at", "iterations"]].min().min()
    rates = sorted(table["rate"].unique())
    for number, (row, ((start, steps), part)) in enumerate(zip(panels, tasks, strict=True)):
        for panel, model in zip(row, models, strict=True):
            runs = part[part["model"] == model]
            for k, way in enumerate(ways):
                colour, marker = canvas.look(way)
                of = runs[runs["initialisation"] == way]
                of = of.assign(rate=of["rate"] * 1.05 ** (k - 1))  # side by side
                line = of["strict_at"].fillna(np.inf).groupby(of["rate"]).median()
                panel.plot(line.where(np.isfinite(line)), c=colour, lw=1.2)
                panel.plot(of["rate"], of["strict_at"], marker, ms=5, c=colour)
                failed = of[of["strict_at"].isna()]
                panel.plot(failed["rate"], failed["iterations"], "x", c=colour)
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xticks(rates, [_rate(rate) for rate in rates])
            panel.minorticks_off()
            panel.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
            panel.set_ylim(least / 1.5, 1.5 * table["iterations"].max())
            canvas.plain_ticks(panel)
            heading = f"{NAMES.get(model, model)}\n" if number == 0 else ""
            canvas.subtitle(panel, heading + span(steps, start))
    for panel in panels[-1]:
        panel.set_xlabel("learning rate in thousandths")
    for row in panels:
        row[0].set_ylabel("iterations")
    key = [canvas.mark(way, *canvas.look(way), ls="-") for way in ways]
    key.append(canvas.mark("gave up", canvas.GREY, "x"))
    # The first run of every setting: later ones are of the best settings only.
    first = table[(table["T"] == table["T"].min()) & (table["seed"] == table["seed"].min())]
    learned = (
        f"{runs['strict_at'].count()} of {len(runs)} with {way}"
        for way, runs in ((way, first[first["initialisation"] == way]) for way in ways)
    )
    title = f"One run per setting at T = {first['T'].iloc[0]:,} learned in {', '.join(learned)}"
    about = f"Problem 2b{training_figures.sizes(records)}; "
    about += "iterations until 99% of fresh sequences are right"
    return canvas.labelled(figure, records, title, about, key)


def _rate(rate: float) -> str:
    """Return a learning rate in thousandths."""
    return f"{1e3 * rate:g}"


EXPERIMENT = Experiment(
    name="problem_2b_search",
    notebook="reproduce/05_problem_2b",
    measure=measure,
    parameters=(
        "device",
        "seed",
        "lengths",
        "grown_lengths",
        "hidden",
        "batch",
        "initialisations",
        "rates",
        "iterations",
        "sequences",
    ),
    options=("names",),
    resumes=True,
    figures={
        "problem_2b_search": Plot(
            plot,
            "Iterations until problem 2b is learned, over the learning rate, for each "
            "initialisation. There is a panel for each model and length of the search. "
            "A cross is a run that gave up.",
        ),
    },
)
