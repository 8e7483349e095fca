"""Client of one notebook's kernel: judges each cell, and leaves no process behind."""

import ast
import asyncio
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient

from lrscan.evidence import origin, workspace
from lrscan.runner import file_audit
from lrscan.runner.catalog import Notebook
from lrscan.runner.outcome import (
    FAILED,
    INTERRUPTED,
    PASSED,
    CellOutcome,
    Failure,
    Outcome,
    shorten,
)

OUTPUT_TIMEOUT_S = 60  # on a busy machine, large figures arrive late
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class CellFailed(Exception):
    """Error for a cell that ended without an exception, but did not pass."""


class Stopped(Exception):
    """Error for a cell that is not run because the run was stopped."""


class CancelToken:
    """Stops all notebooks that are being executed, from any thread or signal handler.

    Attributes:
        signal: the number of the signal that stopped the run; None while the run continues
        clients: the clients whose kernels are running
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.clients: set[Client] = set()

    def cancel(self, signal_number: int) -> None:
        """Kill all kernels. Their cells count as interrupted, and no other cell begins."""
        self.signal = self.signal or signal_number
        for client in tuple(self.clients):
            client.kill()


@dataclass
class Watch:
    """One execution of a notebook: the input of the engine, and what it leaves behind.

    Attributes:
        notebook: the notebook
        outcome: its outcome, which is filled in as cells end
        timeout_s: the time limit of a cell; None for no limit
        environment: additional environment variables of the kernel
        on_cell: called after each code cell
        token: stops the execution
        executed: the executed notebook, once it has begun
        used: the files that the notebook used, once it has passed
    """

    notebook: Notebook
    outcome: Outcome
    timeout_s: int | None
    environment: dict[str, str]
    on_cell: Callable[[], None]
    token: CancelToken
    executed: nbformat.NotebookNode | None = None
    used: dict[str, Any] | None = None


class Client(PapermillNotebookClient):
    """papermill's client for one notebook and one kernel."""

    def __init__(self, nb_man: Any, watch: Watch, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self.watch = watch
        self.manager: Any = None
        self.log_file: Any = None
        self.on_cell_executed = self._refuse_exit

    def create_kernel_manager(self) -> Any:
        self.manager = super().create_kernel_manager()
        # "python3" is the running Python, even if another installation has a kernel of that name.
        self.manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        return self.manager

    def execute(self, **kwargs: Any) -> Any:
        self.watch.token.clients.add(self)
        try:
            return super().execute(**kwargs)
        except BaseException as error:
            if self.watch.outcome.failure is None:  # before the first cell or after the last
                self.watch.outcome.failure = self._failure(error)
            raise
        finally:
            self.watch.token.clients.discard(self)
            self.kill()

    def papermill_execute_cells(self) -> None:
        """Run the cells in order, up to the first one that does not pass."""
        self.watch.executed = self.nb
        since = time()
        package = Path(file_audit.__file__).parents[1]
        places = workspace.find_root(), workspace.build_folder(), package, origin.PACKAGE
        folders = [str(place.resolve()) for place in places]
        self._ask(f"watch(*{folders!r})")
        self._run_all()
        text = self._ask("report()")
        self.watch.used = json.loads(ast.literal_eval(text)) | {"since": since} if text else None

    def _ask(self, call: str) -> str | None:
        """Call a function of ``file_audit`` in the kernel, and return the repr of its result."""
        expression = f"__import__('lrscan.runner.file_audit', fromlist=['_']).{call}"
        reply = run_sync(self.kc.execute_interactive)(
            "",
            silent=True,
            user_expressions={"it": expression},
            allow_stdin=False,
            output_hook=lambda _: None,
            timeout=OUTPUT_TIMEOUT_S,
        )
        answer = reply["content"].get("user_expressions", {}).get("it", {})
        return answer.get("data", {}).get("text/plain")

    def _run_all(self) -> None:
        entries = {entry.number: entry for entry in self.watch.outcome.cells}
        number = 0
        for index, cell in enumerate(self.nb.cells):
            # papermill's cell of parameters follows the notebook's own, and shares its number.
            number += "injected-parameters" not in cell.metadata.tags
            self.nb_man.cell_start(cell, index)
            if number in entries and cell.cell_type == "code":
                # An exercise is a stub, with the solution in its metadata.
                cell.source = cell.metadata.get("solution", cell.source)
                self._run(cell, index, entries[number])
            self.nb_man.cell_complete(cell, cell_index=index)

    def _run(self, cell: nbformat.NotebookNode, index: int, entry: CellOutcome) -> None:
        started = perf_counter()
        try:
            if self.watch.token.signal:
                raise Stopped
            self.execute_cell(cell, index)
            if any(output.output_type == "error" for output in cell.outputs):
                raise CellFailed("the cell ended, but left an error output")
            entry.status = PASSED
        except BaseException as error:
            entry.status = INTERRUPTED if self.watch.token.signal else FAILED
            if isinstance(error, CellTimeoutError):
                self._interrupt(cell)
            if not isinstance(error, CellExecutionError | CellFailed):
                self.shutdown_kernel = "immediate"  # the kernel may not answer a request
            self.watch.outcome.failure = self._failure(error, cell, entry.number)
            self.nb_man.cell_exception(cell, cell_index=index)
            self.nb_man.cell_complete(cell, cell_index=index)
            raise
        finally:
            entry.seconds = round((entry.seconds or 0.0) + perf_counter() - started, 3)
            self.watch.on_cell()

    def _refuse_exit(self, *, execute_reply: dict[str, Any], **_: Any) -> None:
        """Raise an error after ``exit()``, which stops the kernel without an error output."""
        payload = execute_reply["content"].get("payload") or []
        if any(item.get("source") == "ask_exit" for item in payload):
            raise CellFailed("exit() ended the notebook")

    def _interrupt(self, cell: nbformat.NotebookNode) -> None:
        """Interrupt a cell that runs too long, so that its traceback shows where it is."""

        async def interrupt() -> None:
            await self.manager.interrupt_kernel()
            for _ in range(30):
                if any(output.output_type == "error" for output in cell.outputs):
                    return
                await asyncio.sleep(0.1)

        run_sync(interrupt)()

    def kill(self) -> None:
        """Kill the processes that a kernel leaves running: its children outlive it."""
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
        """Describe an error and its place."""
        shown = [o for o in (cell.outputs if cell else []) if o.output_type == "error"]
        trace = shown[-1].traceback if shown else self._end_of_log()
        trace = _COLOURS.sub("", "\n".join(trace)).splitlines()
        failure = Failure(self._message(error, shown), number, traceback=trace)
        if cell and number:
            heading = _heading(self.watch.notebook.cells[: number - 1])
            failure.heading = heading and shorten(heading)
            lines = cell.source.splitlines()
            failure.line = _line(trace, cell.execution_count)
            shown_line = failure.line or next(n for n, text in enumerate(lines, 1) if text.strip())
            failure.source = shorten(lines[shown_line - 1].strip())
        return failure

    def _message(self, error: BaseException, shown: list[nbformat.NotebookNode]) -> str:
        if self.watch.token.signal:
            return "the run was stopped"
        if isinstance(error, CellTimeoutError):
            if "IOPub" in str(error):
                return f"the cell's output did not arrive within {OUTPUT_TIMEOUT_S} s"
            return f"timed out: the cell ran longer than {self.watch.timeout_s} s"
        if isinstance(error, DeadKernelError):
            return f"the kernel died{self._exit_status()}"
        if isinstance(error, CellExecutionError):
            return f"{error.ename}: {error.evalue}"
        if isinstance(error, CellFailed):
            return ": ".join([str(error), *(f"{o.ename}: {o.evalue}" for o in shown)])
        return f"{type(error).__name__}: {error}"

    def _exit_status(self) -> str:
        process = getattr(getattr(self.manager, "provisioner", None), "process", None)
        code = process.poll() if process else None
        if code is None:
            return ""
        if code >= 0:
            return f" (exit status {code})"
        name = signal.Signals(-code).name
        hint = ", which is how the system ends a process when memory runs out" * (name == "SIGKILL")
        return f" ({name}{hint})"

    def _end_of_log(self) -> list[str]:
        """Return the end of the kernel's own output, for one that did not start or that died."""
        self.log_file.seek(0)
        return self.log_file.read().decode(errors="replace").splitlines()[-30:]


def _heading(cells: list[dict[str, Any]]) -> str | None:
    """Return the last heading in some cells."""
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.M)
    return found[-1] if found else None


def _line(traceback: list[str], execution_count: int | None) -> int | None:
    """Return the innermost line of the cell that a traceback names."""
    text = "\n".join(traceback)
    found = re.findall(rf"^\s*Cell In\[{execution_count}\], line (\d+)", text, re.M)
    return int(found[-1]) if found else None
