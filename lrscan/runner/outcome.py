"""Outcomes of notebooks, as the report and the terminal show them."""

from dataclasses import dataclass, field
from typing import Any

from lrscan.runner.catalog import Notebook

PASSED, UNCHANGED, FAILED = "passed", "unchanged", "failed"
INTERRUPTED, NOT_RUN = "interrupted", "not run"
GOOD = (PASSED, UNCHANGED)
TRACEBACK_LINES = 12  # of the end of a traceback, on the terminal
# Limits for a failure in the report, in lines and in characters per line. The executed notebook has
# the whole text.
_LINES, _LETTERS = 200, 2000


@dataclass
class CellOutcome:
    """Outcome of a code cell; ``number`` counts all cells of the source notebook, from 1."""

    number: int
    status: str = NOT_RUN
    seconds: float | None = None


@dataclass
class Failure:
    """Error that kept a notebook from passing, and its place.

    ``cell`` is None if no cell was running. ``source`` is the line that failed, or the cell's first
    line if the failing one is not known.
    """

    error: str
    cell: int | None = None
    heading: str | None = None
    line: int | None = None
    source: str | None = None
    traceback: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.error = shorten(self.error)
        self.traceback = [shorten(line) for line in self.traceback]
        left, half = len(self.traceback) - _LINES, _LINES // 2
        if left > 0:
            self.traceback[half:-half] = [f"... {left:,} lines ..."]


@dataclass
class Outcome:
    """Outcome of a notebook; ``reason`` says why it was run, or why it was not."""

    notebook: str
    parameters: dict[str, Any]
    cells: list[CellOutcome]
    verdict: str = NOT_RUN
    reason: str | None = None
    seconds: float = 0.0
    failure: Failure | None = None
    executed: str | None = None


def shorten(text: str) -> str:
    """Return a text; a long one loses its middle."""
    left, half = len(text) - _LETTERS, _LETTERS // 2
    return f"{text[:half]} ... {left:,} characters ... {text[-half:]}" if left > 0 else text


def expected(notebook: Notebook, parameters: dict[str, Any]) -> Outcome:
    """Return the outcome of a notebook that has not run yet."""
    numbered = enumerate(notebook.cells, 1)
    code = [n for n, cell in numbered if cell["cell_type"] == "code" and cell["source"].strip()]
    return Outcome(notebook.name, parameters, [CellOutcome(number) for number in code])


def where(failure: Failure) -> str:
    """Describe the place of a failure: cell, heading, source line."""
    if failure.cell is None:
        return "no cell was running"
    heading = f', under "{failure.heading}"' if failure.heading else ""
    line = f"line {failure.line}" if failure.line else "which begins"
    return f"cell {failure.cell}{heading}, {line}: {failure.source}"


def describe(outcome: Outcome) -> list[str]:
    """Describe a failure in lines: notebook, error, place, and the end of the traceback."""
    failure = outcome.failure or Failure("the reason is unknown")
    return [
        f"{outcome.notebook} {outcome.verdict}: {failure.error}",
        f"  {where(failure)}",
        *(f"  | {line}" for line in failure.traceback[-TRACEBACK_LINES:]),
    ]
