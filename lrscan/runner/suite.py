"""Run notebooks, and report what happened: on the terminal, as JSON and as JUnit XML."""

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
from lrscan.runner.client import Brake
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
    """Execute notebooks; write `build/report.json` and JUnit XML, and print a summary.

    A notebook whose last pass still stands is not executed again (`cache`). Those that
    measure have the machine for themselves, after the others.

    Arguments
    ---------
    root         the project's root
    notebooks    what to execute
    parameters   the values of each notebook's parameters, by notebook
    profile      the profile's name, for provenance
    timeout_s    how long a cell may run; None: without end
    record       write records and figures to the committed folder `figures/`
    jobs         how many notebooks that do not measure may run at once
    fail_fast    begin no other notebook after one that failed
    force        execute also what has not changed
    junit        where the JUnit XML goes; None: `build/junit.xml`

    Returns
    -------
    int
        The exit status: 0 if all passed, 1 if not, 128 and more after a signal: 130 after Ctrl-C.

    Raises
    ------
    WorkspaceError
        The code that runs is not that of this checkout.
    """
    origin.check(root)
    context = Context(profile, recording=record)
    outcomes = [expected(n, parameters[n.name]) for n in notebooks]
    this = _Run(root, outcomes, context, junit or workspace.build_folder() / "junit.xml")
    with entered(context), signals.handled(this.brake.pull), _quiet():
        this.write("running")  # a report of an earlier run must not be taken for this one's
        pairs = list(zip(notebooks, outcomes, strict=True))
        alone = [pair for pair in pairs if pair[0].measures(pair[1].parameters)]
        together = [pair for pair in pairs if pair not in alone]
        # One after another they keep their order.
        stages = [(jobs, together), (1, alone)] if jobs > 1 else [(1, pairs)]
        with terminal.progress(outcomes) as (begin, on_cell, end):

            def one(pair: tuple[Notebook, Outcome]) -> None:
                notebook, outcome = pair
                failed = any(o.verdict == FAILED for o in outcomes)
                if this.brake.pulled or this.unwritten or (fail_fast and failed):
                    return
                begin(outcome)
                _execute_or_skip(this, notebook, outcome, timeout_s, force, on_cell)
                end(outcome)
                this.write("running")

            for workers, stage in stages:
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(one, stage))
        passed = bool(outcomes) and all(outcome.verdict in GOOD for outcome in outcomes)
        stopped = this.brake.pulled
        this.write(INTERRUPTED if stopped else PASSED if passed else FAILED)
        figures = this.figures()
    terminal.summary(outcomes, figures, this.written())
    return 128 + stopped if stopped else 0 if passed and not this.unwritten else 1


@dataclass
class _Run:
    """A run's account of itself; written by several threads, one at a time."""

    root: Path
    outcomes: list[Outcome]
    context: Context
    junit: Path
    brake: Brake = field(default_factory=Brake)
    unwritten: dict[Path, OSError] = field(default_factory=dict)
    started_at: str = field(default_factory=utc_now)
    started: float = field(default_factory=time.perf_counter)
    lock: Any = field(default_factory=threading.Lock)

    def write(self, verdict: str) -> None:
        """Write both reports; of one that cannot be written leave none that could be mistaken."""
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
        """The file of the report."""
        return workspace.build_folder() / "report.json"

    def _put(self, path: Path, text: str) -> None:
        try:
            write_files({path: text})
        except OSError as error:
            self.unwritten[path] = error
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def figures(self) -> list[str]:
        """The figures that these notebooks have drawn, relative to the root."""
        folder = workspace.figures_folder()
        verdicts = {outcome.notebook: outcome.verdict for outcome in self.outcomes}
        return [
            workspace.relative(folder / file)
            for file, entry in read_manifest(folder / "manifest.json").items()
            if entry["notebook"] in verdicts
            and (verdicts[entry["notebook"]] == UNCHANGED or entry["drawn_at"] >= self.started_at)
        ]

    def written(self) -> list[str]:
        """What the summary says of the reports."""
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
    """Execute a notebook, unless its last pass still stands; remember a pass."""
    target = workspace.build_folder() / "notebooks" / f"{notebook.name}.ipynb"
    if notebook.broken:
        target.unlink(missing_ok=True)
        outcome.verdict, outcome.failure = FAILED, Failure(notebook.broken)
        return
    recording = this.context.recording
    because = "a recording run runs everything" if recording else "--force" if force else None
    try:
        with cache.entry(this.root, notebook, outcome, because, keep=not recording) as last:
            if not last.stands:
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
                    brake=this.brake,
                )
    except OSError as error:  # what is left of the disk does not suffice
        outcome.verdict = FAILED
        outcome.failure = outcome.failure or Failure(f"{type(error).__name__}: {error.strerror}")


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
