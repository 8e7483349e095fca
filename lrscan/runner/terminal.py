"""Terminal output of a run: progress while it works, then a table and the failures."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lrscan.evidence import workspace
from lrscan.runner.outcome import (
    FAILED,
    GOOD,
    INTERRUPTED,
    NOT_RUN,
    PASSED,
    UNCHANGED,
    Outcome,
    describe,
)
from lrscan.runner.streams import BestEffortStream

STYLES = {
    PASSED: "green",
    UNCHANGED: "green",
    FAILED: "bold red",
    INTERRUPTED: "yellow",
    NOT_RUN: "dim",
}


def _console(stream: Any) -> Console:
    return Console(file=cast(IO[str], BestEffortStream(stream)), highlight=False)


@contextmanager
def progress(
    outcomes: list[Outcome],
) -> Iterator[tuple[Callable[[Outcome], None], Callable[[], None], Callable[[Outcome], None]]]:
    """Yield three functions to call at a notebook's start, after each cell, and at its end.

    One line is printed when a notebook ends. On a terminal, a bar also counts the cells of all
    notebooks. Several threads may call the functions.
    """
    console = _console(sys.stderr)
    width = len(str(len(outcomes)))

    def end(outcome: Outcome) -> None:
        number = f"[{outcomes.index(outcome) + 1:{width}}/{len(outcomes)}]"
        line = f"{number} {outcome.notebook}: {outcome.verdict}"
        line += (
            f", {outcome.reason}"
            if outcome.verdict == UNCHANGED
            else (f" in {outcome.seconds:.1f} s")
        )
        console.print(Text(line, STYLES[outcome.verdict]), soft_wrap=True)

    if not sys.stderr.isatty():
        yield (lambda outcome: None), (lambda: None), end
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=sum(len(outcome.cells) for outcome in outcomes))

        def update() -> None:
            done = sum(cell.status != NOT_RUN for o in outcomes for cell in o.cells)
            bar.update(task, completed=done)

        yield (lambda outcome: bar.update(task, description=outcome.notebook)), update, end


def summary(outcomes: list[Outcome], figures: list[str], written: list[str]) -> None:
    """Print the table, the failures and the paths of the output."""
    console = _console(sys.stdout)
    table = Table("notebook", "verdict", "cells passed", "seconds")
    for name in ("cells passed", "seconds"):
        next(column for column in table.columns if column.header == name).justify = "right"
    for outcome in outcomes:
        passed = sum(cell.status == PASSED for cell in outcome.cells)
        table.add_row(
            Text(outcome.notebook),
            Text(outcome.verdict, STYLES[outcome.verdict]),
            f"{passed}/{len(outcome.cells)}",
            f"{outcome.seconds:.1f}",
        )
    console.print(table)

    def say(line: str = "", style: str = "") -> None:
        console.print(Text(line, style), soft_wrap=True)

    for outcome in outcomes:
        if outcome.failure and outcome.verdict not in GOOD:
            for line in describe(outcome):
                say(line)
            say()
    if figures:
        say("Figures:")
        for figure in figures:
            say(f"  {workspace.shown(workspace.locate(figure))}")
    if any(outcome.executed for outcome in outcomes):
        say(f"Executed notebooks: {workspace.shown(workspace.locate('build/notebooks'))}/")
    for line in written:
        say(line)
