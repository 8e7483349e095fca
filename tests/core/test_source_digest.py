"""The digest of sources, by which compiled kernels are cached, changes with every source."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrscan.core import source_digest

PACKAGE = Path(source_digest.__file__).parents[1]
BACKENDS = ("cpu", "cuda")
# The files with kernels and the functions that they are built from.
KERNELS = {
    "cpu": ["cpu/*.py", "core/algebra.py", "core/sweep.py"],
    "cuda": ["cuda/**/*.py", "core/algebra.py", "core/sweep.py"],
}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package. Its digest is computed again at every call."""
    folder = tmp_path / "lrscan"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source_digest, "_PACKAGE", folder)
    monkeypatch.setattr(source_digest, "digest", source_digest.digest.__wrapped__)
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_file_with_a_kernel_is_among_the_sources(backend):
    found = set(source_digest.sources(backend))
    written = {path for pattern in KERNELS[backend] for path in PACKAGE.glob(pattern)}
    assert len(written) > 10 and written <= found


def test_every_import_of_the_package_is_seen():
    """The regular expression finds every import that Python's own parser finds."""
    for path in PACKAGE.rglob("*.py"):
        seen = set(source_digest._imported(path))
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}".removesuffix(".*") for one in node.names]
            missed = {name for name in names if name.split(".")[0] == "lrscan"} - seen
            assert not missed, (path, node.lineno)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_digest_changes_with_each_source(copy, backend):
    before = source_digest.digest(backend)
    sources = source_digest.sources(backend)
    assert all(path.is_relative_to(copy) for path in sources)
    for path in sources:
        text = path.read_text()
        path.write_text(text + "\n# edited\n")
        assert source_digest.digest(backend) != before, path.relative_to(copy)
        path.write_text(text)
    assert source_digest.digest(backend) == before


def test_other_files_do_not_change_the_digest(copy):
    before = [source_digest.digest(backend) for backend in BACKENDS]
    others = ["core/api.py", "core/autograd.py", "nn/models.py", "cli/commands.py"]
    for name in others:
        with (copy / name).open("a") as file:
            file.write("\n# edited\n")
    assert [source_digest.digest(backend) for backend in BACKENDS] == before


def test_a_module_that_a_function_imports_is_a_source(copy):
    before = source_digest.digest("cpu")
    (copy / "cpu" / "added.py").write_text("ONE = 1\n")
    assert source_digest.digest("cpu") == before  # nothing imports it
    with (copy / "cpu" / "steps.py").open("a") as file:
        file.write("\n\ndef later():\n    from lrscan.cpu import added\n\n    return added.ONE\n")
    assert copy / "cpu" / "added.py" in source_digest.sources("cpu")


def test_another_process_computes_the_digest_of_its_own_sources(copy):
    """It is the digest of the copy that the process imports, also after an edit."""
    script = "from lrscan.core.source_digest import digest; print(digest('cpu'), digest('cuda'))"
    before = [source_digest.digest(backend) for backend in BACKENDS]
    for edited in (False, True):
        if edited:
            with (copy / "core" / "algebra.py").open("a") as file:
                file.write("\n# edited\n")
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=copy.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        printed = done.stdout.split()
        assert printed == [source_digest.digest(backend) for backend in BACKENDS]
        assert all(now != then for now, then in zip(printed, before, strict=True)) == edited
