"""Small projects to run: a root with notebooks that are written by the test itself."""

import os
from pathlib import Path

import nbformat
import psutil

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
    kernel: str = "python3",
    tags: tuple[str, ...] = (),
) -> None:
    """A notebook of a title, its parameters and some cells: markdown if they begin with #.

    The tags are the last cell's.
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    notebook.cells.append(nbformat.v4.new_markdown_cell("# Title"))
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata.tags = ["parameters"]
        notebook.cells.append(cell)
    for source in cells:
        new = nbformat.v4.new_markdown_cell if source.startswith("#") else nbformat.v4.new_code_cell
        notebook.cells.append(new(source))
    notebook.cells[-1].metadata.tags = [*notebook.cells[-1].metadata.get("tags", []), *tags]
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


def read_executed(root: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(root / "build" / "notebooks" / f"{name}.ipynb", 4)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# The package under test, for processes that the tests start in another folder.
PYTHONPATH = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)
