"""How a notebook went: what the report and the terminal tell."""

from dataclasses import dataclass, field
from typing import Any

from lrscan.runner.catalog import Notebook

PASSED, UNCHANGED, FAILED = "passed", "unchanged", "failed"
INTERRUPTED, NOT_RUN = "interrupted", "not run"
GOOD = (PASSED, UNCHANGED)
TRACEBACK_LINES = 12  # that are printed, of the end; more stand in the report
_LINES, _LETTERS = 200, 2000  # of a failure in the report; all of it is in the executed notebook


@dataclass
class CellOutcome:
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

    def __post_init__(self) -> None:
        self.error = shorten(self.error)
        self.traceback = [shorten(line) for line in self.traceback]
        left, half = len(self.traceback) - _LINES, _LINES // 2
        if left > 0:
            self.traceback[half:-half] = [f"... {left:,} lines ..."]


@dataclass
class Outcome:
    """How a notebook went; `reason` says why it was run, or why it was not."""

    notebook: str
    parameters: dict[str, Any]
    cells: list[CellOutcome]
    verdict: str = NOT_RUN
    reason: str | None = None
    seconds: float = 0.0
    failure: Failure | None = None
    executed: str | None = None


def shorten(text: str) -> str:
    """A text without its middle, if it is long."""
    left, half = len(text) - _LETTERS, _LETTERS // 2
    return f"{text[:half]} ... {left:,} letters ... {text[-half:]}" if left > 0 else text


def expected(notebook: Notebook, parameters: dict[str, Any]) -> Outcome:
    """The outcome of a notebook that has not been run yet."""
    numbered = enumerate(notebook.cells, 1)
    code = [n for n, cell in numbered if cell["cell_type"] == "code" and cell["source"].strip()]
    return Outcome(notebook.name, parameters, [CellOutcome(number) for number in code])


def where(failure: Failure) -> str:
    """The place of a failure: cell, heading, source line."""
    if failure.cell is None:
        return "no cell was running"
    heading = f', under "{failure.heading}"' if failure.heading else ""
    line = f"line {failure.line}" if failure.line else "which begins"
    return f"cell {failure.cell}{heading}, {line}: {failure.source}"


def describe(outcome: Outcome) -> list[str]:
    """A failure in lines: notebook, cell, heading, source line, error, end of traceback."""
    failure = outcome.failure or Failure("nothing is known")
    return [
        f"{outcome.notebook} {outcome.verdict}: {failure.error}",
        f"  {where(failure)}",
        *(f"  | {line}" for line in failure.traceback[-TRACEBACK_LINES:]),
    ]
