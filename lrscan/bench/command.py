"""`lrscan bench`: measurements from the command line, and the targets of a GPU."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lrscan.bench import EXPERIMENTS, Paused, outcomes, targets
from lrscan.cli import commands
from lrscan.evidence import origin, provenance, workspace
from lrscan.evidence.records import Records
from lrscan.runner import catalog

PAUSED_STATUS = 75  # "try again later" in sysexits.h


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
    options: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Measure, write records, print them, and return the exit status.

    ``options`` are for the experiments that know them, beside their parameters.
    """
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    if record and out:
        raise click.UsageError("--record and --out both say where the records go: give one")
    if device not in commands.DEVICES:
        raise click.UsageError(f"device is one of {', '.join(commands.DEVICES)}, not {device!r}")
    root = workspace.find_root()
    origin.check(root)
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    if unknown := [name for name in experiments if name not in EXPERIMENTS]:
        raise click.UsageError(
            f"no experiment is called {unknown[0]!r}; there are: {', '.join(EXPERIMENTS)}"
        )
    try:
        where = provenance.resolve_device(device)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen: list[Any] = [EXPERIMENTS[name] for name in dict.fromkeys(experiments) or EXPERIMENTS]
    owners = {experiment.notebook for experiment in chosen}
    owning = [catalog.whole(notebook) for notebook in every if notebook.name in owners]
    commands.tell_broken(notebook for notebook in every if notebook not in owning)
    if missing := owners - {notebook.name for notebook in owning}:
        raise click.ClickException(f"an experiment belongs to {min(missing)}: no such notebook")
    parameters = catalog.override(values.parameters, owning, assignments)
    settings = {
        "LRSCAN_PROFILE": profile,
        "LRSCAN_RECORD": "1" if record else None,
        "LRSCAN_RECORDS": str(out.resolve()) if out else None,
    }
    logger = logging.getLogger("lrscan.bench")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler := logging.StreamHandler())
    console, left = Console(highlight=False), []
    with workspace.environment(**settings):
        workspace.check_writable(workspace.records_folder())
        for number, experiment in enumerate(chosen):
            if number and time.monotonic() > until:
                left.append(experiment.name)
                continue
            given = parameters[experiment.notebook] | {"device": str(where)}
            try:
                measured = experiment(
                    **_accepted(experiment, given),
                    **_named(experiment, resume=resume, until=until, **options),
                )
            except Paused as pause:
                measured = pause.measured
                left.append(f"{pause.left} pieces of {experiment.name}")
            if measured is not None:
                _show(console, measured)
        if where.type == "cuda":
            _show_targets(console, provenance.device_slug(where))
    logger.removeHandler(handler)
    if left:
        console.print(Text(f"Time was up; --resume measures: {', '.join(left)}"), soft_wrap=True)
    return PAUSED_STATUS if left else 0


def _accepted(function: Callable[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """Those parameters that a function takes."""
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        return parameters
    return _named(function, **parameters)


def _named(function: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    """Those parameters that a function names."""
    signature = inspect.signature(function).parameters
    return {name: value for name, value in parameters.items() if name in signature}


def _show(console: Console, records: Records) -> None:
    """Print what was measured, and the columns that tell the rows apart; how a training ended."""
    if "run" in records.table:
        data = outcomes(records).drop(columns=["run", "paper_at", "low", "high", "measured_at"])
    else:
        data = records.table.drop(columns=["experiment", "device"])
    measured = ("median_ms", "reference_ms", "error", "bound", "status", "strict_at", "held_out")
    data = data.dropna(axis="columns", how="all").drop(columns=["q1_ms", "q3_ms"], errors="ignore")
    told = [c for c in data if c in measured or data[c].nunique() > 1]
    console.print(Text(f"{records.experiment} on {records.device_label}"), soft_wrap=True)
    console.print(_table(data[told]))
    console.print(Text(f"Records: {workspace.shown(records.path)}"), soft_wrap=True)
    missing = records.provenance["measurements"][-1].get("not_available", {})
    for what, why in missing.items():
        console.print(Text(f"Not available: {what}: {why}"), soft_wrap=True)


def _show_targets(console: Console, device: str) -> None:
    """Print what is asked of the CUDA kernels beside what the records of this device say."""
    found = targets.table(workspace.records_folder(), device)
    console.print(Text(f"Targets, for an H100, beside the records of {device}"), soft_wrap=True)
    console.print(_table(found))


def _table(data: Any) -> Table:
    table = Table(*data)
    for row in data.astype(object).itertuples(index=False):
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None or str(value) == "<NA>" else str(value)
