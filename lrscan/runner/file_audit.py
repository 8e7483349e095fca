"""Record of the project's files that a process uses: the dependencies of a notebook.

This module runs in a notebook's kernel, so it imports nothing from the package.
"""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Installed packages are identified by their versions. Compiled files follow from their sources.
_IGNORED = {"__pycache__", "site-packages", "dist-packages", ".git"}
# Modules that list whole folders in search of a module. Their listings do not count as
# dependencies: the module that is imported does.
_FINDERS = (
    "_frozen_importlib_external",
    "importlib",
    "importlib_metadata",
    "pkgutil",
    "pkg_resources",
)
_opened: set[str] = set()
_absent: set[str] = set()
_listed: dict[str, list[str]] = {}
_made: set[str] = set()
_written: set[str] = set()
_watching: list[str] = []
_stat = os.stat
_INSTALLED = sys.prefix + os.sep


def watch(*folders: str) -> None:
    """Record from now on how this process uses the files below some folders.

    This covers the files that it opens for reading, the files that it renames into place, the
    folders that it lists, and the paths that it looks for and that do not exist.
    """
    if not _watching:
        sys.addaudithook(_note)
        for name in ("stat", "lstat"):  # these raise no audit event
            setattr(os, name, _noting(getattr(os, name)))
    _watching.extend(folder.rstrip(os.sep) + os.sep for folder in folders)


def report() -> str:
    """Return the recorded paths as JSON, by kind of use.

    The kinds are::

        read      files that were opened or imported
        listed    {folder: the names in it, and those that this process added}
        absent    paths that did not exist when the process looked for them, except those that it
                  created later
        written   files that were renamed into place
    """
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    imported = {file for file in files if isinstance(file, str) and _watched(file)}
    own = _made | _written
    left = [os.path.split(path) for path in own if _is_there(path)]
    document = {
        "read": sorted((imported | _opened) - _written),
        "listed": {
            folder: sorted({*names, *(name for where, name in left if where == folder)})
            for folder, names in _listed.items()
        },
        "absent": sorted(_absent - own),
        "written": sorted(_written),
    }
    return json.dumps(document)


def _note(event: str, arguments: tuple) -> None:
    try:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int):
                return
            if flags & (os.O_WRONLY | os.O_RDWR):
                _enter(_made, path)
            else:
                _enter(_opened if _is_there(path) else _absent, path)
        elif event in ("os.listdir", "os.scandir"):
            asking = sys._getframe(1).f_globals.get("__name__", "")
            if asking.partition(".")[0] not in _FINDERS and asking != __name__:
                _enter_listing(arguments[0])
        elif event == "os.mkdir":
            _enter(_made, arguments[0])
        elif event == "os.rename":
            _enter(_written, arguments[1])
        elif event == "absent" and arguments[0]:  # "" is not a path
            _enter(_absent, arguments[0])
    except Exception:  # an error here would be raised by the open() that is recorded
        pass


def _noting(look: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``os.stat`` or ``os.lstat``, and record the paths that do not exist."""

    @functools.wraps(look)
    def noting(path: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return look(path, *arguments, **options)
        except (FileNotFoundError, NotADirectoryError):
            if options.get("dir_fd") is None:
                _note("absent", (path,))
            raise

    for supporting in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if look in supporting:
            supporting.add(noting)
    return noting


def _is_there(path: Any) -> bool:
    try:
        return bool(_stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _enter(paths: set[str], path: str | bytes | os.PathLike) -> None:
    full = os.path.abspath(os.fsdecode(path))
    if _watched(full):
        paths.add(full)


def _enter_listing(folder: Any) -> None:
    """Record the contents of a folder when it is listed for the first time."""
    if isinstance(folder, int):
        return
    full = os.path.abspath(os.fsdecode(folder or "."))
    if not _watched(full) or full in _listed:
        return
    if _is_there(full):
        _listed[full] = os.listdir(full)
    else:
        _absent.add(full)


def _watched(path: str) -> bool:
    whole = path + os.sep  # a watched folder itself is watched, too
    return any(
        whole.startswith(folder)
        and not _IGNORED.intersection(Path(whole.removeprefix(folder)).parts)
        # A virtual environment may be inside the project, and the package inside the environment.
        and not (_INSTALLED.startswith(folder) and whole.startswith(_INSTALLED))
        for folder in _watching
    )
