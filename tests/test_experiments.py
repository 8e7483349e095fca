"""Measurements in pieces, rivals that are not there, and targets held against made-up records."""

import math
import sys
import time
from contextlib import nullcontext
from itertools import pairwise, permutations
from types import SimpleNamespace

import pytest
import torch
from projects import make_project

from lrscan.evidence import records, workspace
from lrscan.experiments import (
    agreement,
    candidates,
    lstm_throughput,
    rivals,
    targets,
    throughput,
    timing,
    training_speedup,
)
from lrscan.experiments.cases import Case, cpu_cases, gpu_cases
from lrscan.experiments.kernel_speedup import in_order
from lrscan.experiments.resume import Paused, in_pieces
from lrscan.experiments.rivals import RIVALS

ORIGIN = {
    "device": "h100", "device_label": "NVIDIA H100", "device_type": "cuda",
    "parameters": {"runs": 3}, "seed": 0, "commit": "c0ffee",
    "versions": {"torch": "2"}, "profile": "gpu",
}  # fmt: skip
PIECES = [{"T": T, "C": 4} for T in (16, 64, 256)]
ELEMENTS = 2**26


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


class Counted:
    """A measurement that knows how often it was taken, and may end early."""

    def __init__(self, fails_at=None, reasons=()):
        self.taken, self.fails_at, self.reasons = [], fails_at, dict(reasons)

    def __call__(self, number):
        if number == self.fails_at:
            raise KeyboardInterrupt
        self.taken.append(number)
        row = PIECES[number] | {"algorithm": "auto", "median_ms": 1.0 + len(self.taken)}
        return [row, row | {"algorithm": "serial"}], self.reasons


def take(measure, origin=ORIGIN, **how):
    return in_pieces("rates", PIECES, measure, origin, **how)


def there():
    return records.read("rates", "h100", directory=workspace.records_folder())


def test_what_was_measured_before_an_interruption_is_on_disk():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=2))
    assert there().table["T"].tolist() == [16, 16, 64, 64]


def test_resuming_measures_the_rest_and_keeps_what_is_there():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=1, reasons={"one": "not installed"}))
    rest = Counted(reasons={"other": "failed"})
    found = take(rest, ORIGIN | {"measured_at": "later"}, resume=True)
    assert rest.taken == [1, 2] and found.table["T"].tolist() == [16, 16, 64, 64, 256, 256]
    (measurement,) = found.provenance["measurements"]
    assert measurement["not_available"] == {"one": "not installed", "other": "failed"}
    again = Counted()
    assert take(again, resume=True).table.equals(found.table) and not again.taken


@pytest.mark.parametrize("changed", [{"parameters": {"runs": 5}}, {"commit": "beef"}, {"seed": 1}])
def test_nothing_is_kept_of_another_measurement(changed):
    take(Counted())
    rest = Counted()
    take(rest, ORIGIN | changed, resume=True)
    assert rest.taken == [0, 1, 2]
    assert len(there().provenance["measurements"]) == 1


def test_without_resuming_all_is_measured_again():
    take(Counted())
    again = Counted()
    assert len(take(again).table) == 6 and again.taken == [0, 1, 2]


def test_no_piece_is_begun_after_its_time():
    first = Counted()
    with pytest.raises(Paused, match="2 pieces of rates are left") as paused:
        take(first, until=time.monotonic() - 1)
    assert first.taken == [0] and paused.value.measured.table["T"].tolist() == [16, 16]


def test_a_record_says_how_much_of_it_is_left():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=2))
    assert there().left == 1
    assert take(Counted(), resume=True).left == 0
    assert "left" not in there().provenance["measurements"][-1]


def test_a_piece_that_fails_does_not_keep_the_others_from_being_measured(caplog):
    class Fails(Counted):
        def __call__(self, number):
            if number == 0:
                raise ValueError("out of memory")
            return super().__call__(number)

    with pytest.raises(RuntimeError, match="1 of 3 failed, T 16, C 4 first: out of memory"):
        take(fails := Fails())
    assert fails.taken == [1, 2] and there().left == 1
    assert "T 16, C 4 failed" in caplog.text and "Traceback" in caplog.text
    rest = Counted()
    assert take(rest, resume=True).left == 0 and rest.taken == [0]


def test_pieces_for_later_are_measured_by_the_call_that_resumes():
    first = Counted()
    assert take(first, later=PIECES[1:2]).left == 1
    assert first.taken == [0, 2] and there().left == 1
    rest = Counted()
    assert take(rest, resume=True).left == 0 and rest.taken == [1]


