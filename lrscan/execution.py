"""One notebook executed by papermill, and the truth about how it went.

papermill's own account is not enough: it calls a notebook a success after `SystemExit(0)`,
and every cell "completed" when the kernel died, timed out or never started. Here a cell
has passed when it ran to its end and left no error output, and nothing else is a pass.
"""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
import papermill
import zmq
from jupyter_client import KernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from lrscan import workspace
from lrscan.notebooks import Notebook
from lrscan.outcome import FAILED, INTERRUPTED, PASSED, Cell, Failure, Outcome

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STARTUP_TIMEOUT_S = 120
_SHUTDOWN_S = 2.0
_OUTPUT_TIMEOUT_S = 60  # large figures on a busy machine arrive late


class CellFailed(Exception):
    """A cell that ended quietly and did not pass all the same."""


def execute(
    notebook: Notebook,
    outcome: Outcome,
    target: Path,
    *,
    timeout_s: int | None,
    environment: dict[str, str],
    on_cell: Callable[[], None],
) -> None:
    """Execute a notebook in its own folder and kernel, and fill in its outcome.

    Arguments
    ---------
    notebook      what to execute
    outcome       from `outcome.expected`; filled in as cells end
    target        where the executed copy goes
    timeout_s     how long a cell may run; None: without end
    environment   variables of the kernel besides those of this process
    on_cell       called after each code cell

    Raises
    ------
    KeyboardInterrupt
        After the kernel was stopped and the executed copy saved.
    """
    started = perf_counter()
    watch = _Watch(notebook, outcome, timeout_s, environment, on_cell)
    target.unlink(missing_ok=True)
    # papermill formats paths with the parameters.
    path = str(notebook.path).replace("{", "{{").replace("}", "}}")
    try:
        try:
            papermill.execute_notebook(
                path,
                None,  # saved below, whatever happens
                outcome.parameters,
                engine_name="lrscan",
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                progress_bar=False,
                language="python",
                watch=watch,
            )
        finally:
            if watch.executed is not None:
                _save(watch.executed, notebook, target)
                outcome.executed = workspace.relative(target)
    except KeyboardInterrupt:
        outcome.verdict = INTERRUPTED
        raise
    except (Exception, asyncio.CancelledError) as error:
        outcome.verdict = FAILED
        outcome.failure = outcome.failure or Failure(f"{type(error).__name__}: {error}")
    else:
        passed = all(cell.status == PASSED for cell in outcome.cells)
        outcome.verdict = PASSED if passed else FAILED
    finally:
        outcome.seconds = round(perf_counter() - started, 3)


def _save(executed: nbformat.NotebookNode, notebook: Notebook, target: Path) -> None:
    executed.metadata.papermill["input_path"] = workspace.relative(notebook.path)
    executed.metadata.papermill["output_path"] = workspace.relative(target)
    workspace.write_files({target: nbformat.writes(executed)})


@dataclass
class _Watch:
    """What the engine has to know, and what it leaves behind."""

    notebook: Notebook
    outcome: Outcome
    timeout_s: int | None
    environment: dict[str, str]
    on_cell: Callable[[], None]
    executed: nbformat.NotebookNode | None = None


