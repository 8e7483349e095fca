"""The claims table says what the records say, and no more."""

import pytest
from projects import make_project

from lrscan import claims, records

CPU = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "device_type": "cpu"}
GPU = {"device": "h100", "device_label": "NVIDIA H100", "device_type": "cuda"}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setenv("LRSCAN_RECORD", "1")
    return root


def row(claim):
    table = claims.table()
    (found,) = table[table["id"] == claim].to_dict("records")
    return found


def speeds(provenance, parallel_ms):
    times = {"serial_paper": 8.0, "serial": 2.0, "blocked": parallel_ms}
    rows = [
        {"algorithm": name, "T": 65_536, "C": 32, "median_ms": time}
        for name, time in times.items()
    ]
    records.write("kernel_speedup", rows, provenance)


def test_without_records_every_claim_is_open():
    table = claims.table()
    assert list(table["id"]) == [f"C{n}" for n in range(1, 8)]
    assert set(table["holds"]) == {claims.NOT_MEASURED} and set(table["ours"]) == {""}


def test_an_error_beyond_its_bound_breaks_the_first_claim():
    records.write("correctness", [{"error": 0.5, "bound": 1.0}, {"error": 0.9, "bound": 1.0}], CPU)
    assert row("C1")["holds"] == "yes" and "0.90" in row("C1")["ours"]
    records.write("correctness", [{"error": 0.5, "bound": 1.0}, {"error": 1.1, "bound": 1.0}], CPU)
    assert row("C1")["holds"] == "no"
    assert "in 2 checks" in row("C1")["ours"]


def test_on_a_gpu_the_papers_baseline_decides():
    speeds(GPU, 0.25)
    found = row("C2")
    assert (found["holds"], found["device"]) == ("yes", "NVIDIA H100")
    assert found["ours"] == "32.0x (blocked, T = 65,536, m = 32)"
    speeds(GPU, 9.0)
    assert row("C2")["holds"] == "no"


def test_a_cpu_says_nothing_about_a_claim_on_gpus():
    speeds(CPU, 0.25)
    assert row("C2")["holds"] == "it is about a GPU" and row("C2")["ours"].startswith("32.0x")


def test_every_device_has_a_row():
    speeds(CPU, 1.0)
    speeds(GPU, 1.0)
    table = claims.table()
    assert list(table[table["id"] == "C2"]["device"]) == ["CPU, 2 cores", "NVIDIA H100"]


def test_every_claim_with_records_can_be_read():
    for claim in claims.CLAIMS:
        assert bool(claim.ours) == bool(claim.experiment)
        assert claim.statement.strip() and claim.source and claim.number