def test_the_shapes_of_the_paper_are_measured_first_and_the_longest_among_them():
    order = in_order([16, 64, 256, 65_536, 262_144], [4, 5, 32])
    assert order[:4] == [(65_536, 4), (65_536, 32), (256, 4), (256, 32)]
    assert order[6] == (262_144, 4) and len(order) == len(set(order)) == 15


def test_cases_with_rivals_may_be_left_for_later(monkeypatch):
    seen = []
    cases = [Case("TC", 16, 2), Case("TC", 32, 2, against=("torchlpc",))]
    monkeypatch.setattr(throughput, "cpu_cases", lambda elements, compare: cases)
    row = {"algorithm": "auto", "median_ms": 1.0}
    monkeypatch.setattr(
        throughput, "_measure_case",
        lambda case, *_: seen.append(case) or ([row | case.identity], {}),
    )
    given = {"device": "cpu", "seed": 0, "elements": 64, "runs": 1, "compare": True}
    assert throughput.measure(**given, rivals_later=True).left == 1
    assert seen == cases[:1]
    assert throughput.measure(**given, resume=True).left == 0 and seen == cases


@pytest.mark.parametrize(
    ("experiment", "given", "first"),
    [
        (
            training_speedup,
            {"events": 64, "lengths": [16, 64], "widths": [4, 8], "inputs": [4, 4],
             "names": ["SRU", "QRNN(2)"]},
            {"T": 64, "C": 4, "model": "SRU"},
        ),
        (
            lstm_throughput,
            {"hidden": 4, "lengths": [16, 64], "minibatches": [1, 2], "most_events": 64,
             "lstm_lengths": [16]},
            {"T": 64, "B": 1, "model": "GILR-LSTM"},
        ),
    ],
    ids=["training_speedup", "lstm_throughput"],
)  # fmt: skip
def test_training_steps_are_measured_in_pieces(experiment, given, first):
    """What decides a claim first; the rest by a call that resumes."""
    given = given | {"device": "cpu", "seed": 0, "runs": 1}
    with pytest.raises(Paused) as paused:
        experiment.measure(**given, until=time.monotonic() - 1)
    table = paused.value.measured.table
    assert {name: table[name].iloc[0] for name in first} == first
    assert len(table[["model", "T", "B", "C"]].drop_duplicates()) == 1
    found = experiment.measure(**given, resume=True)
    cells = found.table[["model", "T", "B", "C"]].drop_duplicates()
    assert len(cells) == paused.value.left + 1 and found.left == 0
    assert found.table.iloc[: len(table)].equals(table)


def test_a_candidate_that_is_not_the_recurrence_is_not_timed():
    a, x = torch.rand(40, 3), torch.rand(40, 3)
    out = torch.empty_like(x)

    def add():
        torch.add(a, x, out=out)

    with pytest.raises(RuntimeError, match=r"add is not the recurrence at shape \(40, 3\)"):
        agreement.check({"add": add}, out, a, x, 0, 10)


def test_a_candidate_that_writes_nothing_after_the_checked_steps_is_not_timed():
    a, x = torch.rand(3, 40), torch.rand(3, 40)
    out = torch.empty_like(x)
    whole = candidates.sweep_into(a, x, 1, "serial", out)
    part = candidates.sweep_into(a[:, :20], x[:, :20], 1, "serial", out[:, :20])
    with pytest.raises(RuntimeError, match="part is not the recurrence"):
        agreement.check({"whole": whole, "part": part}, out, a, x, 1, 10)


def measured_beside(monkeypatch, scan, layout="CT", T=64):
    """(rows, reasons) of a case against a stand-in for accelerated-scan's first kernel."""
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
def test_a_rival_is_measured_beside_the_operator(layout, monkeypatch):
    algorithms, reasons = measured_beside(monkeypatch, loop, layout)
    assert algorithms >= {"auto", "serial", "blocked", "accelerated-scan warp"} and not reasons


@pytest.mark.parametrize(
    ("scan", "T", "why"),
    [
        (None, 64, "ModuleNotFoundError: No module named 'accelerated_scan.warp'"),
        (loop, 63, "ValueError: takes powers of two from 32 to 65,536 steps, not 63"),
        (lambda a, x: a + x, 64, "RuntimeError: accelerated-scan warp is not the recurrence"),
        (lambda a, x: 1 / 0, 64, "ZeroDivisionError: division by zero"),
    ],
    ids=["not-installed", "not-its-length", "wrong", "fails"],
)
def test_a_rival_that_is_not_available_is_told_with_the_reason(scan, T, why, monkeypatch):
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
    told = [tuple(case.identity.items()) for case in cases]
    assert len(set(told)) == len(told)
    assert {name for case in cases for name in case.against} <= set(RIVALS)
    assert len(make(ELEMENTS, not compare)) == len(cases)


