"""Isolation of results from their surroundings: the code that runs, and the user's settings.

Notebooks and measurements run in subprocesses. A subprocess imports the same package as the process
that starts it. It inherits the user's settings except those that would change whether assertions
run or how a figure looks.
"""

import os
from pathlib import Path

from lrscan.evidence import workspace

PACKAGE = Path(__file__).resolve().parents[1]
# Python's own variables can change what runs: they can switch off assertions, turn warnings into
# errors or name a start-up file. A subprocess gets only those that name locations, and none of
# matplotlib's.
_OF_PYTHON = (
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUSERBASE",
)
_OF_MATPLOTLIB = ("MATPLOTLIBRC", "MPLBACKEND")


def variables() -> dict[str, str]:
    """Return the environment variables for a subprocess."""
    given = {
        name: value
        for name, value in os.environ.items()
        if (not name.startswith("PYTHON") or name in _OF_PYTHON) and name not in _OF_MATPLOTLIB
    }
    if (PACKAGE.parent / workspace.MARKER).is_file():  # a checkout, where another is installed
        paths = [str(PACKAGE.parent), given.get("PYTHONPATH")]
        given["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return given


def check(root: Path) -> None:
    """Raise an error if the running code is not the code of a checkout.

    Results would otherwise carry the commit of code that did not run.

    Raises:
        WorkspaceError: a file of the package in ``root`` differs from that of the running package
    """
    own = root / PACKAGE.name
    if not (own / "__init__.py").is_file() or own.resolve() == PACKAGE:
        return
    there, here = _files(own), _files(PACKAGE)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise workspace.WorkspaceError(
                f"the running code is {PACKAGE}, but its {name} differs from the one in {own}: "
                "results would carry the commit of code that did not run. Start it with "
                f"`python -m {PACKAGE.name}` in {root}, or run `pip install -e .` there first."
            )


def _files(package: Path) -> dict[str, bytes]:
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
