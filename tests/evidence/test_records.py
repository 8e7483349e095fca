"""Records read back as they were written, and no half-written file is ever visible."""

import errno
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from projects import in_run, make_project

from lrscan.evidence import records, workspace

PROVENANCE = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "seed": 0}
BUILD = Path("build", "records")  # in the project, which is the working directory
ROW = {"algorithm": "serial", "dtype": "float32", "T": 16, "C": 4, "runs": 5, "median_ms": 0.25}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return Path.cwd()


def test_floats_survive_a_round_trip_exactly():
    draw = random.Random(0)
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, math.inf, 0.0, 1 / 3]
    values += [draw.uniform(0, 1) * 10 ** draw.randint(-20, 20) for _ in range(500)]
    written = records.write("timing", [{"median_ms": value} for value in values], PROVENANCE)
    assert written.table["median_ms"].tolist() == values
    assert written.table.equals(records.read("timing", "cpu-2-core", directory=BUILD).table)


def test_numbers_of_numpy_are_written_as_plain_numbers():
    row = {"T": np.int64(16), "median_ms": np.float32(0.5), "runs": np.int32(3)}
    path = records.write("timing", [row], PROVENANCE).path
    assert "timing,cpu-2-core,,,,,,,16,,,,,3,,0.5,,,\n" in path.read_text()


def test_a_table_keeps_whole_numbers_text_and_missing_values():
    long = 2**60 + 1  # no float can represent it
    rows = [ROW | {"bytes": long, "model": "NA", "T": None}, ROW | {"layout": '1e3, "odd"\n'}]
    table = records.write("timing", rows, PROVENANCE).table
    assert list(table.columns) == list(records.COLUMNS)
    assert table["bytes"][0] == long and table["bytes"].isna().tolist() == [False, True]
    assert table["T"].isna().tolist() == [True, False] and str(table["T"].dtype) == "Int64"
    assert table["model"][0] == "NA" and table["layout"][1] == '1e3, "odd"\n'
    assert table["q1_ms"].isna().all() and table["q1_ms"].dtype == "float64"
    assert set(table["experiment"]) == {"timing"} and set(table["device"]) == {"cpu-2-core"}


def test_accuracy_checks_have_columns_of_their_own():
    table = records.write("check", [{"T": 3, "error": 1e-7, "bound": 1e-6}], PROVENANCE).table
    assert list(table.columns) == list(records.ACCURACY_COLUMNS)


def test_the_same_rows_give_the_same_bytes():
    first = records.write("timing", [ROW], PROVENANCE).path
    files = [first, first.with_suffix(".json")]
    before = [path.read_bytes() for path in files]
    records.write("timing", [dict(reversed(ROW.items()))], dict(reversed(PROVENANCE.items())))
    assert [path.read_bytes() for path in files] == before
    assert b"\r" not in before[0] and before[0].endswith(b"\n")


def test_provenance_lies_beside_the_rows_as_a_list_of_measurements():
    written = records.write("timing", [ROW], PROVENANCE)
    document = json.loads(written.path.with_suffix(".json").read_text())
    assert document == {
        "experiment": "timing",
        "device": "cpu-2-core",
        "measurements": [PROVENANCE],
    }
    assert written.provenance == document
    assert written.device_label == "CPU, 2 cores"


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([ROW | {"speed": 1}], ValueError, "unknown column 'speed'"),
        ([{"error": 1.0, "bound": 2.0, "median_ms": 1.0}], ValueError, "no one table has all"),
        ([ROW | {"median_ms": math.nan}], ValueError, "median_ms is NaN"),
        ([ROW | {"device": "h200"}], ValueError, "'h200'"),
        ([ROW | {"T": 16.0}], TypeError, "T must be a whole number, not 16.0"),
        ([ROW | {"runs": True}], TypeError, "runs must be a whole number, not True"),
        ([ROW | {"median_ms": "1"}], TypeError, "median_ms must be a number, not '1'"),
        ([ROW | {"dtype": 32}], TypeError, "dtype must be text, not 32"),
        ([], ValueError, "no rows"),
    ],
    ids=["unknown", "mixed", "nan", "device", "float", "bool", "text", "number", "none"],
)
def test_bad_rows_are_refused_and_write_nothing(rows, error, message):
    with pytest.raises(error, match=message):
        records.write("timing", rows, PROVENANCE)
    assert not BUILD.exists()


def test_an_experiment_cannot_name_a_folder():
    with pytest.raises(ValueError, match=r"'\.\./x'"):
        records.write("../x", [ROW], PROVENANCE)


def test_a_file_with_an_unknown_column_is_refused():
    path = records.write("timing", [ROW], PROVENANCE).path
    path.write_text(path.read_text().replace("median_ms", "median_us"))
    with pytest.raises(ValueError, match="median_us"):
        records.read("timing", "cpu-2-core", directory=BUILD)


def test_missing_records_say_what_there_is(monkeypatch):
    with pytest.raises(FileNotFoundError, match="'timing' on 'h200'.*has: nothing"):
        records.read("timing", "h200")
    in_run(monkeypatch, recording=True)
    records.write("timing", [ROW], PROVENANCE)
    with pytest.raises(FileNotFoundError, match="figures/records has: cpu-2-core/timing"):
        records.read("timing", "h200")


def test_records_without_their_provenance_are_not_records():
    path = records.write("timing", [ROW], PROVENANCE).path
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="a .csv with its .json"):
        records.read("timing", "cpu-2-core", directory=BUILD)


def test_the_run_decides_where_records_go(project, monkeypatch):
    assert records.write("timing", [ROW], PROVENANCE).path.is_relative_to(project / "build")
    assert records.devices("timing") == []
    in_run(monkeypatch, recording=True)
    committed = records.write("timing", [ROW], PROVENANCE).path
    assert committed == project / "figures" / "records" / "cpu-2-core" / "timing.csv"
    assert records.devices("timing") == ["cpu-2-core"]
    assert records.read("timing", "cpu-2-core").path == committed
    in_run(monkeypatch, recording=True, records=str(project / "out"))
    elsewhere = records.write("timing", [ROW], PROVENANCE).path
    assert elsewhere == project / "out" / "cpu-2-core" / "timing.csv"


def test_a_full_disk_leaves_the_old_files_whole(monkeypatch):
    path = records.write("timing", [ROW], PROVENANCE).path
    files = [path, path.with_suffix(".json")]
    before = [file.read_bytes() for file in files]
    write_bytes = Path.write_bytes

    def full_disk(target: Path, data: bytes) -> int:
        write_bytes(target, data[: len(data) // 2])
        if ".json" in target.name:  # the second of the two files
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        records.write("timing", [ROW | {"median_ms": 9.0}], PROVENANCE)
    assert [file.read_bytes() for file in files] == before
    assert sorted(path.parent.iterdir()) == sorted(files)


def test_no_folder_of_the_machine_gets_into_a_relative_path(project, tmp_path):
    assert workspace.relative(project / "build" / "x.csv") == "build/x.csv"
    assert workspace.relative(tmp_path / "else" / "cpu" / "x.csv") == "cpu/x.csv"


def test_without_the_notebooks_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "__file__", str(tmp_path / "site-packages" / "workspace.py"))
    with pytest.raises(workspace.WorkspaceError, match="Clone the repository"):
        workspace.find_root()
