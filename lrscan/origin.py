"""What a result owes to its surroundings: the code that runs, and the settings of who starts it.

Notebooks and measurements run in processes of their own. These import the package that starts
them, and are told of the caller's settings only what does not decide whether an assertion is made
or how a figure looks.
"""

import os
from pathlib import Path

from lrscan import workspace

PACKAGE = Path(__file__).resolve().parent
# Python's own variables change what runs: no assertions, warnings as errors, a start-up file. So
# a process is given only those that say where things are; and none of matplotlib's settings.
_OF_PYTHON = (
    "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH",
    "PYTHONPLATLIBDIR", "PYTHONPYCACHEPREFIX", "PYTHONUSERBASE",
)  # fmt: skip
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
