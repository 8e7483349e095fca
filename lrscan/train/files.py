"""Records of a training run: one row per iteration, added to the rows of other runs."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrscan.evidence import provenance, records, workspace
from lrscan.train.loop import Run, evaluate

FINAL = 1024  # number of fresh sequences in the final evaluation


def write(
    run: Run,
    experiment: str,
    device: Any,
    *,
    sequences: int = FINAL,
    fresh: bool = False,
    left: int = 0,
    directory: Path | None = None,
) -> records.Records:
    """Write a run's history and outcome, and replace an earlier record of the same run.

    The earlier record may be from before the run was resumed, with fewer iterations. Other runs of
    the experiment, such as those with other seeds, stay. The outcome is stored in the provenance:
    status, number of iterations, iterations at which the criteria were met, and accuracy on fresh
    sequences with its 95% confidence interval.

    Args:
        run: a run with at least one finite iteration
        experiment: name of the records
        device: the device that trained it
        sequences: number of fresh sequences in the final evaluation
        fresh: drop all other runs of the experiment
        left: number of runs of the experiment that are not trained yet
        directory: the folder with one folder per device; None for that of the current run

    Returns:
        The records, as written.

    Raises:
        ValueError: there is nothing to write
    """
    settings = run.settings
    identity = {
        "run": settings.name(),
        "model": settings.model,
        "algorithm": settings.algorithm,
        "dtype": "float32",
        "precision": "ieee",
        "T": settings.steps,
        "B": settings.batch,
        "C": settings.hidden,
        "seed": settings.seed,
        "profile": workspace.profile(),
        "layers": settings.layers,
        "distractors": settings.distractors,
        "initialisation": settings.initialisation,
        "rate": settings.rate,
        "start_steps": settings.start_steps,
    }
    rows = []
    for one in run.history:
        row = one._asdict()
        if all(math.isfinite(row[name]) for name in ("loss", "gradient_norm")):
            held_out = row.pop("held_out")
            rows.append(identity | row | ({} if math.isnan(held_out) else {"held_out": held_out}))
    outcome = {
        "run": settings.name(),
        "status": run.status,
        "iterations": run.iteration,
        "seconds": run.seconds,
        "paper_at": run.paper_at,
        "strict_at": run.strict_at,
        "resumed": run.resumed,
    }
    if run.status != "diverged":
        share, interval = evaluate(
            run.model, settings, sequences, number=2**40, device=provenance.resolve_device(device)
        )
        outcome |= {"held_out": share, "held_out_interval": list(interval), "sequences": sequences}
    origin = provenance.collect(device, asdict(settings), settings.seed) | {"outcome": outcome}
    records.say_left(origin, left)
    if fresh:
        return records.write(experiment, rows, origin, directory=directory)
    return records.add(
        experiment,
        rows,
        origin,
        key=("run",),
        directory=directory,
        same=lambda one: one["outcome"]["run"] == settings.name(),
    )
