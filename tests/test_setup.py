"""The Makefile builds .venv. Shell scripts stand in for Python, so nothing is installed."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from projects import LONGEST_S
from slow import SLOW

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Runs `-c CODE` in the real interpreter with a pretended version, creates a venv
# that contains a copy of itself, and only logs the arguments of pip.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") echo "venv {version}" >>log; mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") echo "pip $*" >>log; [ ! -e broken_pip ] || {pip_failure} ;;
    "-c "*) exec {real} -c "import sys; sys.version_info = {info}; {sabotage}
$2" ;;
    *) exit 99 ;;
esac
"""
NO_VENV = "sys.modules['ensurepip'] = None"
BROKEN = "#!/bin/sh\nexit 127\n"


class Tree:
    """Folder with the files that the set-up reads, and a PATH with only the programs it calls."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a tree"  # with a space, which folders may have
        self.path = folder / "path"
        (self.root / "tools").mkdir(parents=True)
        self.path.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/venv.sh"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("make", "sh", "awk", "cat", "cp", "date", "dirname", "find", "mkdir", "rm"):
            (self.path / name).symlink_to(shutil.which(name))

    def python(self, name, version, *, sabotage="", pip_failure="exit 1"):
        """Put a stand-in for Python on PATH that reports this version."""
        script = FAKE_PYTHON.format(
            real=sys.executable,
            version=version,
            info=tuple(int(part) for part in version.split(".")),
            sabotage=sabotage,
            pip_failure=pip_failure,
        )
        self.script(name, script)

    def script(self, name, text):
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def make(self, *arguments):
        return subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env={"PATH": str(self.path)},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )

    def done(self):
        """Return the commands since the last call: a list of "venv VERSION" and "pip"."""
        log = self.root / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line if line.startswith("venv") else line.split()[0] for line in lines]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def built(tree):
    tree.python("python3", "3.11.7")
    assert tree.make("venv").returncode == 0
    assert tree.done() == ["venv 3.11.7", "pip"]
    return tree


def test_help_lists_every_target(tree):
    phony = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text()).group(1).split()
    listed = re.findall(r"^  make ([\w-]+)", tree.make().stdout, re.MULTILINE)
    assert sorted(listed) == sorted(set(phony) - {"venv"})


def test_install_is_from_the_lock_with_the_extras(tree):
    tree.python("python3", "3.11.7")
    assert tree.make("venv").returncode == 0
    pip = (tree.root / "log").read_text().splitlines()[1]
    assert pip.endswith("-c constraints.txt -e .[cu13,notebooks,test,book,browser]")


def test_up_to_date_venv_is_reused(built):
    again = built.make("venv")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert built.done() == []


def _change(built, name):
    """Make a file newer than the set-up: files written in quick succession may have equal times."""
    earlier = time.time() - 10
    os.utime(built.root / ".venv" / ".complete", (earlier, earlier))
    (built.root / name).touch()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_dependencies_are_installed(built, name):
    _change(built, name)
    result = built.make("venv")
    assert result.returncode == 0
    assert "newer than .venv" in result.stdout
    assert built.done() == ["pip"]
    assert built.make("venv").stdout == ""


@pytest.mark.parametrize("failure", ["exit 1", "kill -KILL $PPID"], ids=["fails", "killed"])
def test_interrupted_install_starts_again_from_nothing(tree, failure):
    tree.python("python3", "3.11.7", pip_failure=failure)
    (tree.root / "broken_pip").touch()
    assert tree.make("venv").returncode != 0
    (tree.root / "broken_pip").unlink()
    half = tree.root / ".venv" / "half_a_package.py"
    half.touch()
    tree.done()
    assert tree.make("venv").returncode == 0
    assert tree.done() == ["venv 3.11.7", "pip"]
    assert not half.exists()


def test_interrupted_update_starts_again_from_nothing(built):
    (built.root / "broken_pip").touch()
    _change(built, "pyproject.toml")
    assert "install failed" in built.make("venv").stderr
    (built.root / "broken_pip").unlink()
    built.done()
    assert built.make("venv").returncode == 0
    assert built.done() == ["venv 3.11.7", "pip"]


@pytest.mark.parametrize("how", ["deleted", "broken"])
def test_venv_without_its_interpreter_is_built_again(built, how):
    interpreter = built.root / ".venv" / "bin" / "python"
    interpreter.unlink() if how == "deleted" else interpreter.write_text(BROKEN)
    assert built.make("venv").returncode == 0
    assert built.done() == ["venv 3.11.7", "pip"]


def test_moved_folder_builds_its_venv_again(built):
    built.root = built.root.rename(built.root.with_name("moved"))
    assert built.make("venv").returncode == 0
    assert built.done() == ["venv 3.11.7", "pip"]


def test_too_old_and_broken_pythons_are_named(tree):
    tree.python("python3", "3.10.13")
    tree.python("python3.11", "3.11.2", sabotage=NO_VENV)
    tree.script("python3.12", BROKEN)
    result = tree.make("test")
    assert result.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in result.stderr
    assert "python3: is Python 3.10.13\n" in result.stderr
    assert "python3.13: not found\n" in result.stderr
    assert "python3.12: does not run\n" in result.stderr
    assert "python3.11: is Python 3.11.2, but without venv" in result.stderr
    assert "apt install python3.11-venv" in result.stderr
    assert not (tree.root / ".venv").exists()


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_unsuitable_python_is_passed_over(tree, version):
    tree.python("python3", version)
    tree.python("python3.12", "3.12.1")
    assert tree.make("venv").returncode == 0
    assert tree.done() == ["venv 3.12.1", "pip"]


def test_named_python_replaces_another(built):
    built.python("other", "3.13.0")
    assert built.make("venv", "PYTHON=other").returncode == 0
    assert built.done() == ["venv 3.13.0", "pip"]
    assert built.make("venv", "PYTHON=other").stdout == ""
    assert built.make("venv").stdout == ""


def test_named_python_that_is_too_old_changes_nothing(built):
    built.python("old", "3.10.13")
    result = built.make("venv", "PYTHON=old")
    assert result.returncode != 0
    assert "old: is Python 3.10.13\n" in result.stderr
    assert built.done() == []
    assert built.make("venv").stdout == ""


def test_the_files_named_as_slow_exist():
    tests = Path(__file__).parent
    assert [name for name in SLOW if not (tests / name).is_file()] == []