class _Engine(Engine):
    """papermill's hook for executing a notebook in one's own way."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, watch: _Watch, **_: Any) -> None:
        # One kernel in ten or so does not hear the request to shut down; the default is to
        # wait for 2.5 seconds before it is told by a signal.
        manager: dict[str, Any] = {"shutdown_wait_time": _SHUTDOWN_S}
        if zmq.has("curve") and "transport_encryption" in KernelManager.class_traits():
            manager["transport_encryption"] = "auto"  # or else each kernel warns about plain TCP
        client = _Client(
            nb_man,
            watch,
            config=Config({"KernelManager": manager}),
            kernel_name=kernel_name,
            timeout=watch.timeout_s,
            startup_timeout=_STARTUP_TIMEOUT_S,
            iopub_timeout=_OUTPUT_TIMEOUT_S,
            force_raise_errors=True,  # no tag makes an error a pass
            skip_cells_with_tag="",  # nor lets a cell go unrun
        )
        # A backend that is forced from outside would keep figures out of the notebook.
        inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        with tempfile.TemporaryFile() as log:
            client.log_file = log
            client.execute(
                cwd=str(watch.notebook.path.parent),
                env=inherited | watch.environment,
                stdout=log,
                stderr=log,
            )


papermill_engines.register("lrscan", _Engine)


class _Client(PapermillNotebookClient):
    """papermill's client, with a verdict on each cell and no kernel left behind."""

    def __init__(self, nb_man, watch: _Watch, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self.watch = watch
        self.manager = None
        self.log_file = None
        self.on_cell_executed = self._refuse_exit

    def create_kernel_manager(self):
        self.manager = super().create_kernel_manager()
        return self.manager

    def execute(self, **kwargs: Any):
        try:
            return super().execute(**kwargs)
        except BaseException as error:
            if self.watch.outcome.failure is None:  # before the first cell or after the last
                self.watch.outcome.failure = self._failure(error)
            raise
        finally:
            self._kill_group()

    def papermill_execute_cells(self) -> None:
        """Run the cells in order up to the first that does not pass."""
        self.watch.executed = self.nb
        entries = {entry.number: entry for entry in self.watch.outcome.cells}
        number = 0
        for index, cell in enumerate(self.nb.cells):
            # The cell with the given values follows the notebook's own, and counts with it.
            number += "injected-parameters" not in cell.metadata.tags
            self.nb_man.cell_start(cell, index)
            if number in entries and cell.cell_type == "code":
                # An exercise is a stub with its solution beside it.
                cell.source = cell.metadata.get("solution", cell.source)
                self._run(cell, index, entries[number])
            self.nb_man.cell_complete(cell, cell_index=index)

    def _run(self, cell: nbformat.NotebookNode, index: int, entry: Cell) -> None:
        started = perf_counter()
        try:
            self.execute_cell(cell, index)
            if any(output.output_type == "error" for output in cell.outputs):
                raise CellFailed("the cell ended, but left an error output")
            entry.status = PASSED
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            entry.status = INTERRUPTED if interrupted else FAILED
            if isinstance(error, CellTimeoutError):
                self._interrupt(cell)
            if not isinstance(error, CellExecutionError | CellFailed):
                self.shutdown_kernel = "immediate"  # it would not hear a polite request
            self.watch.outcome.failure = self._failure(error, cell, entry.number)
            self.nb_man.cell_exception(cell, cell_index=index)
            self.nb_man.cell_complete(cell, cell_index=index)
            raise
        finally:
            entry.seconds = round((entry.seconds or 0.0) + perf_counter() - started, 3)
            self.watch.on_cell()

    def _refuse_exit(self, *, execute_reply: dict[str, Any], **_: Any) -> None:
        """`exit()` asks the front end to stop the kernel, and leaves no error."""
        payload = execute_reply["content"].get("payload") or []
        if any(item.get("source") == "ask_exit" for item in payload):
            raise CellFailed("exit() ended the notebook")

    def _interrupt(self, cell: nbformat.NotebookNode) -> None:
        """Interrupt a cell that runs too long, so that its traceback shows where it was."""

        async def interrupt() -> None:
            await self.manager.interrupt_kernel()
            for _ in range(30):
                if any(output.output_type == "error" for output in cell.outputs):
                    return
                await asyncio.sleep(0.1)

        run_sync(interrupt)()

    def _kill_group(self) -> None:
        """Kill what a kernel left running: a dead one does not stop its children."""
        provisioner = getattr(self.manager, "provisioner", None)
        group = getattr(provisioner, "pgid", None)
        if group and group != os.getpgrp():
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _failure(
        self,
        error: BaseException,
        cell: nbformat.NotebookNode | None = None,
        number: int | None = None,
    ) -> Failure:
        """What to tell about an error, and where it was."""
        shown = [o for o in (cell.outputs if cell else []) if o.output_type == "error"]
        trace = shown[-1].traceback if shown else self._last_words()
        trace = _COLOURS.sub("", "\n".join(trace)).splitlines()
        failure = Failure(self._message(error, shown), number, traceback=trace)
        if cell:
            failure.heading = _heading(self.watch.notebook.cells[: number - 1])
            lines = cell.source.splitlines()
            failure.line = _line(trace, cell.execution_count)
            shown_line = failure.line or next(n for n, text in enumerate(lines, 1) if text.strip())
            failure.source = lines[shown_line - 1].strip()
        return failure

    def _message(self, error: BaseException, shown: list[nbformat.NotebookNode]) -> str:
        if isinstance(error, CellTimeoutError):
            if "IOPub" in str(error):
                return f"the cell's output did not arrive within {_OUTPUT_TIMEOUT_S} s"
            return f"timed out: the cell ran longer than {self.watch.timeout_s} s"
        if isinstance(error, DeadKernelError):
            return f"the kernel died{self._exit_status()}"
        if isinstance(error, CellExecutionError):
            return f"{error.ename}: {error.evalue}"
        if isinstance(error, CellFailed):
            return ": ".join([str(error), *(f"{o.ename}: {o.evalue}" for o in shown)])
        if isinstance(error, KeyboardInterrupt):
            return "the run was stopped"
        return f"{type(error).__name__}: {error}"

    def _exit_status(self) -> str:
        process = getattr(getattr(self.manager, "provisioner", None), "process", None)
        code = process.poll() if process else None
        if code is None:
            return ""
        return f" ({signal.Signals(-code).name})" if code < 0 else f" (exit status {code})"

    def _last_words(self) -> list[str]:
        """The end of what the kernel itself wrote, for one that did not come up or died."""
        self.log_file.seek(0)
        return self.log_file.read().decode(errors="replace").splitlines()[-30:]


def _heading(cells: list[dict[str, Any]]) -> str | None:
    """The last heading of some cells."""
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.M)
    return found[-1] if found else None


def _line(traceback: list[str], execution_count: int | None) -> int | None:
    """The innermost line of the cell itself that a traceback names."""
    text = "\n".join(traceback)
    found = re.findall(rf"^\s*Cell In\[{execution_count}\], line (\d+)", text, re.M)
    return int(found[-1]) if found else None
