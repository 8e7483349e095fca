"""Tables of records and targets for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lrscan.evidence import workspace
from lrscan.evidence.records import Records
from lrscan.experiments import targets as wanted
from lrscan.experiments.training_runs import outcomes

# These columns are always shown; the others only if their values differ between rows.
_MEASURED = ("median_ms", "reference_ms", "error", "bound", "status", "strict_at", "held_out")


def records(console: Console, measured: Records) -> None:
    """Print a table of the measurements or, for training, of how each run ended.

    Columns with the same value in all rows are left out.
    """
    if "run" in measured.table:
        data = outcomes(measured).drop(columns=["run", "paper_at", "low", "high", "measured_at"])
    else:
        data = measured.table.drop(columns=["experiment", "device"])
    data = data.dropna(axis="columns", how="all").drop(columns=["q1_ms", "q3_ms"], errors="ignore")
    shown = [c for c in data if c in _MEASURED or data[c].nunique() > 1]
    console.print(Text(f"{measured.experiment} on {measured.device_label}"), soft_wrap=True)
    console.print(_table(data[shown]))
    console.print(Text(f"Records: {workspace.shown(measured.path)}"), soft_wrap=True)
    missing = measured.provenance["measurements"][-1].get("not_available", {})
    for name, reason in missing.items():
        console.print(Text(f"Not available: {name}: {reason}"), soft_wrap=True)


def targets(console: Console, folder: Path, device: str) -> None:
    """Print the targets of the CUDA kernels next to the records of a device."""
    found = wanted.table(folder, device)
    console.print(Text(f"Targets for an H100, next to the records of {device}"), soft_wrap=True)
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
