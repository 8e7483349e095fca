"""Small projects to run: a root folder with notebooks that the test itself writes."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrscan.evidence.context import Context

PARAMETERS = 'seed = 0\ndevice = "auto"'


def make_project(root: Path, profiles: str = "[quick]\nseed = 1\n") -> Path:
    """Create a project with profiles and no notebooks yet."""
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "profiles.toml").write_text(profiles)
    return root


def write_notebook(
    root: Path,
    name: str,
    *cells: str,
    parameters: str | None = PARAMETERS,
    kernel: str | None = "python3",
    language: str = "python",
    tags: tuple[str, ...] = (),
) -> None:
    """Write a notebook with a title, a cell of parameters, and the given cells.

    A cell that begins with # is markdown. The tags go to the last cell.
    """
    sources = ["# Title", *([] if parameters is None else [parameters]), *cells]
    written = [_cell(number, source) for number, source in enumerate(sources)]
    if parameters is not None:
        written[1]["metadata"]["tags"] = ["parameters"]
    written[-1]["metadata"].setdefault("tags", []).extend(tags)
    kernelspec = {"name": kernel, "display_name": kernel, "language": language}
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    document = {"cells": written, "metadata": {"kernelspec": kernelspec} if kernel else {}}
    path.write_text(json.dumps(document | {"nbformat": 4, "nbformat_minor": 5}))


def _cell(number: int, source: str) -> dict[str, Any]:
    # By hand, because some of these tests also run where Jupyter is not installed.
    cell = {"id": f"cell-{number}", "metadata": {}, "source": source}
    if source.startswith("#"):
        return cell | {"cell_type": "markdown"}
    return cell | {"cell_type": "code", "outputs": [], "execution_count": None}


def read_executed(root: Path, name: str) -> Any:
    import nbformat

    return nbformat.read(root / "build" / "notebooks" / f"{name}.ipynb", 4)


def in_run(monkeypatch, **fields: Any) -> None:
    """Set the environment variables of a run with these fields of its context."""
    for name, value in Context(**fields).variables().items():
        monkeypatch.setenv(name, value)


# The limit for events that take about a second. Only a very busy machine comes close to it.
LONGEST_S = 600


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition that another process or thread brings about holds."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def written(path: Path) -> bool:
    """Return True if the file exists and is not empty."""
    return path.is_file() and path.stat().st_size > 0


def alive(pid: int) -> bool:
    """Return True if a process still runs; a zombie does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def can_mount() -> bool:
    """Return True if a test can mount a file system of its own."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


# The parameters and the code of a notebook that measures, records and draws.
DRAWING = "seed = 0\nmeasure = True"
DRAWS = """
import matplotlib.pyplot as plt
from lrscan.evidence import figures, records
if measure:
    rows = [{"T": t, "median_ms": 0.1 * t} for t in (1, 2, 3)]
    names = ("device_label", "commit", "dirty", "measured_at", "parameters", "profile", "versions")
    origin = {"device": "cpu-2-core", "driver": None, "seed": seed} | dict.fromkeys(names, "x")
    one = records.write("timing", rows, origin)
else:
    one = records.read("timing", "cpu-2-core")
figure, axes = plt.subplots()
axes.plot(one.table["T"], one.table["median_ms"], color="C0")
figures.save(figure, "timing", one, alt="Time rises.")
"""

# The search path for processes that tests start in another folder: the package and the helpers.
HELPERS = Path(__file__).parent
PYTHONPATH = os.pathsep.join(
    filter(None, [str(HELPERS.parents[1]), str(HELPERS), os.environ.get("PYTHONPATH")])
)
