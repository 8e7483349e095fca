"""One notebook executed by papermill, and the truth about how it went.

papermill's own account is not enough: it calls a notebook a success after `SystemExit(0)`,
and every cell "completed" when the kernel died, timed out or never started. Here a cell
has passed when it ran to its end and left no error output, and nothing else is a pass.
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
import papermill
import zmq
from jupyter_client import KernelManager
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME
from jupyter_core.utils import ensure_event_loop
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from lrscan.core.files import write_files
from lrscan.evidence import origin, workspace
from lrscan.runner.catalog import Notebook
from lrscan.runner.client import OUTPUT_TIMEOUT_S, Brake, Client, Watch
from lrscan.runner.outcome import FAILED, INTERRUPTED, PASSED, Failure, Outcome

_STARTUP_TIMEOUT_S = 120
_SHUTDOWN_S = 2.0
_HOMES = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")


def execute(
    notebook: Notebook,
    outcome: Outcome,
    target: Path,
    *,
    timeout_s: int | None,
    environment: dict[str, str],
    on_cell: Callable[[], None],
    brake: Brake,
) -> dict[str, Any] | None:
    """Execute a notebook in its own folder and kernel, and fill in its outcome.

    Arguments
    ---------
    notebook      what to execute
    outcome       from `outcome.expected`; filled in as cells end
    target        where the executed copy goes
    timeout_s     how long a cell may run; None: without end
    environment   variables of the kernel besides those of `origin.variables`
    on_cell       called after each code cell
    brake         stops it; may be called in several threads at once

    Returns
    -------
    dict or None
        What `file_audit.report` said at the end: the files that a passed notebook has used.
    """
    started = perf_counter()
    watch = Watch(notebook, outcome, timeout_s, environment, on_cell, brake)
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
                # This very Python, by whatever name a kernel was called where it was saved.
                kernel_name=NATIVE_KERNEL_NAME,
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
    except (Exception, asyncio.CancelledError) as error:
        outcome.verdict = INTERRUPTED if brake.pulled else FAILED
        outcome.failure = outcome.failure or Failure(f"{type(error).__name__}: {error}")
    else:
        passed = all(cell.status == PASSED for cell in outcome.cells)
        outcome.verdict = PASSED if passed else FAILED
    finally:
        outcome.seconds = round(perf_counter() - started, 3)
        _end_event_loop()
    return watch.used


def _end_event_loop() -> None:
    """End this thread's event loop, and what still waits in it: the output of a cell, say."""
    loop = ensure_event_loop()
    waiting = asyncio.all_tasks(loop)
    for task in waiting:
        task.cancel()
    if waiting:
        loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
    loop.close()


def _save(executed: nbformat.NotebookNode, notebook: Notebook, target: Path) -> None:
    executed.metadata.papermill["input_path"] = workspace.relative(notebook.path)
    executed.metadata.papermill["output_path"] = workspace.relative(target)
    # A cell may have printed half a letter, such as a byte of a file's name.
    write_files({target: nbformat.writes(executed).encode(errors="replace")})


class _Engine(Engine):
    """papermill's hook for executing a notebook in one's own way."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watch: Watch, **_: Any
    ) -> None:
        # One kernel in ten or so does not hear the request to shut down; the default is to
        # wait for 2.5 seconds before it is told by a signal.
        manager: dict[str, Any] = {"shutdown_wait_time": _SHUTDOWN_S}
        if zmq.has("curve") and "transport_encryption" in KernelManager.class_traits():
            manager["transport_encryption"] = "auto"  # or else each kernel warns about plain TCP
        client = Client(
            nb_man,
            watch,
            config=Config({"KernelManager": manager}),
            kernel_name=kernel_name,
            timeout=watch.timeout_s,
            startup_timeout=_STARTUP_TIMEOUT_S,
            iopub_timeout=OUTPUT_TIMEOUT_S,
            force_raise_errors=True,  # no tag makes an error a pass
            skip_cells_with_tag="",  # nor lets a cell go unrun
        )
        with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
            client.log_file = log
            # Start-up files and settings of the user's own IPython and matplotlib stay out.
            settings = Path(folder, "matplotlibrc")
            settings.touch()
            # Nor is there always a home where they could lie.
            own = dict.fromkeys(_HOMES, folder) | {"MATPLOTLIBRC": str(settings)}
            client.execute(
                cwd=str(watch.notebook.path.parent),
                env=origin.variables() | watch.environment | own,
                stdout=log,
                stderr=log,
            )


papermill_engines.register("lrscan", _Engine)
