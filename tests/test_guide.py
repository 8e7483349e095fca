"""README.md and the guide: their code runs, and their commands exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from projects import PYTHONPATH

from lrscan.campaign import warmup
from lrscan.cli import commands, doctor
from lrscan.experiments import registry
from lrscan.runner import verify

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def command_lines():
    """Return every command that stands in a shell block or within a sentence."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.S | re.M)
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", prose)]
    program = re.compile(r"(\.venv/bin/)?(make|lrscan|python3?|pip|conda) ")
    found = [shlex.split(line, comments=True) for line in lines if program.match(line)]
    return [list(command) for command in dict.fromkeys(map(tuple, found))]


COMMANDS = command_lines()


def ids(command):
    return " ".join(command)


def test_the_readme_can_be_read_in_a_minute_or_two():
    assert len(PAGES[0].read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks("python", page.read_text())],
    ids=lambda page: page.stem,
)
def test_the_code_of_a_page_runs(page, tmp_path):
    code = "\n".join(blocks("python", page.read_text()))
    if "onnx" in code:
        pytest.importorskip("onnxscript")
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_commands_of_every_program_are_found():
    assert {"make", "lrscan", "python3", "python", "conda"} <= {Path(c[0]).name for c in COMMANDS}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "make"], ids=ids)
def test_every_make_target_exists(command):
    done = subprocess.run([command[0], "-n", *command[1:]], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


WORKING = ("run", "bench", "train", "verify", "doctor", "campaign", "warmup")


class Done:
    """A campaign that notes its options and does nothing."""

    def __init__(self, done, options):
        done.append(options)

    def run(self):
        return 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if Path(c[0]).name == "lrscan"], ids=ids)
def test_lrscan_accepts_its_arguments(command, monkeypatch):
    """The notebooks and profiles are real; only the work itself is replaced."""
    runner = pytest.importorskip("lrscan.runner.suite", reason="the notebooks need papermill")
    done = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(runner, "run", lambda *_, **options: done.append(options) or 0)
    stand_ins = {
        one.name: replace(one, measure=lambda **parameters: done.append(parameters))
        for one in registry.load_all()
    }
    monkeypatch.setattr(registry, "load", stand_ins.__getitem__)
    monkeypatch.setattr("lrscan.cli.training.main", lambda **options: done.append(options) or 0)
    for verb in (verify, doctor, warmup):
        monkeypatch.setattr(verb, "run", lambda *_, **options: done.append(options) or 0)
    monkeypatch.setattr("lrscan.campaign.run.Campaign", lambda **options: Done(done, options))
    monkeypatch.setattr("lrscan.campaign.kit.make", lambda **options: done.append(options) or 0)
    monkeypatch.setattr(
        "lrscan.campaign.merge.merge", lambda *_, **options: done.append(options) or 0
    )
    result = CliRunner().invoke(commands.main, command[1:])
    assert result.exit_code == 0, result.output
    assert done or command[1] not in WORKING


@pytest.mark.parametrize("command", [c for c in COMMANDS if "install" in c], ids=ids)
def test_the_extras_of_a_pip_command_exist(command):
    asked = re.findall(r"\[([a-z0-9,]+)\]", " ".join(command))
    assert all(extra in EXTRAS for found in asked for extra in found.split(","))
    assert "-c" not in command or (ROOT / command[command.index("-c") + 1]).is_file()


def test_the_notebook_that_the_readme_runs_first_works(tmp_path):
    pytest.importorskip("papermill")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    command = ["lrscan", "run", "--only", "learn/01"]
    assert command in COMMANDS
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stdout
