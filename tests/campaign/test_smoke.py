"""Tests of a campaign's smoke test: it finds wrong kernels and narrows failures down."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from projects import PYTHONPATH, make_project

from lrscan.campaign import narrow, phases, smoke
from lrscan.campaign.smoke import LAYOUTS, Notes, SmokeCase
from lrscan.campaign.worker import DONE, PARTIAL, PhaseContext
from lrscan.core.checks import ALGORITHMS
from lrscan.core.dtypes import DTYPES
from lrscan.evidence import records

CPU = torch.device("cpu")
PLAIN = SmokeCase("serial", "float32", (40, 6), 0)
VARIANTS = [
    PLAIN,
    PLAIN._replace(reverse=True),
    PLAIN._replace(start=False),
    PLAIN._replace(public=True),
    PLAIN._replace(shape=(6, 40), dim=1),
    PLAIN._replace(shape=(2, 3, 40, 2), dim=2),
    *(PLAIN._replace(part=part) for part in smoke.PARTS),
    PLAIN._replace(dtype="bfloat16", wide_a=True),
    PLAIN._replace(dtype="complex64"),
]


@pytest.fixture(autouse=True)
def determinism():
    """Switch deterministic mode off after a test, since the smoke test switches it on."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", VARIANTS, ids=str)
def test_errors_of_a_correct_kernel_are_within_the_bound_but_not_zero(case):
    shares = smoke.run(case, CPU)
    assert set(shares) == {"h", "da", "dx"} | ({"dh0"} if case.start else set())
    assert all(0 < share <= 1 for share in shares.values())


@pytest.mark.parametrize("case", VARIANTS, ids=str)
def test_a_result_that_is_a_little_wrong_is_found(case, monkeypatch):
    right = smoke._results
    for wrong in range(4 if case.start else 3):

        def results(*given, wrong=wrong):
            found = right(*given)
            found[wrong] = found[wrong] * 1.02
            return found

        monkeypatch.setattr(smoke, "_results", results)
        shares = smoke.run(case, CPU)
        assert [share > 1 for share in shares.values()].count(True) == 1


def test_an_element_that_is_not_written_is_found(monkeypatch):
    right = smoke.sweep.forward

    def forward(*given, out, **options):
        kept = out[-1].clone()
        h = right(*given, out=out, **options)
        h[-1] = kept
        return h

    monkeypatch.setattr(smoke.sweep, "forward", forward)
    assert smoke.run(PLAIN, CPU)["h"] == math.inf


@pytest.mark.parametrize("name", ["columns", "time", "thin", "one-column"])
def test_a_state_that_is_lost_in_a_chunk_is_found(name, monkeypatch):
    """Compute as if the product of a chunk were zero, so that its start does not affect its end."""
    case, right = SmokeCase("serial", "float32", *LAYOUTS[name]), smoke.sweep.forward

    def forward(a, x, h0, dim, *options, **others):
        h = right(a, x, h0, dim, *options, **others)
        third = x.shape[dim] // 3
        cut = [third, third, x.shape[dim] - 2 * third]
        (_, a2, a3), (_, x2, x3), (_, _, h3) = (t.split(cut, dim) for t in (a, x, h))
        end = right(a2, x2, None, dim, *options).select(dim, -1)
        h3.copy_(right(a3, x3, end.contiguous(), dim, *options))
        return h

    smoke._cached_reference.cache_clear()
    monkeypatch.setattr(smoke.sweep, "forward", forward)
    assert smoke.run(case, CPU)["h"] > 1
    # With coefficients under which states decay quickly, the error would not be noticed.
    smoke._cached_reference.cache_clear()
    monkeypatch.setattr(smoke, "lasting", lambda a: a)
    assert smoke.run(case, CPU)["h"] <= 1
    smoke._cached_reference.cache_clear()


def test_every_algorithm_dtype_and_layout_is_checked():
    cases = set(smoke.for_cuda())
    for algorithm in ALGORITHMS["cuda"]:
        for dtype in DTYPES:
            for layout in LAYOUTS.values():
                assert SmokeCase(algorithm, str(dtype).removeprefix("torch."), *layout) in cases
    # Tensors without data, for which kernels are compiled ahead of time, have the same shapes.
    shapes = [tuple(t.shape) for t in smoke._shapes(PLAIN._replace(part="per-step"))]
    assert shapes == [tuple(t.shape) for t in smoke.draw(PLAIN._replace(part="per-step"))]


