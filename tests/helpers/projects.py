"""Small projects to run: a root with notebooks that are written by the test itself."""

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
    """A root with profiles and no notebooks yet."""
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
    """A notebook of a title, its parameters and some cells: markdown if they begin with #.

    The tags are the last cell's.
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
    # By hand, so that what needs no Jupyter is tested without it too.
    cell = {"id": f"cell-{number}", "metadata": {}, "source": source}
    if source.startswith("#"):
        return cell | {"cell_type": "markdown"}
    return cell | {"cell_type": "code", "outputs": [], "execution_count": None}


def read_executed(root: Path, name: str) -> Any:
    import nbformat

    return nbformat.read(root / "build" / "notebooks" / f"{name}.ipynb", 4)


def in_run(monkeypatch, **told: Any) -> None:
    """Be in a run of this context."""
    for name, value in Context(**told).variables().items():
        monkeypatch.setenv(name, value)


# What a test waits for what takes a second. A busy machine may need it; nothing else is so slow
# that passes.
LONGEST_S = 600


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for something that another process or thread does, however slow the machine is."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def written(path: Path) -> bool:
    """Whether a process has written something into a file."""
    return path.is_file() and path.stat().st_size > 0


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def can_mount() -> bool:
    """Whether a test may have a disk of its own."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


# The parameters and the cell of a notebook that measures, records and draws.
DRAWING = "seed = 0\nmeasure = True"
DRAWS = """
import matplotlib.pyplot as plt
from lrscan.evidence import figures, records
if measure:
    rows = [{"T": t, "median_ms": 0.1 * t} for t in (1, 2, 3)]
    names = ("device_label", "commit", "dirty", "measured_at", "parameters", "profile", "versions")
    told = {"device": "cpu-2-core", "driver": None, "seed": seed} | dict.fromkeys(names, "x")
    one = records.write("timing", rows, told)
else:
    one = records.read("timing", "cpu-2-core")
figure, axes = plt.subplots()
axes.plot(one.table["T"], one.table["median_ms"], color="C0")
figures.save(figure, "timing", one, alt="Time rises.")
"""

# The package under test and this folder, for processes that the tests start in another one.
HELPERS = Path(__file__).parent
PYTHONPATH = os.pathsep.join(
    filter(None, [str(HELPERS.parents[1]), str(HELPERS), os.environ.get("PYTHONPATH")])
)
