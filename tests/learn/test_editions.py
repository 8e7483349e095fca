"""The lessons run with only the package installed: no checkout, and no numba-cuda."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lessons import NOTEBOOKS, ROOT, runs_in_simulator

from lrscan.evidence.context import Context
from lrscan.learn import editions

# Runs the code of some notebooks, one after the other, in this folder, as their kernels would.
RUN = """
import json, pathlib, sys
if "without-numba-cuda" in sys.argv[1]:
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "NumbaCudaFinder"]
    sys.modules["numba_cuda"] = None
for path in map(pathlib.Path, sys.argv[2:]):
    names = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], 1):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.stem}, cell {number}", "exec"), names)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder outside every checkout, with both editions and a copy of the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(ROOT / "lrscan", folder / "site" / "lrscan")
    editions.write(ROOT, folder)
    return folder


def run(elsewhere, edition, lessons, *, without="", checked=False):
    variables = {k: v for k, v in os.environ.items() if not k.startswith("LRSCAN_")}
    variables["PYTHONPATH"] = str(elsewhere / "site")
    if checked:  # a wrong answer is an error
        variables |= Context(notebook="learn").variables()
    command = [sys.executable, "-c", RUN, without, *(f"{name}.ipynb" for name in lessons)]
    return subprocess.run(
        command, cwd=elsewhere / edition, env=variables, capture_output=True, text=True
    )


def test_the_students_lessons_run_with_only_the_package(elsewhere):
    before = set(elsewhere.rglob("*"))
    done = run(elsewhere, "student", [notebook.path.stem for notebook in NOTEBOOKS])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("figures are shown, and not saved") == 1
    made = {path for path in set(elsewhere.rglob("*")) - before if "__pycache__" not in path.parts}
    assert made == set()


def test_the_lessons_in_the_simulator_run_without_numba_cuda(elsewhere):
    lessons = [notebook.path.stem for notebook in NOTEBOOKS if runs_in_simulator(notebook)]
    assert len(lessons) == 4
    done = run(elsewhere, "solutions", lessons, without="without-numba-cuda", checked=True)
    assert done.returncode == 0, done.stderr


def test_elsewhere_is_outside_every_checkout(elsewhere):
    script = (
        "from lrscan.evidence import workspace\nprint(workspace.__file__)\nworkspace.find_root()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=elsewhere / "student",
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(elsewhere / "site")},
    )
    assert Path(done.stdout.strip()).is_relative_to(elsewhere)
    assert "WorkspaceError" in done.stderr