def test_a_case_that_was_started_but_not_ended_counts_as_failed(tmp_path):
    notes, other = Notes(tmp_path / "notes"), PLAIN._replace(reverse=True)
    assert smoke.check(PLAIN, CPU, notes)
    notes.write(other)
    again = Notes(tmp_path / "notes")
    assert again.ended[PLAIN]["passed"] and again.failures == [other]
    assert again.ended[other]["error"] == "the process died or hung"
    # It is not started a second time.
    assert not list(smoke.sweep_through([PLAIN, other], CPU, again))
    assert Notes(tmp_path / "notes").failures == [other]


def test_an_error_is_logged_and_the_other_cases_still_run(tmp_path, monkeypatch):
    right = smoke.run
    fails = PLAIN._replace(reverse=True)

    def run(case, device):
        if case == fails:
            raise RuntimeError("CUDA error: misaligned address\nand more")
        return right(case, device)

    monkeypatch.setattr(smoke, "run", run)
    notes = Notes(tmp_path / "notes")
    cases = [fails, PLAIN]
    assert list(smoke.sweep_through(cases, CPU, notes)) == [fails]
    assert notes.ended[fails]["error"] == "RuntimeError: CUDA error: misaligned address"
    assert notes.ended[PLAIN]["passed"]
    # After an error that breaks the device the process ends, so that a new one can continue.
    monkeypatch.setattr(smoke, "_works", lambda device: False)
    with pytest.raises(SystemExit, match="misaligned address; the device no longer works"):
        smoke.check(fails, CPU, Notes(tmp_path / "other"))


def test_a_case_that_hangs_ends_its_process(tmp_path):
    script = (
        "import sys, time, torch\n"
        "from pathlib import Path\n"
        "from lrscan.campaign import smoke\n"
        "smoke.HANGS_AFTER_S, smoke.run = 0.2, lambda *given: time.sleep(600)\n"
        "case = smoke.SmokeCase('serial', 'float32', (4, 3), 0)\n"
        "smoke.check(case, torch.device('cpu'), smoke.Notes(Path(sys.argv[1])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "notes"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
    )
    assert done.returncode == 1 and "Timeout" in done.stderr
    assert Notes(tmp_path / "notes").failures == [SmokeCase("serial", "float32", (4, 3), 0)]


def test_the_smallest_failing_case_and_its_failing_variants_are_found(tmp_path, monkeypatch):
    """Narrow down an algorithm that fails with 33 or more steps, 2 or more columns, not float64."""
    tried = []

    def run(case, device):
        tried.append(case)
        steps, columns = case.shape[case.dim], math.prod(case.shape) // case.shape[case.dim]
        wrong = case.algorithm == "blocked" and steps >= 33 and columns >= 2
        return {"h": 0.1, "da": 9.0 if wrong and case.dtype != "float64" else 0.1}

    monkeypatch.setattr(smoke, "run", run)
    failures = [
        SmokeCase("blocked", dtype, *LAYOUTS[name])
        for dtype in ("bfloat16", "float32")
        for name in ("thin", "columns")
    ]
    notes = Notes(tmp_path / "notes")
    found = narrow.smallest(failures, CPU, notes, time.monotonic() + 600)
    assert found.complete and found.case.shape == (33, 2)
    assert "the smallest failing case is blocked bfloat16 (33, 2) dim=0" in found.summary
    assert "variants that fail: float32, complex64, without h0, reversed" in found.summary
    assert "variants that pass: auto, serial, float64" in found.summary
    assert found.summary.endswith("wrong results: da")
    # Another process that continues tries no case twice.
    count = len(tried)
    again = narrow.smallest(failures, CPU, Notes(tmp_path / "notes"), time.monotonic() + 600)
    assert again.summary == found.summary and len(tried) == count
    said = []
    narrow.smallest(failures, CPU, Notes(tmp_path / "said"), math.inf, said.append)
    assert said == [f"the smallest failing case so far is {found.case}", found.summary]
    # Without time it reports what it knows.
    late = narrow.smallest(failures, CPU, Notes(tmp_path / "late"), time.monotonic() - 1)
    assert not late.complete and late.case == failures[0]


