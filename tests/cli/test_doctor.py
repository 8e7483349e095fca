"""Tests of the doctor: it finds what is wrong with a machine and gives a command that fixes it."""

import math
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrscan.cli import doctor
from lrscan.cli.doctor import GOOD, NOTE, PROBLEM, MachineFacts
from lrscan.experiments import inputs

ROOT = Path(__file__).parents[2]
VERSIONS = {name: "1.0" for name in doctor.PACKAGES} | {"nvidia-cuda-nvcc": "13.0.88"}
LAPTOP = MachineFacts((3, 12, 1), VERSIONS, memory_gib=16, free_gib=100)
H100 = replace(
    LAPTOP, torch_cuda="13.0", driver="580.65.06", gpus=[("NVIDIA H100 80GB HBM3", (9, 0), 79.6)]
)


def problems(machine):
    return {f.what: f for f in doctor.judge(machine) if f.status == PROBLEM}


@pytest.mark.parametrize("machine", [LAPTOP, H100], ids=["laptop", "H100"])
def test_a_good_machine_has_no_problem(machine):
    assert problems(machine) == {}


def test_the_report_lists_what_a_machine_has():
    found = {finding.what: finding.found for finding in doctor.judge(H100)}
    assert found["GPU"] == "NVIDIA H100 80GB HBM3, compute capability 9.0, 80 GiB"
    assert (found["driver"], found["torch built for"]) == ("580.65.06", "CUDA 13.0")
    assert (found["CUDA toolkit"], found["memory"]) == ("13", "16.0 GiB")
    assert {f.what: f.found for f in doctor.judge(LAPTOP)}["GPU"].startswith("none")


# name: (machine, name of the finding, words in the finding, words in the command that fixes it)
WRONG = {
    "old Python": (replace(LAPTOP, python=(3, 10, 1)), "Python", "3.10.1", "make venv"),
    "new Python": (replace(LAPTOP, python=(3, 14, 0)), "Python", "3.14.0", "make venv"),
    "no torch": (replace(LAPTOP, versions=VERSIONS | {"torch": None}), "torch", "not", "-e ."),
    "no papermill": (
        replace(LAPTOP, versions=VERSIONS | {"papermill": None}),
        "papermill",
        "notebooks cannot run",
        "[notebooks]",
    ),
    "mixed CUDA majors": (
        replace(H100, versions=VERSIONS | {"nvidia-cuda-nvcc": "12.8.1"}),
        "CUDA toolkit",
        "wrong version for CUDA 13: nvidia-cuda-nvcc 12",
        "numba-cuda[cu13]",
    ),
    "two toolkits": (
        replace(H100, versions=VERSIONS | {"nvidia-nvjitlink-cu12": "12.8.1"}),
        "CUDA toolkit",
        "wrong version for CUDA 13: nvidia-nvjitlink-cu12 12",
        "numba-cuda[cu13]",
    ),
    "old toolkit": (
        replace(H100, torch_cuda="12.6"),
        "CUDA toolkit",
        "for CUDA 12: nvidia-cuda-nvcc 13",
        "cu12",
    ),
    "old driver": (replace(H100, driver="535.104"), "driver", "older than 580", "conda"),
    "ancient driver": (replace(H100, driver="470.1"), "driver", "older than 580", "conda"),
    "torch for the CPU": (replace(H100, torch_cuda=None), "driver", "cannot use a GPU", "torch"),
    "old GPU": (replace(H100, gpus=[("Tesla K80", (3, 7), 12.0)]), "GPU", "3.7", "-p device=cpu"),
    "no GPU seen": (replace(H100, gpus=[]), "GPU", "torch sees no GPU", "reboot"),
    "read-only": (
        replace(LAPTOP, build="/x/build", unwritable="Permission denied"),
        "build folder",
        "/x/build: Permission denied",
        "LRSCAN_BUILD",
    ),
    "full disk": (replace(LAPTOP, free_gib=0.2), "disk", "0.20 GiB", "make clean"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_problem_has_a_command_that_fixes_it(name):
    machine, what, found, command = WRONG[name]
    ((only, finding),) = problems(machine).items()
    assert only == what and found in finding.found and command in finding.fix
    assert shlex.split(finding.fix) and "\n" not in finding.fix


def test_a_gpu_that_the_user_hid_is_no_problem():
    hidden = replace(H100, gpus=[], visible="")
    assert problems(hidden) == {}
    assert [f.what for f in doctor.judge(hidden) if f.status == NOTE] == ["GPU"]


def test_every_algorithm_is_tested():
    found = doctor.self_test(["cpu"])
    assert [f.what for f in found] == ["cpu copy", "cpu auto", "cpu serial", "cpu blocked"]
    assert {f.status for f in found} == {GOOD}
    assert float(found[0].found.split()[0]) > 0


def test_a_wrong_algorithm_is_found(monkeypatch):
    import lrscan

    def off_by_one_step(a, x, h0, algorithm):
        h = lrscan.core.api.linear_recurrence(a, x, h0)
        return h.roll(1, 0) if algorithm == "blocked" else h

    monkeypatch.setattr(lrscan, "linear_recurrence", off_by_one_step, raising=False)
    wrong = [f.what for f in doctor.self_test(["cpu"]) if f.status == PROBLEM]
    assert wrong == ["cpu blocked"]


def test_a_result_of_nan_is_found(monkeypatch):
    import lrscan

    def nan(a, x, h0, algorithm):
        return lrscan.core.api.linear_recurrence(a, x, h0) * math.nan

    monkeypatch.setattr(lrscan, "linear_recurrence", nan, raising=False)
    assert all(f.status == PROBLEM for f in doctor.self_test(["cpu"])[1:])


def test_an_algorithm_that_raises_is_found(monkeypatch):
    monkeypatch.setattr(inputs, "draw_inputs", lambda *_: torch.zeros(0).item())
    assert all(f.status == PROBLEM for f in doctor.self_test(["cpu"])[1:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_has_no_problem():
    pytest.importorskip("papermill")
    command = [sys.executable, "-m", "lrscan", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found." in done.stdout
    assert "cpu blocked        correct" in done.stdout
