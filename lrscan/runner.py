"""Run notebooks one after another, and report what happened: on the terminal and as JSON."""

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lrscan import execution, workspace
from lrscan.figures import read_manifest
from lrscan.notebooks import Notebook
from lrscan.outcome import FAILED, INTERRUPTED, NOT_RUN, PASSED, Outcome, describe, expected
from lrscan.provenance import utc_now
from lrscan.records import json_text

STYLES = {PASSED: "green", FAILED: "bold red", INTERRUPTED: "yellow", NOT_RUN: "dim"}


def run(
    root: Path,
    notebooks: list[Notebook],
    parameters: dict[str, dict[str, Any]],
    *,
    profile: str,
    timeout_s: int | None = None,
    record: bool = False,
) -> int:
    """Execute notebooks in order; write `build/report.json` and print a summary.

    Arguments
    ---------
    root         the project's root
    notebooks    what to execute
    parameters   the values of each notebook's parameters, by notebook
    profile      the profile's name, for provenance
    timeout_s    how long a cell may run; None: without end
    record       write records and figures to the committed folder `figures/`

    Returns
    -------
    int
        The exit status: 0 if all passed, 1 if not, 130 after Ctrl-C, 143 after SIGTERM.
    """
    outcomes = [expected(n, parameters[n.name]) for n in notebooks]
    report = {"started_at": utc_now(), "profile": profile, "recorded": record}
    settings = {
        "LRSCAN_PROFILE": profile,
        "LRSCAN_RECORD": "1" if record else None,
        "LRSCAN_RECORDS": None,
    }
    started = perf_counter()
    stopped_by = None
    with workspace.environment(**settings), _interruptible() as signals, _quiet():

        def write_report(verdict: str) -> list[str]:
            figures = _figures(outcomes, report["started_at"])
            document = report | {
                "verdict": verdict,
                "seconds": round(perf_counter() - started, 3),
                "figures": figures,
                "notebooks": [asdict(outcome) for outcome in outcomes],
            }
            workspace.write_files({root / "build" / "report.json": json_text(document)})
            return figures

        write_report("running")  # a report of an earlier run must not be taken for this one's
        try:
            with _progress(outcomes) as (begin, on_cell, end):
                for notebook, outcome in zip(notebooks, outcomes, strict=True):
                    begin(outcome)
                    execution.execute(
                        notebook,
                        outcome,
                        root / "build" / "notebooks" / f"{notebook.name}.ipynb",
                        timeout_s=timeout_s,
                        environment={
                            "LRSCAN_NOTEBOOK": notebook.name,
                            "LRSCAN_PARAMETERS": json.dumps(outcome.parameters),
                        },
                        on_cell=on_cell,
                    )
                    end(outcome)
                    write_report("running")
        except KeyboardInterrupt:
            stopped_by = signals[0] if signals else signal.SIGINT
        passed = bool(outcomes) and all(outcome.verdict == PASSED for outcome in outcomes)
        verdict = INTERRUPTED if stopped_by else PASSED if passed else FAILED
        figures = write_report(verdict)
    _summary(outcomes, figures)
    return 128 + stopped_by if stopped_by else 0 if passed else 1


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGTERM stop a run as Ctrl-C does, so that no kernel stays; yields what came."""
    signals: list[int] = []

    def stop(number: int, _: Any) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield signals  # only the main thread may set a handler
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep papermill's log off the terminal: all that it says stands in the report."""
    logger = logging.getLogger("papermill")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _progress(outcomes: list[Outcome]) -> Iterator[tuple[Callable, Callable, Callable]]:
    """Functions to call at a notebook's begin, after a cell, and at a notebook's end.

    On a terminal a bar counts the cells of all notebooks; elsewhere a line tells of each
    notebook when it ends.
    """
    console = Console(stderr=True, highlight=False)
    width = len(str(len(outcomes)))

    def end(outcome: Outcome) -> None:
        number = f"[{outcomes.index(outcome) + 1:{width}}/{len(outcomes)}]"
        line = f"{number} {outcome.notebook}: {outcome.verdict} in {outcome.seconds:.1f} s"
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


def _figures(outcomes: list[Outcome], since: str) -> list[str]:
    """The figures that these notebooks have drawn since then, relative to the root."""
    folder = workspace.figures_folder()
    names = {outcome.notebook for outcome in outcomes}
    entries = read_manifest(folder / "manifest.json").items()
    drawn = [file for file, e in entries if e["notebook"] in names and e["drawn_at"] >= since]
    return [workspace.relative(folder / file) for file in drawn]


def _summary(outcomes: list[Outcome], figures: list[str]) -> None:
    """Print the table, the failures and what was written."""
    console = Console(highlight=False)
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
        if outcome.failure:
            for line in describe(outcome):
                say(line)
            say()
    if figures:
        say("Figures:")
        for figure in figures:
            say(f"  {figure}")
    if any(outcome.executed for outcome in outcomes):
        say("Executed notebooks: build/notebooks/")
    say("Report: build/report.json")