def write_gpu_records(**times):
    """Made-up records of every case; ``times`` are milliseconds by what they are of."""

    def row(case, algorithm, direction, ms):
        identity = {"algorithm": algorithm, "direction": direction} | case.identity
        return identity | {"median_ms": ms, "reference_ms": 1.0}

    rows = []
    for case in gpu_cases(ELEMENTS, compare=True):
        famous = {(8, 65_536, 1536): 3.5, (1, 2**19, 64): 0.15, (1, 2**20, 1): 0.014}
        usual = famous.get((case.B, case.T, case.C), 1.05)
        for direction in ("forward", "backward"):
            ms = times.get(f"{case.dtype} {case.layout} {direction}", usual)
            row_of = row(case, "auto", direction, ms)
            # A copy of the famous shapes takes as long as their targets ask for; it is a small one.
            row_of["reference_ms"] = usual / 1.05 if usual != 1.05 else 1.0
            row_of["bytes"] = 2**30 if usual == 1.05 else 2**20
            rows += [row_of, row(case, "single_pass", direction, times.get("best", 1.0) * ms)]
        rows += [row(case, name, "forward", times.get(name, 9.0)) for name in case.against]
    records.write("throughput", rows, ORIGIN)
    table_1 = {"serial_paper": 50.0, "serial": 2.0, "single_pass": 1.0, "auto": 1.0}
    rows = [
        {"algorithm": name, "direction": "forward", "dtype": "float32", "layout": "TC", "T": 65_536,
         "B": 1, "C": m, "median_ms": times.get(name, ms)}
        for name, ms in table_1.items()
        for m in (4, 32, 128)
    ]  # fmt: skip
    records.write("kernel_speedup", rows, ORIGIN)
    cost = {"algorithm": "auto", "direction": "forward", "layout": "TC", "T": 4, "B": 1, "C": 3}
    records.write("call_cost", [cost | {"median_ms": times.get("call", 0.02)}], ORIGIN)


def verdicts(**times):
    write_gpu_records(**times)
    table = targets.table(workspace.records_folder(), "h100")
    return dict(zip(table["target"], table["verdict"], strict=True)), table


def test_without_records_no_target_is_met(project):
    table = targets.table(project, "h100")
    assert set(table["verdict"]) == {"not measured"} and table["measured"].isna().all()


def test_the_cases_of_a_gpu_bear_on_every_target():
    found, table = verdicts()
    assert set(found.values()) == {"met"}, table.to_string()
    assert len(found) == len(table) > 25


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"float32 BTC forward": 1.2}, "float32 forward, BTC, 1,024 columns and more"),
        ({"float32 BCT backward": 1.2}, "float32 backward, BCT, 1,024 columns and more"),
        ({"float32 CT forward": 1.2}, "float32 forward, thin, 2**28 elements"),
        ({"float32 CT backward": 1.3}, "float32 backward, thin, 2**26 elements"),
        ({"bfloat16 TBC forward": 1.2}, "bfloat16 forward, 1,024 columns and more"),
        ({"bfloat16 TC backward": 1.4}, "bfloat16 backward, thin, 2**26 elements"),
        ({"float32 BCT forward": 3.7}, "float32 forward, 12,288 columns of 65,536"),
        ({"float32 CT forward": 0.17}, "float32 forward, 64 columns of 524,288"),
        ({"float32 TC forward": 0.016}, "float32 forward, 1 column of 1,048,576"),
        ({"torchlpc": 1.0}, "its time over ours: torchlpc"),
        ({"accelerated-scan warp": 3.4}, "its time over ours: accelerated-scan warp"),
        ({"best": 0.9}, "the best algorithm's time over that of auto"),
        ({"serial_paper": 40.0}, "Table 1, m = 32: over serial_paper"),
        ({"call": 0.026}, "host cost of a call"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_target_that_is_missed_says_so(change, missed):
    found, table = verdicts(**change)
    assert found[missed] == "missed"
    row = table[table["target"] == missed].iloc[0]
    assert row["where"] and math.isfinite(row["measured"])


def shares_of(device_type, *rows):
    table = [
        {"algorithm": "auto", "direction": "forward", "dtype": "float32", "layout": "TC", "T": T,
         "B": 1, "C": 1, "bytes": size, "reference_ms": reference, "median_ms": 2.0}
        for T, (size, reference) in enumerate(rows, 16)
    ]  # fmt: skip
    records.write("throughput", table, ORIGIN | {"device_type": device_type})
    found = records.find("throughput", "h100", directory=workspace.records_folder())
    return list(throughput.summarise(found))


def test_a_large_copy_that_was_slow_flatters_nobody():
    # A hundred megabytes as slow as they were; of the large ones the second was slowed down.
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
