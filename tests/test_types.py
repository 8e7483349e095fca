"""Type hints: mypy on the package, and on programs that use it."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="types are checked by mypy")

import lrscan  # noqa: E402

ROOT = Path(__file__).parents[1]
USE = """
from torch import Tensor, rand
from lrscan import linear_recurrence
def decay(a: Tensor, x: Tensor) -> Tensor:
    return linear_recurrence(a, x, x[0], dim=0, reverse=True, algorithm="blocked")
"""

# A user's own cell names its gates.
CELL = """
import torch
from torch import Tensor
from lrscan.nn import LinearSurrogateRNN
class Mine(LinearSurrogateRNN):
    gates = {"forget": "xb", "new": "xb"}
    def cell(self, forget: Tensor, new: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.sigmoid(forget), new, None
"""


def mypy(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "mypy", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_the_package_passes_mypy():
    status, said = mypy("--cache-dir", str(ROOT / "build" / ".mypy_cache"))
    assert status == 0, said


@pytest.mark.parametrize(
    ("program", "old", "new", "complaint"),
    [
        (USE, "", "", None),
        (USE, "dim=0", 'dim="T"', 'Argument "dim"'),
        (USE, "-> Tensor", "-> str", "Incompatible return value"),
        (USE, "reverse=True", "revers=True", "Unexpected keyword"),
        (USE, "(a, x, x[0]", "(a, x, x[0], 0", "gets multiple values"),
        (CELL, "", "", None),
        (CELL, "None]", "str]", "incompatible with supertype"),
    ],
    ids=["right", "dim", "result", "keyword", "positional", "cell", "read-out"],
)
def test_a_wrong_call_is_a_type_error(tmp_path, program, old, new, complaint):
    program = program.replace(old, new, 1) if old else program
    (tmp_path / "program.py").write_text(program)
    # mypy reads the package's own modules, but does not check them again.
    cache = str(ROOT / "build" / ".mypy_users")
    status, said = mypy(
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        cache,
        str(tmp_path / "program.py"),
    )
    assert (status == 0) == (complaint is None), said
    assert complaint is None or complaint in said


def test_every_public_function_is_annotated():
    exported = [getattr(lrscan, name) for name in lrscan.__all__ if not name.startswith("__")]
    functions = [one for one in exported if inspect.isfunction(one)]
    assert len(functions) >= 2
    for function in functions:
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty, function.__name__
        for name, parameter in signature.parameters.items():
            assert parameter.annotation is not signature.empty, f"{function.__name__}: {name}"
