"""Targets of the CUDA kernels, compared with made-up records."""

import math

import pytest
from gpu_records import ORIGIN
from projects import make_project

from lrscan.evidence import records, workspace
from lrscan.experiments import targets
from lrscan.experiments.cases import gpu_cases

ELEMENTS = 2**26


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def write_gpu_records(**times):
    """Write records of every case; ``times`` changes milliseconds, or the factor "best"."""

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
            # A copy of a famous shape is a small one and takes as long as the shape's target.
            row_of["reference_ms"] = usual / 1.05 if usual != 1.05 else 1.0
            row_of["bytes"] = 2**30 if usual == 1.05 else 2**20
            rows += [row_of, row(case, "single_pass", direction, times.get("best", 1.0) * ms)]
        rows += [row(case, name, "forward", times.get(name, 9.0)) for name in case.against]
    records.write("throughput", rows, ORIGIN)
    table_1 = {"serial_paper": 50.0, "serial": 2.0, "single_pass": 1.0, "auto": 1.0}
    rows = [
        {
            "algorithm": name,
            "direction": "forward",
            "dtype": "float32",
            "layout": "TC",
            "T": 65_536,
            "B": 1,
            "C": m,
            "median_ms": times.get(name, ms),
        }
        for name, ms in table_1.items()
        for m in (4, 32, 128)
    ]
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
