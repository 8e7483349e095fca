"""Training on problem 2b as an experiment: a search with its own seed, then runs with others."""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
import torch

from lrscan.bench.pieces import Failures, Paused
from lrscan.bench.registry import experiment
from lrscan.bench.trained import SEARCHED, chosen, outcomes, ranked, span
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.records import Records
from lrscan.train import DIVERGED, NOT_LEARNED, PAUSED, Settings, files, train
from lrscan.train.settings import Classifier

_log = logging.getLogger(__name__)

RIVALS = ("GILRLSTM", "LSTM")
_FINALISTS, _FINALIST_SEEDS = 4, 3
_START = 128  # steps of the first sequences of a curriculum
_SMOOTHING = 0.1  # of its labels, up to long sequences
_MOST_EVENTS = 2**20  # of a minibatch of a long sequence


@experiment("reproduce/05_problem_2b")
def problem_2b_search(
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
    """What the reported runs then use: every setting once, then the best of each model again.

    First every model, initialisation and rate at the shortest length, without a curriculum and with
    one. Then the finalists, the four best of each model, at every length, with three seeds.

    Args:
        seed:          of the first runs; the finalists have the next two as well
        grown_lengths: lengths that a curriculum reaches
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken
        names:         of models, see :class:`lrscan.train.Settings`
        resume, until: as for :func:`train_all`
    """

    def run(
        name: str, initialisation: str, rate: float, task: tuple[int, int], seed: int
    ) -> Settings:
        return Settings(
            model=name, steps=task[0], start_steps=task[1], hidden=hidden, batch=batch,
            initialisation=initialisation, rate=rate, iterations=iterations, seed=seed,
        )  # fmt: skip

    first = [
        run(name, initialisation, rate, task, seed)
        for task, name, initialisation, rate in product(
            _spans(sorted(lengths)[:1], sorted(grown_lengths)[:1]), names, initialisations, rates
        )
    ]
    given = (device, sequences)
    measured = train_all("problem_2b_search", first, *given, resume, until)
    table = outcomes(measured)
    table = ranked(table[table["run"].isin([one.name() for one in first])])
    best = table.groupby(["model", "start_steps"]).head(_FINALISTS)
    again = [
        run(one.model, one.initialisation, one.rate, task, seed + number)
        for task in _spans(sorted(lengths), sorted(grown_lengths))
        for one in best[best["start_steps"] == task[1]].itertuples()
        for number in range(_FINALIST_SEEDS)
    ]
    return train_all("problem_2b_search", again, *given, resume, until, measured)


@experiment("reproduce/05_problem_2b")
def problem_2b(
    *,
    device: str,
    lengths: Sequence[int],
    grown_lengths: Sequence[int],
    seeds: Sequence[int],
    hidden: int,
    batch: int,
    iterations: int,
    sequences: int,
    matched: bool,
    apart_lengths: Sequence[int],
    names: Sequence[str] = RIVALS,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Runs with several seeds for every model and length, as the search found best (Table 3).

    One seed of everything comes first, then the next, and of every seed the GILR-LSTM first.

    Args:
        grown_lengths: lengths that a curriculum reaches
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken
        matched:       train the LSTM also with as many hidden units as give it the GILR-LSTM's
                       number of parameters
        apart_lengths: lengths at which both are trained with ``distractors="apart"`` too
        resume, until: as for :func:`train_all`

    Raises:
        FileNotFoundError: there is no search to go by, on this device or on another
    """
    found = chosen(search_records(device))
    sizes = [(name, hidden) for name in names]
    if matched and "LSTM" in names:
        sizes.append(("LSTM", matched_hidden("LSTM", "GILRLSTM", hidden)))
    tasks = [("any", *one) for one in _spans(lengths, grown_lengths)]
    tasks += [("apart", steps, 0) for steps in apart_lengths]
    runs = [
        Settings(
            model=name, steps=steps, start_steps=start, hidden=units, batch=batch,
            distractors=kind, iterations=iterations, seed=seed,
            **_nearest(found, name, steps, start),
        )
        for seed, (name, units), (kind, steps, start) in product(seeds, sizes, tasks)
    ]  # fmt: skip
    return train_all("problem_2b", runs, device, sequences, resume, until)


@experiment("reproduce/06_one_million_steps")
def long_memory(
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
        resume, until: as for :func:`train_all`
    """
    runs = [
        Settings(
            model=name, steps=steps, start_steps=start, hidden=hidden,
            batch=max(1, min(batch, _MOST_EVENTS // steps)), start_batch=batch if start else 0,
            distractors=distractors, initialisation=way, iterations=iterations, seed=seed,
            rate=2 * rate if start else rate, label_smoothing=_SMOOTHING if start else 0.0,
        )
        for seed, name, (steps, start) in product(seeds, RIVALS, _spans(lengths, grown_lengths))
        if name == "GILRLSTM" or steps in lstm_lengths
        for way in (["graded"] if start else initialisations)
    ]  # fmt: skip
    return train_all("long_memory", runs, device, sequences, resume, until)


def matched_hidden(model: str, other: str, hidden: int) -> int:
    """The fewest hidden units of a model that has as many parameters as another one of ``hidden``.

    Args:
        model, other: see :class:`lrscan.train.Settings`
    """

    def parameters(name: str, units: int) -> int:
        net = Classifier(Settings(model=name, hidden=units), torch.device("cpu"))
        return sum(one.numel() for one in net.parameters())

    wanted = parameters(other, hidden)
    return bisect_left(range(1, 4 * hidden), wanted, key=lambda n: parameters(model, n)) + 1


def _spans(lengths: Sequence[int], grown_lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(steps, start_steps) of runs without a curriculum, and of those with one."""
    return [*((steps, 0) for steps in lengths), *((steps, _START) for steps in grown_lengths)]


def search_records(device: str) -> Records:
    """The search of this run on this device, else the committed one, else one of any device."""
    where = provenance.device_slug(device)
    own, committed = workspace.records_folder(), workspace.committed_records()
    places = [(own, where), (committed, where)]
    places += [(committed, other) for other in records.devices("problem_2b_search")]
    for folder, slug in places:
        if (found := records.find("problem_2b_search", slug, directory=folder)) is not None:
            return found
    raise FileNotFoundError("there is no search yet: lrscan bench problem_2b_search")


def train_all(
    experiment: str,
    runs: Iterable[Settings],
    device: str,
    sequences: int,
    resume: bool,
    until: float,
    measured: Records | None = None,
) -> Records:
    """Train one run after the other, and record each as soon as it has ended.

    A run that fails does not keep the others from being trained.

    Args:
        sequences: fresh ones, on which the accuracy at the end is taken
        resume:    keep the runs that are recorded, and go on with one that was paused, or that gave
                   up after fewer iterations
        until:     pause then, by ``time.monotonic``
        measured:  what is kept without ``resume`` too

    Raises:
        Paused: time was up
        Exception: what the first run that failed raised, when the others had ended; a RuntimeError
            if it diverged at its first iteration, so that there is nothing to record
    """
    runs = list(runs)
    where = provenance.resolve_device(device)
    folder = workspace.build_folder() / "checkpoints" if resume else None
    slug, there = provenance.device_slug(where), workspace.records_folder()
    if resume:
        measured = records.find(experiment, slug, directory=there)
    names = [run.name() for run in runs]
    done = set() if measured is None else _done(measured, runs)
    failures = Failures()
    for number, settings in enumerate(runs):
        if names[number] in done:
            continue
        left = until - time.monotonic()
        if (measured is not None or failures.names) and left <= 0:
            break
        seconds = None if left == math.inf else max(left, 0.0)
        _log.info("%s, %d of %d: %s", experiment, number + 1, len(runs), _told(settings))
        with failures.noted(names[number]):
            run = train(settings, device=where, folder=folder, seconds=seconds)
            if run.status == DIVERGED and run.iteration == 1:
                raise RuntimeError(f"{names[number]} diverged at its first iteration")
            if run.status == PAUSED:
                break
            done.add(names[number])
            measured = files.write(
                run, experiment, where, sequences=sequences, fresh=measured is None,
                left=sum(name not in done for name in names),
            )  # fmt: skip
    failures.check(len(runs))
    if unfinished := sum(name not in done for name in names):
        raise Paused(experiment, measured, unfinished)
    if measured is None:
        raise ValueError(f"{experiment}: no runs")
    return measured


def _done(measured: Records, runs: Iterable[Settings]) -> set[str]:
    """The names of the runs that are recorded and have no more iterations to do."""
    ended = outcomes(measured).set_index("run")
    gave_up = ended["iterations"].where(ended["status"].eq(NOT_LEARNED), math.inf)
    return {run.name() for run in runs if gave_up.get(run.name(), 0) >= run.iterations}


def _told(settings: Settings) -> str:
    return (
        f"{settings.model}, {span(settings.steps, settings.start_steps)}, "
        f"{settings.initialisation}, rate {settings.rate}, seed {settings.seed}"
    )


def _nearest(found: pandas.DataFrame, model: str, steps: int, start: int) -> dict[str, Any]:
    """The searched settings of a model at the length that is nearest, by ratio."""
    rows = found[(found["model"] == model) & (found["start_steps"].eq(0) == (start == 0))]
    if rows.empty:
        way = "with a curriculum" if start else "without a curriculum"
        raise ValueError(f"the search has no model {model!r} {way}")
    distance = np.log(rows["T"].astype(float) / steps).abs()
    # As Python's own: numbers of NumPy are not read back from a checkpoint.
    return rows.loc[[distance.idxmin()], list(SEARCHED)].to_dict("records")[0]
