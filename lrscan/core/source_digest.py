"""A digest of the sources that a backend's kernels are made from: the key of compiled kernels."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# Statements that import of it, wherever they stand. Python's own parser would take 25 ms for the
# files of a backend, in every process.
_IMPORT = re.compile(
    r"^[ \t]*(?:from (lrscan[\w.]*) import (\([^)]*\)|.*)|import (lrscan.*))", re.MULTILINE
)
# The modules that kernels are begun in, by backend.
_BEGUN_IN = {
    "cpu": ("lrscan.cpu.dispatch", "lrscan.cpu.fused_cells"),
    "cuda": ("lrscan.cuda.dispatch",),
}


@functools.cache
def digest(backend: str) -> str:
    """SHA-256 of :func:`sources`."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources(backend))).hexdigest()


def sources(backend: str) -> list[Path]:
    """The files that the kernels of "cpu" or "cuda" are made from, in order.

    Imports are followed into functions, and from module to module. What is imported by a name that
    is put together at run time is not seen, nor is anything of other packages.
    """
    found: set[Path] = set()
    ahead = list(_BEGUN_IN[backend])
    while ahead:
        for path in _files_of(ahead.pop()):
            if path not in found:
                found.add(path)
                ahead += _imported(path)
    return sorted(found)


def _imported(path: Path) -> Iterator[str]:
    """The names that a file imports of this package: modules, and what may be one or lie in one."""
    for package, names, modules in _IMPORT.findall(path.read_text(encoding="utf-8")):
        yield from re.findall(r"[\w.]+", package + " " + modules)
        yield from (f"{package}.{name}" for name in re.findall(r"\w+", names))


def _files_of(name: str) -> Iterator[Path]:
    """The file of a module, and those of the packages it lies in, below the outermost one.

    The outermost one imports nothing by itself: it hands on names from everywhere.
    """
    package, *parts = name.split(".")
    place = _PACKAGE
    if package != place.name:
        return
    for part in parts:
        place = place / part
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                yield path
