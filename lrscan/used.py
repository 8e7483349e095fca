"""Which files of the project a process has used: what a notebook has to be run again for.

This runs inside a notebook's kernel, so it imports nothing of the package.
"""

import json
import os
import sys
from pathlib import Path

# Installed packages are told by their versions; compiled files follow their sources.
_OTHERS = {"__pycache__", "site-packages", "dist-packages", ".git"}
_opened: set[str] = set()
_written: set[str] = set()
_watching: list[str] = []


def watch(*folders: str) -> None:
    """Note from now on which files below these folders are opened to be read, and renamed to."""
    if not _watching:
        sys.addaudithook(_note)
    _watching.extend(folder.rstrip(os.sep) + os.sep for folder in folders)


def report() -> str:
    """JSON: {"read": files that were opened or imported, "written": files renamed into place}."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    imported = {file for file in files if isinstance(file, str) and _watched(file)}
    read = (imported | _opened) - _written
    return json.dumps({"read": sorted(read), "written": sorted(_written)})


def _note(event: str, arguments: tuple) -> None:
    try:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and not flags & (os.O_WRONLY | os.O_RDWR):
                _enter(_opened, path)
        elif event == "os.rename":
            _enter(_written, arguments[1])
    except Exception:  # an error here would come out of somebody's open()
        pass


def _enter(files: set[str], path: str | bytes | os.PathLike) -> None:
    full = os.path.abspath(os.fsdecode(path))
    if _watched(full):
        files.add(full)


def _watched(path: str) -> bool:
    below = (path.removeprefix(folder) for folder in _watching if path.startswith(folder))
    return any(not _OTHERS.intersection(Path(rest).parts) for rest in below)
