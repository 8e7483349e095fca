"""Provenance describes how a measurement was taken, without naming the machine or its user."""

import getpass
import json
import os
import platform
import re
import shutil
import subprocess

import pytest
import torch
from click.testing import CliRunner
from projects import in_run, make_project, write_notebook

from lrscan.cli import commands
from lrscan.evidence import origin, provenance, workspace


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def h100(monkeypatch):
    """Make torch report an H100."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_a_cpu_is_named_by_its_usable_cores(monkeypatch):
    monkeypatch.setattr(provenance, "usable_cores", lambda: 3)
    assert provenance.device_slug("cpu") == "cpu-3-core"
    assert provenance.device_label("cpu").startswith("CPU, 3 cores, ")


def test_the_cores_are_those_this_process_may_use():
    assert 1 <= provenance.usable_cores() <= os.cpu_count()


def test_a_gpu_is_named_by_its_model(h100):
    assert provenance.device_slug("cuda") == "h100-80gb-hbm3"
    assert provenance.device_label("cuda") == "NVIDIA H100 80GB HBM3"
    assert provenance.resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:x", ""])
def test_an_unknown_device_is_refused_by_name(device):
    with pytest.raises(ValueError, match=f"not '{device}'"):
        provenance.resolve_device(device)


def test_a_gpu_that_is_not_there_is_refused(h100):
    with pytest.raises(ValueError, match="'cuda:1': torch sees 1 GPU"):
        provenance.resolve_device("cuda:1")


def test_provenance_is_json_and_says_what_was_asked(project, monkeypatch):
    in_run(monkeypatch, profile="quick")
    collected = provenance.collect("cpu", {"lengths": [1, 2]}, 7)
    assert json.loads(json.dumps(collected, allow_nan=False)) == collected
    assert (collected["parameters"], collected["seed"]) == ({"lengths": [1, 2]}, 7)
    assert collected["profile"] == "quick"
    assert collected["versions"]["torch"] and collected["versions"]["numba"]
    assert collected["device"] == provenance.device_slug("cpu")
    assert collected["driver"] is None and collected["cuda"] is None


def test_a_gpu_measurement_names_capability_and_cuda(project, h100):
    collected = provenance.collect("cuda", {}, 0, "gpu")
    assert collected["device"] == "h100-80gb-hbm3"
    assert collected["capability"] == "9.0"
    assert collected["cuda"] == torch.version.cuda


def test_provenance_holds_no_host_user_or_path(project):
    text = json.dumps(provenance.collect("cpu", {}, 0))
    assert "/" not in text and "\\" not in text
    assert not {platform.node(), getpass.getuser()} & set(re.split(r"[^\w-]+", text))


def test_commit_and_dirty_flag_follow_the_sources(project):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance.git_state() == (None, None)
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert provenance.git_state() == (commit, False)
    for output in ("build", "figures"):  # a run's output does not change the sources
        (project / output).mkdir()
        (project / output / "new.txt").write_text("x")
    (project / "result").mkdir()  # nor does an unrelated folder
    (project / "result" / "new.txt").write_text("x")
    assert provenance.git_state() == (commit, False)
    (project / "notebooks" / "new.py").write_text("x")
    assert provenance.git_state() == (commit, True)
    (project / "notebooks" / "new.py").unlink()
    (project / "notebooks" / "profiles.toml").write_text("x")
    assert provenance.git_state() == (commit, True)


COMMANDS = (
    ["run"],
    ["bench", "call_cost"],
    ["verify"],
    ["train"],
    ["campaign", "run", "--device", "cpu"],
    ["campaign", "merge", "result"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_other_code_than_a_checkouts_own_writes_nothing_there(project, command):
    write_notebook(project, "reproduce/02_kernel_speedup", "1")
    copy = project / "lrscan"
    shutil.copytree(origin.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert provenance.git_state() == (None, None)  # the same code is accepted
    with (copy / "ops.py").open("a") as file:
        file.write("# another operator\n")
    done = CliRunner().invoke(commands.main, command)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "its ops.py differs from the one in" in said
    assert "commit of code that did not run" in said
    assert {path.name for path in project.iterdir()} == {"notebooks", "lrscan"}
    with pytest.raises(workspace.WorkspaceError, match="ops.py"):
        provenance.collect("cpu", {}, 0)


def test_somebody_elses_repository_is_not_the_projects(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(make_project(tmp_path / "project"))
    assert provenance.git_state() == (None, None)


def test_the_commit_of_a_checkout_that_somebody_else_owns_is_read(project, monkeypatch):
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*settings, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], check=True)
    known = provenance.git_state()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    refused = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr, "git reads it without help"
    assert provenance.git_state() == known and known[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (40 * "a", (40 * "a", False)),
        (40 * "a" + "-dirty", (40 * "a", True)),
        ("main", (None, None)),
        ("", (None, None)),
    ],
)
def test_without_git_a_variable_names_the_commit(project, monkeypatch, text, found):
    monkeypatch.setenv("LRSCAN_COMMIT", text)
    assert provenance.git_state() == found


def test_git_takes_precedence_over_the_variable(project, monkeypatch):
    monkeypatch.setenv("LRSCAN_COMMIT", 40 * "a")
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*settings, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], check=True)
    commit, dirty = provenance.git_state()
    assert re.fullmatch("[0-9a-f]{40}", commit) and commit != 40 * "a" and dirty is False
