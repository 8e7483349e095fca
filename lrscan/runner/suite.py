"""Runs of notebooks, with reports on the terminal, as JSON and as JUnit XML."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lrscan.core.files import write_files
from lrscan.evidence import origin, workspace
from lrscan.evidence.context import Context, entered
from lrscan.evidence.figures import read_manifest
from lrscan.evidence.provenance import utc_now
from lrscan.evidence.records import json_text
from lrscan.runner import cache, execution, signals, terminal
from lrscan.runner.catalog import Notebook
from lrscan.runner.client import CancelToken
from lrscan.runner.junit import junit_xml
from lrscan.runner.outcome import (
    FAILED,
    GOOD,
    INTERRUPTED,
    PASSED,
    UNCHANGED,
    Failure,
    Outcome,
    expected,
)


def run(
    root: Path,
    notebooks: list[Notebook],
    parameters: dict[str, dict[str, Any]],
    *,
    profile: str,
    timeout_s: int | None = None,
    record: bool = False,
    jobs: int = 1,
    fail_fast: bool = False,
    force: bool = False,
    junit: Path | None = None,
) -> int:
    """Execute notebooks; write ``build/report.json`` and JUnit XML, and print a summary.

    A notebook is not executed again if nothing changed since it last passed
    (:mod:`lrscan.runner.cache`). If ``jobs`` is above 1, notebooks that measure run after the
    others, one at a time.

    Args:
        root: the project's root
        notebooks: the notebooks to execute
        parameters: the values of each notebook's parameters, by the notebook's name
        profile: the profile's name, for provenance
        timeout_s: the time limit of a cell; None for no limit
        record: True to write records and figures to the committed folder ``figures/``
        jobs: how many notebooks that do not measure may run at once
        fail_fast: True to start no more notebooks after a failure
        force: True to execute unchanged notebooks, too
        junit: the file for the JUnit XML; by default ``build/junit.xml``

    Returns:
        The exit status: 0 if all notebooks passed, 1 if not, and 128 plus the signal's number after
        a signal (130 after Ctrl-C).

    Raises:
        WorkspaceError: the running code is not that of the checkout
    """
    origin.check(root)
    context = Context(profile, recording=record)
    outcomes = [expected(n, parameters[n.name]) for n in notebooks]
    this = _Run(root, outcomes, context, junit or workspace.build_folder() / "junit.xml")
    with entered(context), signals.handled(this.token.cancel), _quiet():
        this.write("running")  # so that no report of an earlier run is mistaken for this one's
        pairs = list(zip(notebooks, outcomes, strict=True))
        alone = [pair for pair in pairs if pair[0].measures(pair[1].parameters)]
        together = [pair for pair in pairs if pair not in alone]
        # With one job, notebooks run in their own order.
        stages = [(jobs, together), (1, alone)] if jobs > 1 else [(1, pairs)]
        with terminal.progress(outcomes) as (begin, on_cell, end):

            def one(pair: tuple[Notebook, Outcome]) -> None:
                notebook, outcome = pair
                failed = any(o.verdict == FAILED for o in outcomes)
                if this.token.signal or this.unwritten or (fail_fast and failed):
                    return
                begin(outcome)
                _execute_or_skip(this, notebook, outcome, timeout_s, force, on_cell)
                end(outcome)
                this.write("running")

            for workers, stage in stages:
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(one, stage))
        passed = bool(outcomes) and all(outcome.verdict in GOOD for outcome in outcomes)
        stopped = this.token.signal
        this.write(INTERRUPTED if stopped else PASSED if passed else FAILED)
        figures = this.figures()
    terminal.summary(outcomes, figures, this.written())
    return 128 + stopped if stopped else 0 if passed and not this.unwritten else 1


@dataclass
class _Run:
    """State of a run, and its reports; a lock lets one thread write at a time."""

    root: Path
    outcomes: list[Outcome]
    context: Context
    junit: Path
    token: CancelToken = field(default_factory=CancelToken)
    unwritten: dict[Path, OSError] = field(default_factory=dict)
    started_at: str = field(default_factory=utc_now)
    started: float = field(default_factory=time.perf_counter)
    lock: Any = field(default_factory=threading.Lock)

    def write(self, verdict: str) -> None:
        """Write both reports. Delete one that cannot be written, so that no old one remains."""
        with self.lock:
            self._put(self.junit, junit_xml(self.outcomes, self.started_at))
            document = {
                "started_at": self.started_at,
                "profile": self.context.profile,
                "recorded": self.context.recording,
                "verdict": FAILED if self.unwritten and verdict == PASSED else verdict,
                "seconds": round(time.perf_counter() - self.started, 3),
                "figures": self.figures(),
                "notebooks": [asdict(outcome) for outcome in self.outcomes],
            }
            self._put(self.report, json_text(document))

    @property
    def report(self) -> Path:
        """The file of the JSON report."""
        return workspace.build_folder() / "report.json"

    def _put(self, path: Path, text: str) -> None:
        try:
            write_files({path: text})
        except OSError as error:
            self.unwritten[path] = error
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def figures(self) -> list[str]:
        """Return the figures that these notebooks drew, relative to the root."""
        folder = workspace.figures_folder()
        verdicts = {outcome.notebook: outcome.verdict for outcome in self.outcomes}
        return [
            workspace.relative(folder / file)
            for file, entry in read_manifest(folder / "manifest.json").items()
            if entry["notebook"] in verdicts
            and (verdicts[entry["notebook"]] == UNCHANGED or entry["drawn_at"] >= self.started_at)
        ]

    def written(self) -> list[str]:
        """Return the summary's lines about the reports."""
        good = [path for path in (self.report, self.junit) if path not in self.unwritten]
        return [
            *(f"Report: {', '.join(map(workspace.shown, good))}" for _ in good[:1]),
            *(
                f"{workspace.shown(path)} could not be written: {error.strerror}. "
                f"The run has failed.{workspace.remedy(path)}"
                for path, error in self.unwritten.items()
            ),
        ]


def _execute_or_skip(
    this: _Run,
    notebook: Notebook,
    outcome: Outcome,
    timeout_s: int | None,
    force: bool,
    on_cell: Any,
) -> None:
    """Execute a notebook if something changed since its last pass, and store a pass."""
    target = workspace.build_folder() / "notebooks" / f"{notebook.name}.ipynb"
    if notebook.broken:
        target.unlink(missing_ok=True)
        outcome.verdict, outcome.failure = FAILED, Failure(notebook.broken)
        return
    recording = this.context.recording
    because = "a recording run runs everything" if recording else "--force" if force else None
    try:
        with cache.entry(this.root, notebook, outcome, because, keep=not recording) as last:
            if not last.unchanged:
                context = this.context.of(
                    notebook.name, parameters=outcome.parameters, started=time.time()
                )
                last.used = execution.execute(
                    notebook,
                    outcome,
                    target,
                    timeout_s=timeout_s,
                    environment=context.variables(),
                    on_cell=on_cell,
                    token=this.token,
                )
    except OSError as error:  # such as a full disk
        outcome.verdict = FAILED
        outcome.failure = outcome.failure or Failure(f"{type(error).__name__}: {error.strerror}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep papermill's log off the terminal: the report has all of its content."""
    logger = logging.getLogger("papermill")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
