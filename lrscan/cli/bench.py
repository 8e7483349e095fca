"""Command ``lrscan bench``: measurements from the command line."""

from __future__ import annotations

import math
import time
from pathlib import Path

import click

from lrscan.cli.options import DEVICES, report_broken
from lrscan.experiments import run


def main(
    *,
    experiments: tuple[str, ...],
    profile: str,
    device: str,
    assignments: tuple[str, ...],
    record: bool,
    out: Path | None,
    minutes: float | None,
    resume: bool,
) -> int:
    """Measure, write and print the records, and return the exit status."""
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    if record and out:
        raise click.UsageError("--record and --out both set the folder of the records: give one")
    if device not in DEVICES:
        raise click.UsageError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    planned = run.plan(experiments, profile=profile, device=device, assignments=assignments)
    report_broken(planned.others)
    return run.measure(planned, record=record, out=out, until=until, resume=resume)
