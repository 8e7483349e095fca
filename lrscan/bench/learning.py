"""Training on problem 2b as an experiment: a search with its own seed, then runs with others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas

from lrscan import provenance, records, workspace
from lrscan.bench.pieces import Paused
from lrscan.bench.registry import experiment
from lrscan.records import Records
from lrscan.train import DIVERGED, PAUSED, Settings, files, train

_log = logging.getLogger(__name__)

RIVALS = ("GILRLSTM", "LSTM")
# What a search may vary; all else is the same for both models.
SEARCHED = ("initialisation", "rate")
_MOST_EVENTS = 2**20  # of a minibatch of a long sequence


@experiment("reproduce/05_problem_2b")
def problem_2b_search(
    *,
    device: str,
    seed: int,
    search_lengths: Sequence[int],
    hidden: int,
    batch: int,
    distractors: str,
    initialisations: Sequence[str],
    rates: Sequence[float],
    search_iterations: int,
    sequences: int,
    names: Sequence[str] = RIVALS,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """A run for every model, length, initialisation and rate: what the reported runs then use.

    Args:
        seed:              of these runs alone; the reported ones have others
        search_iterations: where a run gives up
        sequences:         fresh ones, on which the accuracy at the end is taken
        names:             of models, see :class:`lrscan.train.Settings`
        resume, until:     as for :func:`train_all`
    """
    grid = product(search_lengths, names, initialisations, rates)
    runs = [
        Settings(
            model=name, steps=steps, hidden=hidden, batch=batch, distractors=distractors,
            initialisation=initialisation, rate=rate, iterations=search_iterations, seed=seed,
        )
        for steps, name, initialisation, rate in grid
    ]  # fmt: skip
    return train_all("problem_2b_search", runs, device, sequences, resume, until)


@experiment("reproduce/05_problem_2b")
def problem_2b(
    *,
    device: str,
    lengths: Sequence[int],
    seeds: Sequence[int],
    hidden: int,
    batch: int,
    distractors: str,
    iterations: int,
    sequences: int,
    names: Sequence[str] = RIVALS,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Runs with several seeds for every model and length, as the search found best (Table 3).

    Args:
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken
        resume, until: as for :func:`train_all`

    Raises:
        FileNotFoundError: there is no search to go by, on this device or on another
    """
    found = chosen(search_records(device))
    runs = [
        Settings(
            model=name, steps=steps, hidden=hidden, batch=batch, distractors=distractors,
            iterations=iterations, seed=seed, **_nearest(found, name, steps),
        )
        for steps, name, seed in product(lengths, names, seeds)
    ]  # fmt: skip
    return train_all("problem_2b", runs, device, sequences, resume, until)


