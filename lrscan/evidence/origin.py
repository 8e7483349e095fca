"""What a result owes to its surroundings: the code that runs, and the settings of who starts it.

Notebooks and measurements run in processes of their own. These import the package that starts
them, and are told of the caller's settings only what does not decide whether an assertion is made
or how a figure looks.
"""

import os
from pathlib import Path

from lrscan.evidence import workspace

PACKAGE = Path(__file__).resolve().parents[1]
# Python's own variables change what runs: no assertions, warnings as errors, a start-up file. So
# a process is given only those that say where things are; and none of matplotlib's settings.
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
    """The environment that processes of ours are given."""
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
    """Refuse to make anything in a checkout by other code than its own.

    Raises
    ------
    WorkspaceError
        The package in `root` has other files than the one that runs, so that what is made would
        bear the commit of code that did not run.
    """
    own = root / PACKAGE.name
    if not (own / "__init__.py").is_file() or own.resolve() == PACKAGE:
        return
    there, here = _files(own), _files(PACKAGE)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise workspace.WorkspaceError(
                f"the code that runs is {PACKAGE}, and its {name} is not the one of {own}: what "
                "is made here would bear the commit of code that did not run. Start it by "
                f"`python -m {PACKAGE.name}` in {root}, or `pip install -e .` there first."
            )


def _files(package: Path) -> dict[str, bytes]:
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
