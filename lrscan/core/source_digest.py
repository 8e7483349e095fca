"""Digest of the sources that the kernels of a backend are built from: the key of their cache."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# Statements that import from this package, at any indentation. Python's own parser would take 25 ms
# for the files of a backend, in every process.
_IMPORT = re.compile(
    r"^[ \t]*(?:from (lrscan[\w.]*) import (\([^)]*\)|.*)|import (lrscan.*))", re.MULTILINE
)
# The modules that build kernels, by backend. Their imports lead to all other sources.
_ENTRY_MODULES = {
    "cpu": ("lrscan.cpu.dispatch", "lrscan.cpu.fused_cells"),
    "cuda": ("lrscan.cuda.dispatch",),
}


@functools.cache
def digest(backend: str) -> str:
    """Return the SHA-256 of the files of :func:`sources`."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources(backend))).hexdigest()


def sources(backend: str) -> list[Path]:
    """Return the files that the kernels of "cpu" or "cuda" are built from, sorted.

    Imports are followed from module to module, including those inside functions. Imports by a name
    that is put together at run time are not seen. Other packages are not followed.
    """
    found: set[Path] = set()
    queue = list(_ENTRY_MODULES[backend])
    while queue:
        for path in _files_of(queue.pop()):
            if path not in found:
                found.add(path)
                queue += _imported(path)
    return sorted(found)


def _imported(path: Path) -> Iterator[str]:
    """Yield the names that a file imports from this package: modules, or names inside modules."""
    for package, names, modules in _IMPORT.findall(path.read_text(encoding="utf-8")):
        yield from re.findall(r"[\w.]+", package + " " + modules)
        yield from (f"{package}.{name}" for name in re.findall(r"\w+", names))


def _files_of(name: str) -> Iterator[Path]:
    """Yield the file of a module and those of its parent packages, except the outermost one.

    The outermost package re-exports names from everywhere, but imports them only on first use.
    """
    package, *parts = name.split(".")
    folder = _PACKAGE
    if package != folder.name:
        return
    for part in parts:
        folder = folder / part
        for path in (folder / "__init__.py", folder.with_suffix(".py")):
            if path.is_file():
                yield path