@experiment("reproduce/06_one_million_steps")
def long_memory(
    *,
    device: str,
    lengths: Sequence[int],
    lstm_lengths: Sequence[int],
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

    Args:
        lstm_lengths:  lengths at which torch's LSTM is trained too, with the same settings
        batch:         sequences in a minibatch, fewer where b T would exceed 2**20
        iterations:    where a run gives up
        sequences:     fresh ones, on which the accuracy at the end is taken, likewise
        resume, until: as for :func:`train_all`
    """
    runs = [
        Settings(
            model=name, steps=steps, hidden=hidden,
            batch=max(1, min(batch, _MOST_EVENTS // steps)), distractors=distractors,
            initialisation=way, rate=rate, iterations=iterations, seed=seed,
        )
        for name, of_model in (("GILRLSTM", lengths), ("LSTM", lstm_lengths))
        for way, steps, seed in product(initialisations, of_model, seeds)
    ]  # fmt: skip
    return train_all("long_memory", runs, device, sequences, resume, until)


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
) -> Records:
    """Train one run after the other, and record each as soon as it has ended.

    Args:
        sequences: fresh ones, on which the accuracy at the end is taken
        resume:    keep the runs that are recorded, and go on with one that was paused
        until:     pause then, by ``time.monotonic``

    Raises:
        Paused: time was up
        RuntimeError: a run diverged at its first iteration, so that there is nothing to record
    """
    runs = list(runs)
    where = provenance.resolve_device(device)
    folder = workspace.find_root() / "build" / "checkpoints" if resume else None
    slug, there = provenance.device_slug(where), workspace.records_folder()
    measured = records.find(experiment, slug, directory=there) if resume else None
    names = [run.name() for run in runs]
    done = set() if measured is None else set(measured.table["run"])
    for number, settings in enumerate(runs):
        if names[number] in done:
            continue
        left = until - time.monotonic()
        if measured is not None and left <= 0:
            raise Paused(measured, sum(name not in done for name in names))
        seconds = None if left == math.inf else max(left, 0.0)
        _log.info("%s, %d of %d: %s", experiment, number + 1, len(runs), _told(settings))
        run = train(settings, device=where, folder=folder, seconds=seconds)
        if run.status == PAUSED:
            if measured is None:
                raise RuntimeError(f"{experiment}: time was up before the first run had ended")
            raise Paused(measured, sum(name not in done for name in names))
        if run.status == DIVERGED and run.iteration == 1:
            raise RuntimeError(f"{names[number]} diverged at its first iteration")
        measured = files.write(
            run, experiment, where, sequences=sequences, fresh=measured is None
        )
        done.add(names[number])
    if measured is None:
        raise ValueError(f"{experiment}: no runs")
    return measured


def _told(settings: Settings) -> str:
    return (
        f"{settings.model}, T {settings.steps}, {settings.initialisation}, rate {settings.rate}, "
        f"seed {settings.seed}"
    )


def outcomes(measured: Records) -> pandas.DataFrame:
    """How every run ended, a row a run.

    Returns:
        Columns: run, model, T, B, C, distractors, the settings in SEARCHED, seed, status,
        iterations, seconds, paper_at and strict_at (iterations; missing: not met), seconds_to
        (until the strict criterion, without evaluations), held_out, low, high (accuracy on fresh
        sequences with its 95% interval), measured_at.
    """
    rows = []
    tables = dict(list(measured.table.groupby("run")))
    for one in measured.provenance["measurements"]:
        settings, ended = one["parameters"], one["outcome"]
        name = ended["run"]
        low, high = ended.get("held_out_interval", (None, None))
        row = {
            "run": name, "model": settings["model"], "T": settings["steps"],
            "B": settings["batch"], "C": settings["hidden"],
            "distractors": settings["distractors"], "seed": settings["seed"],
            **{key: settings[key] for key in SEARCHED},
            **{key: ended[key] for key in ("status", "iterations", "seconds")},
            **{key: ended[key] for key in ("paper_at", "strict_at")},
            "held_out": ended.get("held_out"), "low": low, "high": high,
            "measured_at": one["measured_at"],
        }  # fmt: skip
        at = ended["strict_at"]
        of_run = tables[name].set_index("iteration")["seconds"]
        row["seconds_to"] = None if at is None else of_run.get(at)
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = ["paper_at", "strict_at", "seconds_to", "held_out", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table.sort_values(["T", "model", *SEARCHED, "seed"], ignore_index=True)


def chosen(search: Records) -> pandas.DataFrame:
    """For every model and length the settings that met the strict criterion first.

    Where none did, those with the best accuracy on fresh sequences at the end.

    Returns:
        The rows of :func:`outcomes`, one for each model and T.
    """
    table = outcomes(search)
    table["failed"] = table["strict_at"].isna()
    order = table.sort_values(
        ["failed", "strict_at", "held_out"], ascending=[True, True, False], kind="stable"
    )
    return order.groupby(["model", "T"], sort=True).head(1).sort_values(["T", "model"])


def _nearest(found: pandas.DataFrame, model: str, steps: int) -> dict[str, Any]:
    """The searched settings of a model at the length that is nearest, by ratio."""
    rows = found[found["model"] == model]
    if rows.empty:
        raise ValueError(f"the search has no model {model!r}")
    distance = np.log(rows["T"].astype(float) / steps).abs()
    return {key: rows.loc[distance.idxmin(), key] for key in SEARCHED}


def convergence(measured: Records) -> pandas.DataFrame:
    """Table 3: iterations, time and their spread, for every model and length.

    Runs that did not learn are counted, not averaged: they are censored at their last iteration.

    Returns:
        Columns: model, T, B, C, runs, learned, iterations, iterations_std, seconds, seconds_std (of
        those that learned, to the strict criterion), ms_per_iteration (median of runs, of those
        that did not learn too), most_iterations (where runs gave up), held_out (worst).
    """
    rows = []
    for (model, steps, batch, hidden), runs in outcomes(measured).groupby(["model", "T", "B", "C"]):
        good = runs[runs["strict_at"].notna()]
        rows.append(
            {
                "model": model, "T": steps, "B": batch, "C": hidden,
                "runs": len(runs), "learned": len(good),
                "iterations": good["strict_at"].mean(),
                "iterations_std": good["strict_at"].std(),
                "seconds": good["seconds_to"].mean(), "seconds_std": good["seconds_to"].std(),
                "ms_per_iteration": 1e3 * (runs["seconds"] / runs["iterations"]).median(),
                "most_iterations": runs["iterations"].max(),
                "held_out": runs["held_out"].min(),
            }
        )  # fmt: skip
    return pandas.DataFrame(rows).sort_values(["T", "model"], ignore_index=True)


def curves(measured: Records, smoothing: int, points: int = 200) -> pandas.DataFrame:
    """The learning curves: moving average of minibatch accuracy over wall time, over all seeds.

    A run that has ended keeps its last value, so that the mean is over the same runs throughout.

    Args:
        smoothing: iterations in the moving average; the paper has 20, 5 and 20
        points:    of time, evenly spread from 0 to the end of the longest run

    Returns:
        Columns: model, T, seconds, mean, deviation (over runs), runs.
    """
    tables = []
    for (model, steps), part in measured.table.groupby(["model", "T"], sort=False):
        grid = np.linspace(0, part["seconds"].max(), points)
        values = []
        for _, run in part.groupby("run", sort=False):
            smooth = run["accuracy"].rolling(smoothing, min_periods=1).mean()
            values.append(np.interp(grid, run["seconds"], smooth))
        tables.append(
            pandas.DataFrame(
                {
                    "model": model, "T": steps, "seconds": grid, "mean": np.mean(values, axis=0),
                    "deviation": np.std(values, axis=0), "runs": len(values),
                }
            )  # fmt: skip
        )
    return pandas.concat(tables, ignore_index=True)


def sooner(measured: Records) -> pandas.DataFrame:
    """How much sooner the GILR-LSTM learned than the LSTM, split into its two factors.

    Returns:
        Columns: T, iterations (of the LSTM over those of the GILR-LSTM), time_per_iteration
        (likewise), sooner (their product as measured, of the seconds); missing where one of the
        two did not learn.
    """
    table = convergence(measured)
    ours, rival = (
        table[table["model"] == name].set_index("T") for name in ("GILRLSTM", "LSTM")
    )
    ratios = {
        "iterations": rival["iterations"] / ours["iterations"],
        "time_per_iteration": rival["ms_per_iteration"] / ours["ms_per_iteration"],
        "sooner": rival["seconds"] / ours["seconds"],
    }
    return pandas.DataFrame(ratios).dropna(how="all").reset_index()
