"""Cache of passed notebooks: a notebook runs again only if something that it depends on changed.

``build/passed/<notebook>.json`` stores the dependencies of a notebook's last pass: a table of named
facts (code cells, parameters, lock, versions, device), hashes of the files that the notebook read,
imported and wrote, the contents of the folders that it listed, and the paths that it looked for and
did not find. Prose is not a dependency.
"""

import hashlib
import json
import os
import platform
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrscan.core.files import write_files
from lrscan.core.versions import package_version
from lrscan.evidence import context, origin, provenance, workspace
from lrscan.evidence.records import json_text
from lrscan.runner.catalog import Notebook
from lrscan.runner.outcome import PASSED, UNCHANGED, CellOutcome, Outcome

# Environment variables that change results, speed or the location of output, by prefix.
_VARIABLES = (
    "ATEN_",
    "BLIS_",
    "CUBLAS_",
    "CUDA_",
    "DNNL_",
    "GOMP_",
    "JAX_",
    "KMP_",
    "LANG",
    "LC_",
    "LD_",
    "LRSCAN_",
    "MALLOC_",
    "MKL_",
    "NPY_",
    "NUMBA_",
    "NVIDIA_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTHON",
    "PYTORCH_",
    "TORCH",
    "TRITON_",
    "TZ",
    "VECLIB_",
    "XLA_",
)


