"""Runs write to another folder than `build/` on request, and name a folder that is read-only."""

import errno
import json
import os
import subprocess
import sys
import tempfile

import pytest
from click.testing import CliRunner
from projects import DRAWING, DRAWS, PYTHONPATH, can_mount, make_project, write_notebook
from stand_ins import two

from lrscan.cli import commands
from lrscan.core.files import write_files

pytest.importorskip("papermill", reason="notebooks are executed by papermill")


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    write_notebook(root, "reproduce/01_speed", DRAWS, parameters=DRAWING + "\nlengths = [1]")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    return root


@pytest.fixture
def calls(monkeypatch):
    """Record the arguments with which experiments are called."""
    return two(monkeypatch)


def lrscan(*arguments, **variables):
    return CliRunner().invoke(commands.main, arguments, env=variables)


VERBS = {
    "run": ["run"],
    "bench": ["bench", "speed", "--device", "cpu"],
    "train": ["train", "--device", "cpu", "--set", "iterations=2", "--set", "steps=4"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("by", ["option", "variable", "default"])
def test_a_folder_that_cannot_be_written_is_named_before_any_work(project, calls, verb, by):
    (project / "file").write_text("")
    folder = project / "file" / "build"
    if by == "default":
        folder = project / "build"
        folder.write_text("")
    result = lrscan(
        *VERBS[verb],
        *(["--build", str(folder)] if by == "option" else []),
        LRSCAN_BUILD=str(folder) if by == "variable" else None,
    )
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    assert str(folder.relative_to(project)) in result.output and calls == []
    assert "--build DIR or LRSCAN_BUILD=DIR" in result.output


@pytest.mark.parametrize("verb", ["bench", "train"])
def test_records_that_cannot_be_written_are_named_before_any_work(project, calls, verb):
    (project / "file").write_text("")
    result = lrscan(*VERBS[verb], "--out", "file/records")
    assert result.exit_code == 1 and f"{project}/file/records: Not a directory" in result.output
    assert calls == [] and not list(project.glob("build/*/*.pt"))


def test_a_full_disk_names_the_file_that_does_not_fit(project, calls, monkeypatch):
    full = OSError(
        errno.ENOSPC, os.strerror(errno.ENOSPC)
    )  # like an error from write(): it names no file

    def fill(*_, **__):
        raise full

    monkeypatch.setattr(tempfile, "TemporaryFile", fill)
    result = lrscan(*VERBS["bench"])
    assert result.exit_code == 1 and calls == []
    assert f"{project}/build/records: No space left on device" in result.output
    with pytest.raises(OSError, match="No space left on device: .*/record.csv"):
        monkeypatch.setattr("pathlib.Path.write_bytes", fill)
        write_files({project / "record.csv": b"1"})
    assert not (project / "record.csv").exists()


@pytest.mark.parametrize("folder", [".", "..", "figures", "notebooks/learn", ".git/x"])
def test_the_projects_own_folders_are_no_build_folder(project, folder):
    result = lrscan("run", "--build", folder)
    assert result.exit_code == 2 and "the project's own files" in " ".join(result.output.split())
    assert not (project / "figures").exists() and not (project / "report.json").exists()


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_output_of_runs_is_in_another_folder_and_belongs_together(project, tmp_path, by):
    before, elsewhere = files(project), tmp_path / "else where"
    option = ["--build", "../else where"] if by == "option" else []
    variables = {"LRSCAN_BUILD": "../else where"} if by == "variable" else {}
    result = lrscan("run", *option, **variables)
    assert result.exit_code == 0, result.output
    assert f"Report: {elsewhere}/report.json" in result.output
    assert f"  {elsewhere}/figures/cpu-2-core/timing.svg" in result.output
    assert files(project) == before and (elsewhere / "__pycache__").is_dir()
    manifest = (elsewhere / "figures" / "manifest.json").read_text()
    records = json.loads(manifest)["cpu-2-core/timing.svg"]["records"]
    assert records["path"] == "build/records/cpu-2-core/timing.csv"
    report = (elsewhere / "report.json").read_text()
    (outcome,) = json.loads(report)["notebooks"]
    assert outcome["executed"] == "build/notebooks/reproduce/01_speed.ipynb"
    assert "else where" not in manifest + report
    again = lrscan("run", *option, **variables)
    assert "reproduce/01_speed: unchanged" in again.output and again.exit_code == 0
    verified = lrscan("verify", *option, **variables)
    assert verified.exit_code == 0, verified.output
    (elsewhere / "records" / "cpu-2-core" / "timing.csv").write_text("x")
    verified = lrscan("verify", *option, **variables)
    assert f"{elsewhere}/records/cpu-2-core/timing.csv: changed" in verified.output
    assert "LRSCAN_BUILD" not in os.environ


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a read-only checkout")
def test_a_checkout_that_is_really_read_only_is_run_and_verified(project, tmp_path):
    (tmp_path / "home").mkdir()
    script = (
        "mount --bind . . && mount -o remount,bind,ro . && mount -t tmpfs -o ro none ../home\n"
        f"export HOME=$PWD/../home; lrscan='{sys.executable} -m lrscan'\n"
        "cd ../project; touch x 2>/dev/null && exit 9\n"
        "$lrscan run; test $? = 1 || exit 8\n"
        "export LRSCAN_BUILD=../elsewhere\n"
        "$lrscan run && $lrscan verify"
    )
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "build/report.json could not be written: Read-only file system" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    executed = (tmp_path / "elsewhere" / "notebooks" / "reproduce" / "01_speed.ipynb").read_text()
    assert "stderr" not in executed  # no warning about a cache folder


def test_without_a_home_everything_runs(project, tmp_path):
    """In a container, the user may have no entry, so that no home folder can be found."""
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "sitecustomize.py").write_text(
        "import pwd\ndef none(*_):\n    raise KeyError('no such user')\npwd.getpwuid = none\n"
    )
    path = os.pathsep.join([str(tmp_path / "none"), PYTHONPATH])
    environment = {n: v for n, v in os.environ.items() if n != "HOME"} | {"PYTHONPATH": path}
    for verb in ("run", "verify"):
        done = subprocess.run(
            [sys.executable, "-m", "lrscan", verb], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
