"""The search on problem 2b, with a seed of its own, for initialisation and learning rate."""

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
from lrscan.experiments.registry import Experiment
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
    """Search for the settings of the reported runs: every one once, then the best with more seeds.

    First every model, initialisation and rate at the shortest length, without a curriculum and with
    one. Then the finalists, the four best of each model, at every length, with three seeds.

    Args:
        seed:          of the first runs; the finalists have the next two as well
        grown_lengths: lengths that a curriculum reaches
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken
        names:         of models, see :class:`lrscan.train.Settings`
        resume, until: as for :func:`lrscan.experiments.training_runs.train_all`
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
    """The settings of a search, the best first, for every model and task.

    Those with the most seeds come first, so that one run is not compared with three. Then the order
    is by how many seeds met the strict criterion, the median of the iterations to it, and the
    accuracy on fresh sequences at the end.

    Args:
        table: :func:`lrscan.experiments.training_runs.outcomes` of the search

    Returns:
        Columns: model, distractors, T, start_steps, initialisation, rate, seeds, learned (how many
        of them), iterations (their median; infinite: half or more did not learn), held_out (mean).
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
    """The best settings of a search, as :func:`ranked` has them: a row for each model and task."""
    return ranked(outcomes(search)).groupby(["model", *TASK], sort=False).head(1)


def search_records(device: str) -> Records:
    """The search of this run on this device, else the committed one, else one of any device.

    Raises:
        FileNotFoundError: there is none
    """
    where = provenance.device_slug(device)
    own, committed = workspace.records_folder(), workspace.committed_records()
    places = [(own, where), (committed, where)]
    places += [(committed, other) for other in records.devices("problem_2b_search")]
    for folder, slug in places:
        if (found := records.find("problem_2b_search", slug, directory=folder)) is not None:
            return found
    raise FileNotFoundError("there is no search yet: lrscan bench problem_2b_search")


@own_settings()
def plot(records: Records) -> Figure:
    """Iterations to the strict criterion over the learning rate.

    Each length, start and model has a panel. A mark is a run, a cross one that gave up; lines join
    the medians over the seeds, where more than half of them learned.
    """
    table = outcomes(records)
    tasks, models = list(table.groupby(["start_steps", "T"])), list(table["model"].unique())
    ways = list(table["initialisation"].unique())
    figure, panels = canvas.axes(len(tasks), len(models), width=3.8, height=2.6)
    colours = canvas.colours(len(ways))
    least = table[["strict_at", "iterations"]].min().min()
    rates = sorted(table["rate"].unique())
    for row, ((start, steps), part) in zip(panels, tasks, strict=True):
        for panel, model in zip(row, models, strict=True):
            runs = part[part["model"] == model]
            styles = zip(ways, colours, canvas.MARKERS, strict=False)
            for k, (way, colour, marker) in enumerate(styles):
                of = runs[runs["initialisation"] == way]
                of = of.assign(rate=of["rate"] * 1.05 ** (k - 1))  # side by side
                line = of["strict_at"].fillna(np.inf).groupby(of["rate"]).median()
                panel.plot(line.where(np.isfinite(line)), c=colour)
                panel.plot(of["rate"], of["strict_at"], marker, c=colour, label=way)
                failed = of[of["strict_at"].isna()]
                panel.plot(failed["rate"], failed["iterations"], "x", c=colour)
            training_figures.logarithmic(panel)
            panel.set_xticks(rates, [f"{rate:g}" for rate in rates])
            panel.minorticks_off()
            panel.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
            panel.set_ylim(least / 1.5, 1.5 * table["iterations"].max())
            canvas.plain_ticks(panel)
            panel.set_title(f"{NAMES.get(model, model)}, {span(steps, start)}", fontsize=9)
    canvas.outer_labels(panels, "learning rate", "iterations")
    canvas.legend_beside(figure, panels[0][0], size=8)
    return canvas.labelled(
        figure,
        records,
        f"Search on problem 2b{training_figures.sizes(records)}\n"
        "iterations until 99% of fresh sequences are right (cross: gave up)",
    )


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
    figures={"problem_2b_search": plot},
)
