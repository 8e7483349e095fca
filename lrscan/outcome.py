"""How a notebook went: what the report and the terminal tell."""

from dataclasses import dataclass, field
from typing import Any

from lrscan.notebooks import Notebook

PASSED, FAILED, INTERRUPTED, NOT_RUN = "passed", "failed", "interrupted", "not run"
TRACEBACK_LINES = 12  # the end of a traceback; the whole stands in the report


@dataclass
class Cell:
    """A code cell: its number among all cells of the source notebook, from 1."""

    number: int
    status: str = NOT_RUN
    seconds: float | None = None


@dataclass
class Failure:
    """Why a notebook did not pass, and where; `cell` is None when no cell was running.

    `source` is the line that failed, or the cell's first when the line is not known.
    """

    error: str
    cell: int | None = None
    heading: str | None = None
    line: int | None = None
    source: str | None = None
    traceback: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """How a notebook went."""

    notebook: str
    parameters: dict[str, Any]
    cells: list[Cell]
    verdict: str = NOT_RUN
    seconds: float = 0.0
    failure: Failure | None = None
    executed: str | None = None


def expected(notebook: Notebook, parameters: dict[str, Any]) -> Outcome:
    """The outcome of a notebook that has not been run yet."""
    numbered = enumerate(notebook.cells, 1)
    code = [n for n, cell in numbered if cell["cell_type"] == "code" and cell["source"].strip()]
    return Outcome(notebook.name, parameters, [Cell(number) for number in code])


def describe(outcome: Outcome) -> list[str]:
    """A failure in lines: notebook, cell, heading, source line, error, end of traceback."""
    failure = outcome.failure
    lines = [f"{outcome.notebook} {outcome.verdict}: {failure.error}"]
    if failure.cell is None:
        lines.append("  no cell was running")
    else:
        heading = f', under "{failure.heading}"' if failure.heading else ""
        where = f"line {failure.line}" if failure.line else "which begins"
        lines.append(f"  cell {failure.cell}{heading}, {where}: {failure.source}")
    return lines + [f"  | {line}" for line in failure.traceback[-TRACEBACK_LINES:]]
