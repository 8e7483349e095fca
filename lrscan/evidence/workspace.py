"""Where things lie: the project's root, and the folders that a run reads and writes.

| what               | ordinary run            | recording run            |
|--------------------|-------------------------|--------------------------|
| records            | build/records/<device>/ | figures/records/<device>/|
| figures            | build/figures/<device>/ | figures/<device>/        |
| the figures' list  | build/figures/manifest.json | figures/manifest.json |

So an ordinary run leaves the tree clean. `build/` lies elsewhere where `LRSCAN_BUILD=DIR` or
`--build DIR` says so, for a checkout that cannot be written; files in it are called `build/...`
all the same in reports, records and the manifest (:func:`relative`, :func:`locate`).

What a run is, it tells its notebooks and measurements by :mod:`lrscan.evidence.context`. A user
may set three variables:

- `LRSCAN_BUILD=DIR`: another folder in the place of `build/`.
- `LRSCAN_COMMIT`: the commit that is measured, where there is no git to ask.
- `LRSCAN_KERNELS=DIR`: CUDA kernels that another machine compiled
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
    """The project's folders are needed and are not here."""


def find_root() -> Path:
    """The project's root: the nearest folder that holds `notebooks/profiles.toml`.

    Looked for from the working directory upwards, then from the package's own folder.

    Raises
    ------
    WorkspaceError
        There is none, as with an installed package.
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return folder
    raise WorkspaceError(
        f"no {MARKER.as_posix()} in {Path.cwd()} or above: this command needs the project's "
        "notebooks, and the installed package has none. Clone the repository and run it there."
    )


def build_folder() -> Path:
    """The folder of what runs make: `build/`, or the one that `LRSCAN_BUILD` names.

    Raises
    ------
    WorkspaceError
        It names a folder that holds the project, or is one of its own.
    """
    root = find_root()
    told = os.environ.get("LRSCAN_BUILD")
    if not told:
        return root / "build"
    folder, home = Path(told).resolve(), root.resolve()
    own = (home / name for name in ("figures", "notebooks", "lrscan", ".git"))
    if home.is_relative_to(folder) or any(folder.is_relative_to(one) for one in own):
        raise WorkspaceError(f"the build folder is {told}, where the project's own files lie")
    return folder


def recording() -> bool:
    """Whether this run writes to the committed folder `figures/`."""
    return context.current().recording


def profile() -> str | None:
    """The profile of this run; None when a notebook or a function is run by hand."""
    return context.current().profile


def committed_records() -> Path:
    """The folder of the committed records, with one folder a device."""
    return find_root() / "figures" / "records"


def records_folder() -> Path:
    """The folder this run writes records to, with one folder a device."""
    if out := context.current().records:
        return Path(out)
    return committed_records() if recording() else build_folder() / "records"


def figures_folder() -> Path:
    """The folder this run writes figures and `manifest.json` to."""
    if out := context.current().figures:
        return Path(out)
    return find_root() / "figures" if recording() else build_folder() / "figures"


def relative(path: Path) -> str:
    """`path` seen from the root, so that no machine's folders get into a file.

    The build folder is called `build`, wherever it lies. Outside the project only the last two
    parts are kept: device and file name.
    """
    path = path.resolve()
    try:
        if path.is_relative_to(build := build_folder().resolve()):
            return Path("build", path.relative_to(build)).as_posix()
        return path.relative_to(find_root().resolve()).as_posix()
    except (ValueError, WorkspaceError):
        return Path(*path.parts[-2:]).as_posix()


def locate(name: str) -> Path:
    """The file that :func:`relative` gave this name."""
    path = Path(name)
    if path.parts[:1] == ("build",):
        return build_folder().joinpath(*path.parts[1:])
    return find_root() / path


def shown(path: Path) -> str:
    """`path` as a user finds it: seen from the root or from here if it is below one of them."""
    path = path.resolve()
    for folder in (find_root().resolve(), Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def check_name(name: str) -> str:
    """`name` itself if it can be a file's name everywhere.

    Raises
    ------
    ValueError
        It has other characters than letters, digits, "_" and "-".
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a name is made of letters, digits, _ and -, not {name!r}")
    return name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file that is read, then written again."""
    from filelock import FileLock

    folder = build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    with FileLock(folder / f".{name}.lock"):
        yield


def remedy(path: Path) -> str:
    """What to do about a file that cannot be written: a sentence after a space, or nothing."""
    with suppress(WorkspaceError):
        if path.resolve().is_relative_to(build_folder().resolve()):
            return " Another folder for what runs make: --build DIR or LRSCAN_BUILD=DIR."
    return ""


def check_writable(folder: Path) -> None:
    """Try to write to a folder, before there is anything to lose.

    Raises
    ------
    OSError
        It cannot be made or written to, or its disk is full; `filename` names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        error.filename = str(folder)
        raise