def test_narrowing_needs_a_failure(tmp_path):
    with pytest.raises(ValueError, match="nothing failed"):
        narrow.smallest([], CPU, Notes(tmp_path / "notes"), math.inf)


def context(work, seconds=600.0):
    return PhaseContext("cpu", "quick", work, time.monotonic() + seconds)


def test_a_smoke_test_ends_in_time_and_continues_later(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smoke, "for_device", lambda device: VARIANTS[:3])
    assert phases.check_kernels(context(tmp_path, phases._MARGIN_S)) == PARTIAL
    assert "=> 0 of 3 cases" in capsys.readouterr().out
    assert phases.check_kernels(context(tmp_path)) == DONE
    assert "=> 3 of 3 cases are within the rounding bound" in capsys.readouterr().out


def test_a_smoke_test_that_fails_raises_with_the_first_case(tmp_path, monkeypatch):
    monkeypatch.setattr(smoke, "for_device", lambda device: VARIANTS[:3])
    right = smoke.run
    monkeypatch.setattr(
        smoke, "run", lambda case, device: {"h": 2.0} if case.reverse else right(case, device)
    )
    message = "2 of 3 cases are within .*; 1 failed, first: serial .* reverse: {'h': 2.0}"
    with pytest.raises(RuntimeError, match=message):
        phases.check_kernels(context(tmp_path))


def test_a_measurement_that_is_cut_says_what_is_left_and_is_finished_later(
    tmp_path, monkeypatch, capsys
):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    small = ("lengths=[16, 64]", "features=[2]", "runs=1")
    step = phases._step("kernel_speedup", cpu=small)
    assert phases.measure(context(tmp_path, 0.0), [step]) == PARTIAL
    assert "=> not started" in capsys.readouterr().out
    # The first shape is always measured; no other is started once time has run out.
    cut = context(tmp_path, phases._MARGIN_S + 1e-3)
    assert phases.measure(cut, [step]) == PARTIAL
    assert "=> kernel_speedup: 3 timings, 1 left to measure" in capsys.readouterr().out
    (csv,) = (tmp_path / "records").glob("*/kernel_speedup.csv")
    assert records.read("kernel_speedup", csv.parent.name, directory=tmp_path / "records").left == 1
    assert phases.measure(context(tmp_path), [step]) == DONE
    assert "=> kernel_speedup: 6 timings\n" in capsys.readouterr().out


def test_a_phase_says_what_this_machine_lacks(tmp_path, monkeypatch, capsys):
    make_project(tmp_path / "project")
    monkeypatch.setattr(phases, "_checker", lambda: None)
    assert phases.sanitize(context(tmp_path)) == phases.UNAVAILABLE
    assert "=> compute-sanitizer is not installed" in capsys.readouterr().out
    monkeypatch.setattr(phases.importlib.util, "find_spec", lambda name: None)
    assert phases.test(context(tmp_path)) == phases.UNAVAILABLE
    assert "=> pytest is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "report"),
    [
        ("echo 'serial dim=0'; echo 'serial dim=0'", "2 cases without errors"),
        ("echo 'dim=0'; exit 99", "errors found, see notes/memcheck.txt"),
        (
            "echo 'no such option'; exit 1",
            "the checker did not work (exit status 1), see notes/memcheck.txt",
        ),
        ("echo 'Device not supported'; exit 1", "not supported on this device"),
        ("echo 'dim=0'; sleep 600", "time ran out after 1 of 10 cases"),
    ],
)
def test_the_report_on_a_run_of_a_checker(tmp_path, body, report):
    checker = tmp_path / "checker"
    checker.write_text(f"#!/bin/sh\n{body.replace('sleep', 'exec sleep')}\n")
    checker.chmod(0o755)
    given = (context(tmp_path), str(checker), "memcheck", smoke.small_cases())
    assert phases._watch(*given, 3.0 if "sleep" in body else 60.0) == report
