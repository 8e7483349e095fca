"""Execution of one notebook by papermill, with a reliable verdict.

papermill's own verdict is not reliable: it reports success after ``SystemExit(0)``, and marks every
cell as "completed" if the kernel died, timed out or never started. Here, a cell passes only if it
ran to its end and left no error output.
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
from lrscan.runner.client import OUTPUT_TIMEOUT_S, CancelToken, Client, Watch
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
    token: CancelToken,
) -> dict[str, Any] | None:
    """Execute a notebook in its own folder and kernel, and fill in its outcome.

    Several threads may call this at once.

    Args:
        notebook: the notebook to execute
        outcome: a result of ``outcome.expected``; filled in as cells end
        target: the path of the executed copy
        timeout_s: the time limit of a cell; None for no limit
        environment: variables of the kernel in addition to those of ``origin.variables``
        on_cell: called after each code cell
        token: stops the execution

    Returns:
        The result of ``file_audit.report`` if the notebook ran to its end: the files that it used.
    """
    started = perf_counter()
    watch = Watch(notebook, outcome, timeout_s, environment, on_cell, token)
    target.unlink(missing_ok=True)
    # papermill replaces {...} in a path by parameters.
    path = str(notebook.path).replace("{", "{{").replace("}", "}}")
    try:
        try:
            papermill.execute_notebook(
                path,
                None,  # saved below, in any case
                outcome.parameters,
                engine_name="lrscan",
                # The running Python, whichever kernel the notebook names.
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
        outcome.verdict = INTERRUPTED if token.signal else FAILED
        outcome.failure = outcome.failure or Failure(f"{type(error).__name__}: {error}")
    else:
        passed = all(cell.status == PASSED for cell in outcome.cells)
        outcome.verdict = PASSED if passed else FAILED
    finally:
        outcome.seconds = round(perf_counter() - started, 3)
        _end_event_loop()
    return watch.used


def _end_event_loop() -> None:
    """Close this thread's event loop and cancel its tasks, such as one that waits for output."""
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
    # A cell may have printed text that is not valid Unicode, such as a file name's raw bytes.
    write_files({target: nbformat.writes(executed).encode(errors="replace")})


class _Engine(Engine):
    """papermill engine that executes notebooks with :class:`lrscan.runner.client.Client`."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watch: Watch, **_: Any
    ) -> None:
        # About one kernel in ten misses the request to shut down, and is then ended by a signal;
        # by default, after 2.5 seconds.
        manager: dict[str, Any] = {"shutdown_wait_time": _SHUTDOWN_S}
        if zmq.has("curve") and "transport_encryption" in KernelManager.class_traits():
            manager["transport_encryption"] = "auto"  # otherwise each kernel warns about plain TCP
        for cell in nb_man.nb.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.metadata["jupyter"] = {"source_hidden": True}  # folded, as the notebook's own
        client = Client(
            nb_man,
            watch,
            config=Config({"KernelManager": manager}),
            kernel_name=kernel_name,
            timeout=watch.timeout_s,
            startup_timeout=_STARTUP_TIMEOUT_S,
            iopub_timeout=OUTPUT_TIMEOUT_S,
            force_raise_errors=True,  # no tag turns an error into a pass
            skip_cells_with_tag="",  # no tag skips a cell
        )
        with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
            client.log_file = log
            # Keep out the user's start-up files and settings of IPython and matplotlib.
            settings = Path(folder, "matplotlibrc")
            settings.touch()
            # There may also be no home folder for them.
            own = dict.fromkeys(_HOMES, folder) | {"MATPLOTLIBRC": str(settings)}
            client.execute(
                cwd=str(watch.notebook.path.parent),
                env=origin.variables() | watch.environment | own,
                stdout=log,
                stderr=log,
            )


papermill_engines.register("lrscan", _Engine)
