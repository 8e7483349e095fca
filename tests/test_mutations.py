"""The checks bite: copies of the package, each with one deliberate mistake, must fail them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrscan

TESTS = Path(__file__).parent

# (file, what is right, what is wrong)
MUTANTS = {
    "none": None,
    "operands swapped": (
        "algebra.py",
        "return a2 * a1, a2 * x1 + x2",
        "return a2 * a1, a1 * x2 + x1",
    ),
    "carry dropped at a block edge": (
        "cpu/kernels.py",
        "carry_over(here, product, end, states, count)",
        "copy(here, end, count)",
    ),
    "da shifted by a step": ("sweep.py", '"BEFORE": -1', '"BEFORE": 0'),
    "h0 ignored in the gradient": ("cpu/steps.py", "elif at[START] != 0:", "elif False:"),
    "conjugate forgotten": ("cpu/steps.py", "step(a.conjugate(), x, h)", "step(a, x, h)"),
    "last strip forgotten": ("cpu/steps.py", "(width + lanes - 1) // lanes", "width // lanes"),
}


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_wrong_scan_is_caught(mistake, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(lrscan.__file__).parent, tmp_path / "lrscan", ignore=ignored)
    if MUTANTS[mistake]:
        name, right, wrong = MUTANTS[mistake]
        source = tmp_path / "lrscan" / name
        text = source.read_text()
        assert text.count(right) == 1, f"{name} has {text.count(right)} times {right!r}"
        source.write_text(text.replace(right, wrong))
    done = subprocess.run(
        [sys.executable, TESTS / "mutants.py"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
    )
    if MUTANTS[mistake] is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "times its bound" in done.stderr, done.stderr
