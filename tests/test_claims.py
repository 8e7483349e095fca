"""The claims table says what the records say, and no more."""

from pathlib import Path

import pandas
import pytest
from projects import make_project
from training_records import trained

from lrscan import claims, findings, records

CPU = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "device_type": "cpu"}
GPU = {"device": "h100", "device_label": "NVIDIA H100", "device_type": "cuda"}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setenv("LRSCAN_RECORD", "1")
    return root


def rows(claim):
    table = claims.table()
    return table[table["id"] == claim].to_dict("records")


def row(claim):
    return rows(claim)[0]


def speeds(provenance, parallel_ms, serial_ms=2.0):
    times = {"serial_paper": 8.0, "serial": serial_ms, "blocked": parallel_ms}
    records.write(
        "kernel_speedup",
        [{"algorithm": name, "T": 65_536, "C": 32, "median_ms": t} for name, t in times.items()],
        provenance,
    )


def throughput(provenance, gilr_lstm_ms):
    times = {"LSTM": 100.0, "GILR-LSTM": gilr_lstm_ms}
    records.write(
        "lstm_throughput",
        [{"model": name, "T": 1024, "B": 1, "C": 64, "median_ms": t} for name, t in times.items()],
        provenance,
    )


def test_without_records_every_claim_about_measurements_is_open():
    table = claims.table()
    assert list(table["id"]) == [f"C{n}" for n in range(1, 8)]
    open_ones = table[table["id"] != "C4"]  # a construction: the classes themselves show it
    assert set(open_ones["verdict"]) == {findings.NOT_MEASURED} and set(open_ones["ours"]) == {""}
    assert row("C4")["verdict"] == findings.HOLDS and "GILRLSTM" in row("C4")["ours"]


def test_a_model_outside_the_family_breaks_the_fourth_claim(monkeypatch):
    monkeypatch.setattr("lrscan.nn.SRU", object)
    assert row("C4")["verdict"] == findings.NOT_REPRODUCED


def test_an_error_beyond_its_bound_breaks_the_first_claim():
    records.write("correctness", [{"error": 0.5, "bound": 1.0}, {"error": 0.9, "bound": 1.0}], CPU)
    assert row("C1")["verdict"] == findings.HOLDS and "0.90" in row("C1")["ours"]
    records.write("correctness", [{"error": 0.5, "bound": 1.0}, {"error": 1.1, "bound": 1.0}], CPU)
    assert row("C1")["verdict"] == findings.NOT_REPRODUCED
    assert "in 2 checks" in row("C1")["ours"]


def test_on_a_gpu_both_baselines_decide():
    speeds(GPU, 0.25)
    (found,) = rows("C2")
    assert (found["verdict"], found["device"]) == (findings.HOLDS, "NVIDIA H100")
    assert found["ours"].startswith("32.0x (blocked, T = 65,536, m = 32)")
    assert "tuned serial kernel 8.0x" in found["ours"]
    assert found["ratio"] == pytest.approx(32 / 41.8)
    speeds(GPU, 0.25, serial_ms=0.2)
    assert row("C2")["verdict"] == findings.HOLDS_PLAIN
    speeds(GPU, 9.0)
    assert row("C2")["verdict"] == findings.NOT_REPRODUCED


def test_lengths_that_the_paper_has_not_do_not_raise_its_ratio():
    rows_of = [
        {"algorithm": name, "T": steps, "C": 32, "median_ms": t}
        for steps, parallel in ((65_536, 1.0), (2**20, 0.1))
        for name, t in (("serial_paper", 8.0), ("serial", 2.0), ("blocked", parallel))
    ]
    records.write("kernel_speedup", rows_of, GPU)
    assert row("C2")["ours"].startswith("8.0x (blocked, T = 65,536")
    assert row("C2")["ratio"] == pytest.approx(8 / 41.8)


def test_a_cpu_says_nothing_about_a_speed_up_on_gpus_and_the_gpu_is_named_as_absent():
    speeds(CPU, 0.25)
    cpu, gpu = rows("C2")
    assert cpu["verdict"] == findings.CPU_CANNOT_TELL and cpu["ours"].startswith("32.0x")
    assert (gpu["device"], gpu["verdict"]) == (claims.A_GPU, findings.NOT_MEASURED)


def test_every_device_has_a_row():
    speeds(CPU, 1.0)
    speeds(GPU, 1.0)
    assert [found["device"] for found in rows("C2")] == ["CPU, 2 cores", "NVIDIA H100"]