def facts(root: Path, notebook: Notebook, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return every dependency of a notebook except files, keyed by a printable name."""
    cells = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    code = [cell["metadata"].get("solution", cell["source"]) for cell in cells]
    given = origin.variables()
    variables = {name: value for name, value in given.items() if name.startswith(_VARIABLES)}
    variables.pop(context.VARIABLE, None)  # the parts that matter are listed below
    versions = {name: package_version(name) for name in _packages(root)}
    return {
        "the code": _digest(json.dumps([notebook.kernel, code]).encode()),
        "the lock": digest(root / "constraints.txt"),
        "the device": provenance.hardware(),
        "the profile": workspace.profile(),
        "Python": platform.python_version(),
        **versions,
        **{f"parameter {name}": value for name, value in parameters.items()},
        **variables,
    }


def _packages(root: Path) -> set[str]:
    """Return the packages in the lock, and those that lrscan itself requires."""
    lock = root / "constraints.txt"
    asked = [*provenance.PACKAGES, *provenance.requirements()]
    if lock.is_file():
        asked += re.findall(r"(?m)^[A-Za-z0-9][\w.-]*(?===)", lock.read_text())
    return {re.sub(r"[-_.]+", "-", name).lower() for name in asked}


@dataclass
class Entry:
    """State of one notebook in the cache.

    Attributes:
        unchanged: True if nothing changed since the notebook's last pass, so that it need not run
        used: the result of :func:`lrscan.runner.execution.execute`, which the caller fills in after
            a run
    """

    unchanged: bool
    used: dict[str, Any] | None = None


@contextmanager
def entry(
    root: Path, notebook: Notebook, outcome: Outcome, because: str | None, *, keep: bool
) -> Iterator[Entry]:
    """Fill in a notebook's outcome from its last pass, or store a pass after the caller ran it.

    Args:
        root: the project's root
        notebook: the notebook
        outcome: the notebook's outcome; receives the reason why it has to run
        because: a reason to run the notebook even if nothing changed; None if there is no such
            reason
        keep: True if a pass is to be stored

    Yields:
        The state of the notebook in the cache.
    """
    now = facts(root, notebook, outcome.parameters)
    outcome.reason = because or _why(notebook, now)
    one = Entry(unchanged=outcome.reason is None)
    if one.unchanged:
        _restore(notebook, outcome)
        yield one
        return
    _path(notebook).unlink(missing_ok=True)
    yield one
    if keep and one.used and outcome.verdict == PASSED:
        _store(root, notebook, now, outcome, one.used)


def _why(notebook: Notebook, now: dict[str, Any]) -> str | None:
    """Return in a few words why a notebook has to run; None if nothing changed since it passed."""
    try:
        state = json.loads(_path(notebook).read_text())
        if "unsure" in state:
            return state["unsure"]
        before = state["facts"]
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                return f"{name} changed"
        for name, wanted in (state["read"] | state["written"]).items():
            if digest(_locate(name)) != wanted:
                return f"{name} changed"
        for name, wanted in state["listed"].items():
            if _listing(_locate(name)) != wanted:
                return f"the contents of {name} changed"
        for name in state["absent"]:
            if _locate(name).exists():
                return f"{name} now exists"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "it has not passed before"
    return None


def _store(
    root: Path, notebook: Notebook, now: dict[str, Any], outcome: Outcome, used: dict[str, Any]
) -> None:
    """Store a pass, unless a file that the notebook read or looked for changed while it ran.

    Args:
        root: the project's root
        notebook: the notebook
        now: the result of :func:`facts` before the notebook ran
        outcome: the notebook's outcome
        used: the result of ``file_audit.report``, with {"since": time.time() at the start}
    """
    read = list(map(Path, used["read"]))
    written = [workspace.locate(str(outcome.executed)), *map(Path, used["written"])]
    written = [path for path in written if path.name != "manifest.json" and path.is_file()]
    listed = {Path(path): _relevant(names) for path, names in used["listed"].items()}
    absent = list(map(Path, used["absent"]))
    changed = [path for path in read if not path.is_file() or _changed_at(path) >= used["since"]]
    changed += [path for path, names in listed.items() if _listing(path) != names]
    changed += [path for path in absent if path.exists()]
    if changed:
        unsure = {"unsure": f"{_name(root, changed[0])} changed while it ran"}
        return write_files({_path(notebook): json_text(unsure)})
    state = {
        "facts": now,
        "read": {_name(root, path): digest(path) for path in read},
        "written": {_name(root, path): digest(path) for path in written},
        "listed": {_name(root, path): names for path, names in listed.items()},
        "absent": sorted(_name(root, path) for path in absent),
        "outcome": asdict(outcome),
        "passed_at": provenance.utc_now(),
    }
    write_files({_path(notebook): json_text(state)})


def _changed_at(path: Path) -> float:
    """Return when a file was last changed on this disk.

    The modification time does not say that: a file from an archive can have one in the future.
    """
    found = path.stat()
    return found.st_mtime if os.name == "nt" else found.st_ctime


def _restore(notebook: Notebook, outcome: Outcome) -> None:
    """Fill in the outcome of an unchanged notebook, and update the prose of its executed copy."""
    state = json.loads(_path(notebook).read_text())
    last = state["outcome"]
    outcome.verdict = UNCHANGED
    outcome.reason = f"as it passed at {state['passed_at']}"
    outcome.executed = last["executed"]
    seconds = [cell["seconds"] for cell in last["cells"]]
    outcome.cells = [  # new prose shifts the numbers of cells
        CellOutcome(cell.number, PASSED, taken)
        for cell, taken in zip(outcome.cells, seconds, strict=True)
    ]
    executed = workspace.locate(last["executed"])
    document = json.loads(executed.read_text(encoding="utf-8"))
    merged = _with_prose(notebook.cells, document["cells"])
    if merged != document["cells"]:
        text = json.dumps(document | {"cells": merged}, indent=1, ensure_ascii=False) + "\n"
        state["written"][last["executed"]] = _digest(text.encode())
        write_files({executed: text, _path(notebook): json_text(state)})


def _with_prose(source: list[dict], executed: list[dict]) -> list[dict]:
    """Return the executed code cells between the source's current prose."""
    code = deque(cell for cell in executed if cell["cell_type"] == "code")
    merged: list[dict] = []

    def injected() -> None:  # the cell that papermill adds is not in the source
        while code and "injected-parameters" in code[0]["metadata"].get("tags", []):
            merged.append(code.popleft())

    injected()
    for cell in source:
        if cell["cell_type"] == "code":  # the source's id, so that no id occurs twice
            cell = code.popleft() | {key: cell[key] for key in ("id",) if key in cell}
        merged.append(cell)
        injected()
    return merged


def digest(path: Path) -> str | None:
    """Return a file's SHA-256; None if there is no such file."""
    return _digest(path.read_bytes()) if path.is_file() else None


def _listing(path: Path) -> list[str] | None:
    """Return the relevant names in a folder; None if there is no such folder."""
    return _relevant(one.name for one in path.iterdir()) if path.is_dir() else None


def _relevant(names: Iterable[str]) -> list[str]:
    """Sort names, and leave out hidden files and folders of compiled files."""
    return sorted(name for name in names if name[0] != "." and name != "__pycache__")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _path(notebook: Notebook) -> Path:
    return workspace.build_folder() / "passed" / f"{notebook.name}.json"


def _name(root: Path, path: Path) -> str:
    """Return a path without folders of this machine; the package may be outside the project."""
    if path.resolve().is_relative_to(origin.PACKAGE):
        return path.resolve().relative_to(origin.PACKAGE.parent).as_posix()
    if path.is_relative_to(root.resolve()):  # a link in the project may point outside
        name = path.relative_to(root.resolve()).as_posix()
        return f"./{name}" if _is_of_package(name) else name
    return workspace.relative(path)


def _locate(name: str) -> Path:
    return origin.PACKAGE.parent / name if _is_of_package(name) else workspace.locate(name)


def _is_of_package(name: str) -> bool:
    return name.partition("/")[0] == origin.PACKAGE.name
