"""Candidates of the throughput experiment, rivals that are missing, and shares of a copy."""

import sys
from contextlib import nullcontext
from itertools import pairwise, permutations
from types import SimpleNamespace

import pytest
import torch
from gpu_records import ORIGIN
from projects import make_project

from lrscan.evidence import records, workspace
from lrscan.experiments import agreement, candidates, rivals, throughput, timing
from lrscan.experiments.cases import Case, cpu_cases, gpu_cases
from lrscan.experiments.rivals import RIVALS

ELEMENTS = 2**26


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def test_a_candidate_with_another_result_is_not_timed():
    a, x = torch.rand(40, 3), torch.rand(40, 3)
    out = torch.empty_like(x)

    def add():
        torch.add(a, x, out=out)

    with pytest.raises(
        RuntimeError, match=r"add does not compute the recurrence at shape \(40, 3\)"
    ):
        agreement.check({"add": add}, out, a, x, 0, 10)


def test_a_candidate_that_writes_nothing_after_the_checked_steps_is_not_timed():
    a, x = torch.rand(3, 40), torch.rand(3, 40)
    out = torch.empty_like(x)
    whole = candidates.sweep_into(a, x, 1, "serial", out)
    part = candidates.sweep_into(a[:, :20], x[:, :20], 1, "serial", out[:, :20])
    with pytest.raises(RuntimeError, match="part does not compute the recurrence"):
        agreement.check({"whole": whole, "part": part}, out, a, x, 1, 10)


def measured_beside(monkeypatch, scan, layout="CT", T=64):
    """Return what was measured, and reasons for the rest, with ``scan`` as a rival's kernel."""
    monkeypatch.setitem(sys.modules, "accelerated_scan", SimpleNamespace())
    if scan is not None:
        monkeypatch.setitem(sys.modules, "accelerated_scan.warp", SimpleNamespace(scan=scan))
    case = Case(layout, T, 3, against=("accelerated-scan warp",))
    rows, reasons = throughput._measure_case(case, torch.device("cpu"), 0, 2)
    return {row["algorithm"] for row in rows if row["direction"] == "forward"}, reasons


def loop(a, x):
    assert a.is_contiguous() and a.dim() == 3  # (batch, channels, T)
    h, states = torch.zeros(a.shape[:2]), []
    for t in range(a.shape[2]):
        h = a[..., t] * h + x[..., t]
        states.append(h)
    return torch.stack(states, -1)


@pytest.mark.parametrize("layout", ["CT", "TC"])
def test_a_rival_is_measured_with_the_operator(layout, monkeypatch):
    algorithms, reasons = measured_beside(monkeypatch, loop, layout)
    assert algorithms >= {"auto", "serial", "blocked", "accelerated-scan warp"} and not reasons


@pytest.mark.parametrize(
    ("scan", "T", "why"),
    [
        (None, 64, "ModuleNotFoundError: No module named 'accelerated_scan.warp'"),
        (loop, 63, "ValueError: 63 steps: it takes powers of two from 32 to 65,536"),
        (lambda a, x: a + x, 64, "RuntimeError: accelerated-scan warp does not compute"),
        (lambda a, x: 1 / 0, 64, "ZeroDivisionError: division by zero"),
    ],
    ids=["not-installed", "not-its-length", "wrong", "fails"],
)
def test_a_rival_that_is_not_available_is_named_with_the_reason(scan, T, why, monkeypatch):
    algorithms, reasons = measured_beside(monkeypatch, scan, T=T)
    assert "accelerated-scan warp" not in algorithms
    ((what, found),) = reasons.items()
    assert what == f"accelerated-scan warp, float32 CT (3, {T})" and found.startswith(why)


def test_a_reason_names_no_folder():
    error = OSError("cannot open /somewhere/secret/libcuda.so: no such file\nmore")
    assert rivals.reason(error) == "OSError: cannot open ... no such file"


def test_a_capture_and_the_threads_of_a_rival_do_not_disturb_each_other(monkeypatch):
    modes = []

    def graph(captured, capture_error_mode="global"):
        modes.append(capture_error_mode)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    timing._sampler(lambda: None, torch.device("cuda"), "graph")
    assert modes == ["thread_local"]


@pytest.mark.parametrize("compare", [False, True])
@pytest.mark.parametrize("make", [cpu_cases, gpu_cases])
def test_no_case_is_measured_twice(make, compare):
    cases = make(ELEMENTS, compare)
    identities = [tuple(case.identity.items()) for case in cases]
    assert len(set(identities)) == len(identities)
    assert {name for case in cases for name in case.against} <= set(RIVALS)
    assert len(make(ELEMENTS, not compare)) == len(cases)


def shares_of(device_type, *rows):
    table = [
        {
            "algorithm": "auto",
            "direction": "forward",
            "dtype": "float32",
            "layout": "TC",
            "T": T,
            "B": 1,
            "C": 1,
            "bytes": size,
            "reference_ms": reference,
            "median_ms": 2.0,
        }
        for T, (size, reference) in enumerate(rows, 16)
    ]
    records.write("throughput", table, ORIGIN | {"device_type": device_type})
    found = records.find("throughput", "h100", directory=workspace.records_folder())
    return list(throughput.summarise(found))


def test_a_large_copy_that_was_slow_raises_no_share():
    # A copy of 100 MB counts as it was; of the large ones the second was slow, and does not count.
    rows = [(10**8, 0.1), (10**9, 0.25), (2 * 10**9, 0.9), (4 * 10**9, 1.0)]
    assert shares_of("cuda", *rows) == pytest.approx([0.05, 0.125, 0.25, 0.5])
    assert shares_of("cpu", *rows) == pytest.approx([0.05, 0.125, 0.45, 0.5])  # caches differ


def test_a_copy_is_made_by_a_kernel_and_moves_its_bytes(monkeypatch):
    # The driver's own copies are slow at some sizes, replayed in a CUDA graph.
    monkeypatch.setattr(torch.Tensor, "copy_", None)
    seen = []

    def note(numbers, factor, out):
        seen.append((numbers.nbytes + out.nbytes, factor))

    monkeypatch.setattr(torch, "mul", note)
    candidates.copy_on_device(4096, torch.device("cpu"))()
    assert seen == [(4096, 1)]


def test_no_candidate_always_follows_the_same_one(monkeypatch):
    order = []
    monkeypatch.setattr(timing, "_sampler", lambda call, *_: lambda: order.append(call()) or 1.0)
    timing.time_all({name: lambda name=name: name for name in "abc"}, torch.device("cpu"), 40)
    assert sorted(order) == sorted("abc" * 40)
    assert {(a, b) for a, b in pairwise(order) if a != b} == set(permutations("abc", 2))
