"""Training runs as records: training one after the other, outcomes, and learning curves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np
import pandas

from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.records import Records
from lrscan.experiments.resume import Failures, Paused
from lrscan.train import DIVERGED, NOT_LEARNED, PAUSED, Settings, files, train

_log = logging.getLogger(__name__)

# The two models of Table 3, by their names in :class:`lrscan.train.Settings`.
RIVALS = ("GILRLSTM", "LSTM")
START = 128  # steps of the first sequences of a curriculum
# The settings that a search may vary; all else is the same for both models.
SEARCHED = ("initialisation", "rate")
TASK = ("distractors", "T", "start_steps")  # with and without a curriculum are two tasks
CRITERIA = ("paper", "strict")  # five minibatches in a row; 99% of 256 fresh sequences
# Iterations in the moving averages of the paper's learning curves, by T.
_SMOOTHING = {1024: 20, 8192: 5, 1_048_576: 20}


def spans(lengths: Sequence[int], grown_lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return (steps, start_steps) of the runs without a curriculum, then of those with one."""
    return [*((steps, 0) for steps in lengths), *((steps, START) for steps in grown_lengths)]


def span(steps: int, start: int, distractors: str = "any") -> str:
    """Return the task of a run in words, such as "T = 8,192, doubled from 128"."""
    task = f"T = {steps:,}" + (f", doubled from {start:,}" if start else "")
    return task if distractors == "any" else f"{task}, distractors {distractors}"


def train_all(
    experiment: str,
    runs: Iterable[Settings],
    device: str,
    sequences: int,
    resume: bool,
    until: float,
    measured: Records | None = None,
) -> Records:
    """Train one run after the other, and record each as soon as it ends.

    If a run fails, the others are trained all the same.

    Args:
        experiment: name of the records
        runs:       settings of the runs
        device:     "auto", "cpu" or "cuda"
        sequences:  fresh sequences for the accuracy at the end
        resume:     keep the runs that are recorded, and continue one that was paused or that gave
                    up after fewer iterations
        until:      pause at this time, by ``time.monotonic``
        measured:   records to keep even without ``resume``

    Raises:
        Paused: the time was up
        RuntimeError: one of several runs failed, or a run diverged at its first iteration, so that
            there is nothing to record
        Exception: the only run failed
        ValueError: there are no runs
    """
    runs = list(runs)
    where = provenance.resolve_device(device)
    folder = workspace.build_folder() / "checkpoints" if resume else None
    slug, own = provenance.device_slug(where), workspace.records_folder()
    if resume:
        measured = records.find(experiment, slug, directory=own)
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
        _log.info("%s, %d of %d: %s", experiment, number + 1, len(runs), _label(settings))
        with failures.noted(names[number]):
            run = train(settings, device=where, folder=folder, seconds=seconds)
            if run.status == DIVERGED and run.iteration == 1:
                raise RuntimeError(f"{names[number]} diverged at its first iteration")
            if run.status == PAUSED:
                break
            done.add(names[number])
            measured = files.write(
                run,
                experiment,
                where,
                sequences=sequences,
                fresh=measured is None,
                left=sum(name not in done for name in names),
            )
    failures.check(len(runs))
    if unfinished := sum(name not in done for name in names):
        raise Paused(experiment, measured, unfinished)
    if measured is None:
        raise ValueError(f"{experiment}: there are no runs to train")
    return measured


def _done(measured: Records, runs: Iterable[Settings]) -> set[str]:
    """Return the names of the runs that are recorded and have no iterations left."""
    ended = outcomes(measured).set_index("run")
    gave_up = ended["iterations"].where(ended["status"].eq(NOT_LEARNED), math.inf)
    return {run.name() for run in runs if gave_up.get(run.name(), 0) >= run.iterations}


def _label(settings: Settings) -> str:
    return (
        f"{settings.model}, {span(settings.steps, settings.start_steps)}, "
        f"{settings.initialisation}, rate {settings.rate}, seed {settings.seed}"
    )


def outcomes(measured: Records) -> pandas.DataFrame:
    """Return the outcome of every run, a row for each run.

    Returns:
        Columns: run, model, T, start_steps (of the curriculum; 0 without one), B, C, distractors,
        the settings in SEARCHED, seed, status, iterations, seconds, paper_at and strict_at
        (iterations to the two criteria; missing if not met), paper_seconds and strict_seconds (the
        time until then, without evaluations), held_out, low, high (accuracy on fresh sequences with
        its 95% interval), measured_at.
    """
    rows = []
    tables = dict(list(measured.table.groupby("run")))
    for one in measured.provenance["measurements"]:
        settings, ended = one["parameters"], one["outcome"]
        name = ended["run"]
        low, high = ended.get("held_out_interval", (None, None))
        row = {
            "run": name,
            "model": settings["model"],
            "T": settings["steps"],
            "start_steps": settings.get("start_steps", 0),
            "B": settings["batch"],
            "C": settings["hidden"],
            "distractors": settings["distractors"],
            "seed": settings["seed"],
            **{key: settings[key] for key in SEARCHED},
            **{key: ended[key] for key in ("status", "iterations", "seconds")},
            "held_out": ended.get("held_out"),
            "low": low,
            "high": high,
            "measured_at": one["measured_at"],
        }
        seconds = tables[name].set_index("iteration")["seconds"]
        for criterion in CRITERIA:
            at = row[f"{criterion}_at"] = ended[f"{criterion}_at"]
            row[f"{criterion}_seconds"] = None if at is None else seconds.get(at)
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = [f"{criterion}_{what}" for criterion in CRITERIA for what in ("at", "seconds")]
    numbers += ["held_out", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table.sort_values([*TASK, "model", *SEARCHED, "seed"], ignore_index=True)


def curves(measured: Records, points: int = 200) -> pandas.DataFrame:
    """Return learning curves: moving averages of minibatch accuracy over wall time, over all seeds.

    A run that has ended keeps its last value, so that the mean is over the same runs throughout.

    Args:
        measured: records of training runs
        points:   points of time, in equal ratios from the first iteration to the end of the longest
                  run

    Returns:
        Columns: model, distractors, T, start_steps, C, seconds, mean, deviation (over runs), runs,
        learned (the number of runs that met the strict criterion), smoothing (iterations in the
        moving average, as in the paper).
    """
    tables, groups = [], ["model", *TASK, "C"]
    every = dict(list(measured.table.groupby("run")))
    for values, ended in outcomes(measured).groupby(groups, sort=False):
        group = dict(zip(groups, values, strict=True))
        smoothing = _SMOOTHING.get(group["T"], 20)
        runs = [every[name] for name in ended["run"]]
        first = min(run["seconds"].iloc[0] for run in runs)
        last = max(run["seconds"].iloc[-1] for run in runs)
        grid = np.geomspace(first, last, points)
        smooth = [run["accuracy"].rolling(smoothing, min_periods=1).mean() for run in runs]
        lines = [
            np.interp(grid, run["seconds"], line) for run, line in zip(runs, smooth, strict=True)
        ]
        tables.append(
            pandas.DataFrame(
                {
                    **group,
                    "seconds": grid,
                    "mean": np.mean(lines, axis=0),
                    "deviation": np.std(lines, axis=0, ddof=min(1, len(runs) - 1)),
                    "runs": len(runs),
                    "learned": ended["strict_at"].notna().sum(),
                    "smoothing": smoothing,
                }
            )
        )
    return pandas.concat(tables, ignore_index=True)
