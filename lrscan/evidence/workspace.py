"""Locations of files: the project's root, and the folders that a run reads and writes.

::

                ordinary run                  recording run
    records     build/records/<device>/       figures/records/<device>/
    figures     build/figures/<device>/       figures/<device>/
    manifest    build/figures/manifest.json   figures/manifest.json

So an ordinary run leaves the working tree clean. If the checkout is read-only, ``LRSCAN_BUILD=DIR``
or ``--build DIR`` names another folder for ``build/``. Reports, records and the manifest still call
the files in it ``build/...`` (:func:`relative`, :func:`locate`).

A run passes its settings to its notebooks and measurements through
:mod:`lrscan.evidence.context`. Users may set three environment variables:

- ``LRSCAN_BUILD=DIR``: a folder to use instead of ``build/``.
- ``LRSCAN_COMMIT``: the commit that is measured, if git is not available.
- ``LRSCAN_KERNELS=DIR``: CUDA kernels that another machine compiled
  (:mod:`lrscan.cuda.machine_code`).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrscan.evidence import context

MARKER = Path("notebooks", "profiles.toml")


class WorkspaceError(RuntimeError):
    """Error for a command that needs the project's folders and does not find them."""


def find_root() -> Path:
    """Return the project's root: the nearest folder that contains ``notebooks/profiles.toml``.

    The search goes upwards from the working directory, then from the package's own folder.

    Raises:
        WorkspaceError: there is no such folder, as with an installed package
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return folder
    raise WorkspaceError(
        f"no {MARKER.as_posix()} in {Path.cwd()} or above: this command needs the project's "
        "notebooks, which the installed package does not contain. Clone the repository and run "
        "the command there."
    )


def build_folder() -> Path:
    """Return the folder for a run's output: ``build/``, or the one that ``LRSCAN_BUILD`` names.

    Raises:
        WorkspaceError: ``LRSCAN_BUILD`` names a folder that contains the project, or is in one of
            the project's own folders
    """
    root = find_root()
    name = os.environ.get("LRSCAN_BUILD")
    if not name:
        return root / "build"
    folder, home = Path(name).resolve(), root.resolve()
    own = (home / name for name in ("figures", "notebooks", "lrscan", ".git"))
    if home.is_relative_to(folder) or any(folder.is_relative_to(one) for one in own):
        raise WorkspaceError(
            f"the build folder {name} overlaps the project's own files; choose another folder"
        )
    return folder


def recording() -> bool:
    """Return True if this run writes to the committed folder ``figures/``."""
    return context.current().recording


def profile() -> str | None:
    """Return the profile of this run; None if a notebook or a function is run by hand."""
    return context.current().profile


def committed_records() -> Path:
    """Return the folder of the committed records, which has one folder per device."""
    return find_root() / "figures" / "records"


def records_folder() -> Path:
    """Return the folder to which this run writes records, with one folder per device."""
    if out := context.current().records:
        return Path(out)
    return committed_records() if recording() else build_folder() / "records"


def figures_folder() -> Path:
    """Return the folder to which this run writes figures and ``manifest.json``."""
    if out := context.current().figures:
        return Path(out)
    return find_root() / "figures" if recording() else build_folder() / "figures"


def relative(path: Path) -> str:
    """Return ``path`` relative to the root, so that no file names a folder of this machine.

    The build folder is always called ``build``. Outside the project, only the last two parts of the
    path are kept: device and file name.
    """
    path = path.resolve()
    try:
        if path.is_relative_to(build := build_folder().resolve()):
            return Path("build", path.relative_to(build)).as_posix()
        return path.relative_to(find_root().resolve()).as_posix()
    except (ValueError, WorkspaceError):
        return Path(*path.parts[-2:]).as_posix()


def locate(name: str) -> Path:
    """Return the path of the file to which :func:`relative` gave this name."""
    path = Path(name)
    if path.parts[:1] == ("build",):
        return build_folder().joinpath(*path.parts[1:])
    return find_root() / path


def shown(path: Path) -> str:
    """Return ``path`` for a message: relative to the root or the working directory if possible."""
    path = path.resolve()
    for folder in (find_root().resolve(), Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid file name on every system.

    Raises:
        ValueError: it has characters other than letters, digits, "_" and "-", or begins with "_" or
            "-"
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(
            "a name consists of letters, digits, _ and -, and begins with a letter or a digit; "
            f"not {name!r}"
        )
    return name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file while this one reads and rewrites it."""
    from filelock import FileLock

    folder = build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    with FileLock(folder / f".{name}.lock"):
        yield


def remedy(path: Path) -> str:
    """Return a remedy for a file that cannot be written: a sentence after a space, or ""."""
    with suppress(WorkspaceError):
        if path.resolve().is_relative_to(build_folder().resolve()):
            return " Choose another output folder with --build DIR or LRSCAN_BUILD=DIR."
    return ""


def check_writable(folder: Path) -> None:
    """Test that a folder can be written, before there is work to lose.

    Raises:
        OSError: the folder cannot be created or written, or its disk is full; ``filename`` names
            the folder
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        error.filename = str(folder)
        raise
