"""The checks can fail: a copy of the package with one deliberate mistake does not pass them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import HELPERS
from recurrences import KINDS

import lrscan

TESTS = Path(__file__).parents[1]

# (file, the right text, the wrong text)
MUTANTS = {
    "none": None,
    "operands swapped": (
        "core/algebra.py",
        "return a2 * a1, a2 * x1 + x2",
        "return a2 * a1, a1 * x2 + x1",
    ),
    "carry dropped at the edge of a chunk": (
        "cpu/scan.py",
        "passed_on = carry_over(tile.carry_out, room.P, room.R, carry, tile.columns)",
        "passed_on = copy(tile.carry_out, room.R, tile.columns) is None",
    ),
    "da shifted by a step": ("core/sweep.py", '"before": -1', '"before": 0'),
    "h0 ignored in the gradient": ("cpu/steps.py", "elif at.start != 0:", "elif False:"),
    "conjugate forgotten": ("cpu/steps.py", "return adjoint(a)", "return a"),
    "last strip forgotten": ("cpu/steps.py", "(columns + strip - 1) // strip", "columns // strip"),
}

LAYOUTS = ["few columns", "columns", "time"]
# Where maps are composed; the other mistakes show in layouts of many columns.
CAUGHT_IN = {"operands swapped": "time"}

# The same for each backend: the state that enters a chunk or a tile of many steps is lost in it. If
# coefficients forget, nothing would be left of that state anyway.
HIDDEN = {
    "cpu": (
        "cpu/lanes_over_time.py",
        "write_P(P_at, s, P)",
        "write_P(P_at, s, P - P)",
    ),
    "cuda": (
        "cuda/single_pass/between_tiles.py",
        "return map_at(job.room, slot_of(job.tile, job.tile.chunks - 1, j))",
        "return zero_a, map_at(job.room, slot_of(job.tile, job.tile.chunks - 1, j))[1]",
    ),
}


def package_with(mistake, folder):
    """Copy the package to a folder, with a mistake in it unless that is None."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(lrscan.__file__).parent, folder / "lrscan", ignore=ignored)
    if mistake:
        name, right, wrong = mistake
        source = folder / "lrscan" / name
        text = source.read_text()
        assert text.count(right) == 1, f"{name} has {right!r} {text.count(right)} times"
        source.write_text(text.replace(right, wrong))


def checked(folder, kinds, layouts, backend="cpu"):
    """Check the package in a folder, and return (exit status, output).

    One layout suffices to catch a mistake, and each has kernels to compile.
    """
    options, environment = [HELPERS / "mutants.py", *layouts, "--", *kinds], {}
    if backend == "cuda":
        environment = {"NUMBA_ENABLE_CUDASIM": "1"}
        test = TESTS / "cuda/simulator/test_cuda_kernels.py::test_single_pass_agrees_with_the_loop"
        options = ["-m", "pytest", "-p", "no:cacheprovider"]
        options += [f"{test}[{kind}-one-column-]" for kind in kinds]
    done = subprocess.run(
        [sys.executable, *options],
        env=os.environ | environment | {"PYTHONPATH": f"{folder}{os.pathsep}{HELPERS}"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_wrong_scan_is_caught(mistake, tmp_path):
    package_with(MUTANTS[mistake], tmp_path)
    layouts = LAYOUTS if MUTANTS[mistake] is None else [CAUGHT_IN.get(mistake, "columns")]
    status, output = checked(tmp_path, KINDS, layouts)
    if MUTANTS[mistake] is None:
        assert status == 0, output
    else:
        assert status == 1
        assert "times its bound" in output, output


@pytest.mark.parametrize("backend", HIDDEN)
def test_a_lost_state_is_caught_where_it_lasts_and_not_where_it_is_forgotten(backend, tmp_path):
    package_with(HIDDEN[backend], tmp_path)
    status, output = checked(tmp_path, ["forgets"], ["time"], backend)
    assert status == 0, output
    status, output = checked(tmp_path, ["lasts"], ["time"], backend)
    assert status == 1
    assert "times its bound" in output, output