def test_the_lstm_at_the_smallest_minibatch_decides_the_fifth_claim():
    throughput(CPU, 10.0)
    cpu, gpu = rows("C5")
    assert cpu["verdict"] == findings.CPU_HOLDS
    assert cpu["ours"].startswith("10.0x (b = 1, T = 1,024")
    assert gpu["verdict"] == findings.NOT_MEASURED
    throughput(GPU, 10.0)
    found = rows("C5")[1]
    assert found["verdict"] == findings.HOLDS
    assert found["ratio"] == pytest.approx(10 / 35.17, rel=1e-3)
    throughput(GPU, 200.0)
    assert rows("C5")[1]["verdict"] == findings.NOT_REPRODUCED


def test_a_rival_that_learns_sooner_breaks_the_sixth_claim():
    trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 10), ("LSTM", 1024, 0, 70))
    assert row("C6")["verdict"] == findings.CPU_HOLDS and "7.0 times as soon" in row("C6")["ours"]
    trained(CPU, "problem_2b", ("GILRLSTM", 2048, 0, 10), ("LSTM", 2048, 0, 40))
    assert row("C6")["verdict"] == findings.WEAKER and "4.0 times as soon" in row("C6")["ours"]
    trained(CPU, "problem_2b", ("GILRLSTM", 8192, 0, 20), ("LSTM", 8192, 0, 10))
    assert row("C6")["verdict"] == findings.NOT_REPRODUCED


def test_runs_with_a_curriculum_are_compared_with_such_runs_and_decide_nothing():
    trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 10), ("LSTM", 1024, 0, 70))
    trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 20), start_steps=128)
    assert row("C6")["verdict"] == findings.CPU_HOLDS and "doubled" not in row("C6")["ours"]
    trained(CPU, "problem_2b", ("LSTM", 1024, 0, 10), start_steps=128)
    assert row("C6")["verdict"] == findings.CPU_HOLDS
    assert "T = 1,024, doubled from 128: 1 of 1 runs" in row("C6")["ours"]
    assert "0.5 times as soon" in row("C6")["ours"]


def test_a_rival_that_never_learns_is_told_as_such():
    trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 10), ("LSTM", 1024, 0, None))
    assert row("C6")["verdict"] == findings.WEAKER
    assert row("C6")["ours"].endswith("at least 5.0 times as soon")  # it gave up after 50
    trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 5))
    assert row("C6")["verdict"] == findings.CPU_HOLDS
    assert "0 of 1 runs of the LSTM learned" in row("C6")["ours"]


def test_a_rival_that_learns_now_and_then_is_told_as_such():
    runs = ("GILRLSTM", 1024, 0, 10), ("LSTM", 1024, 0, 20), ("LSTM", 1024, 1, None)
    trained(CPU, "problem_2b", *runs)
    assert "1 of 2 runs of the LSTM learned" in row("C6")["ours"]
    assert row("C6")["ours"].endswith("2.0 times as soon as the LSTM where that learned")


def test_the_last_claim_takes_a_million_steps():
    trained(CPU, "long_memory", ("GILRLSTM", 65_536, 0, 10), ("GILRLSTM", 65_536, 1, None))
    assert row("C7")["verdict"] == findings.NOT_TRIED
    trained(CPU, "long_memory", ("GILRLSTM", 2**20, 2, None))
    assert row("C7")["verdict"] == findings.NOT_REPRODUCED
    assert row("C7")["ours"].startswith("chrono: T = 65,536, 1 of 2 runs learned, 10 iterations")
    early = {"initialisation": "early"}
    trained(CPU, "long_memory", ("GILRLSTM", 2**20, 0, 14), **early)
    assert row("C7")["verdict"] == findings.HOLDS_PRIOR
    assert row("C7")["ours"].startswith("early: T = 1,048,576") and "chrono" in row("C7")["ours"]
    assert pandas.isna(row("C7")["ratio"])  # the prior leaves less to learn
    trained(CPU, "long_memory", ("LSTM", 2**20, 0, 14))
    assert row("C7")["verdict"] == findings.HOLDS_PRIOR
    trained(CPU, "long_memory", ("GILRLSTM", 2**20, 0, 70), start_steps=128)
    assert row("C7")["verdict"] == findings.HOLDS_CURRICULUM
    assert "T = 1,048,576, doubled from 128, 1 of 1 runs" in row("C7")["ours"]
    trained(CPU, "long_memory", ("GILRLSTM", 2**20, 1, 28))
    assert row("C7")["verdict"] == findings.HOLDS_CURRICULUM  # one of two runs is not enough
    trained(CPU, "long_memory", ("GILRLSTM", 2**20, 3, 28))
    assert row("C7")["verdict"] == findings.HOLDS and row("C7")["ratio"] == pytest.approx(2e-3)


def test_every_claim_names_a_notebook_that_there_is():
    from lrscan.notebooks import discover

    names = {notebook.name for notebook in discover(Path(__file__).parent.parent)}
    assert {claim.notebook for claim in claims.CLAIMS} <= names
