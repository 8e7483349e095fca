"""Result folder of a campaign, and its working folder.

A result often moves to another machine, so everything is in one archive, ``campaign.zip``::

    state.json          device, commit, sources and versions, and how each phase ended
    records/<device>/   the records, as lrscan.evidence.records writes them
    notes/              the cases of the smoke test that passed and failed, reports of checkers
    logs/               the end of what each phase printed

Every version of the archive is written to a new file, which then replaces the old one. A campaign
works in a temporary folder, so nothing but the archive has to be kept. There is one exception: the
checkpoint of an unfinished training run is large, so it stays on the machine in
``build/checkpoints``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lrscan.core.files import write_files
from lrscan.core.versions import package_version
from lrscan.evidence import workspace
from lrscan.evidence.records import json_text

ARCHIVE, SUMMARY = "campaign.zip", "summary.txt"
FORMAT = 1
CHANGED = " with uncommitted changes"  # appended to a commit in messages
# Limits in bytes: of the archive, since some ways to send it accept no larger file; of its contents
# before they are unpacked; and of each log in it.
MOST_BYTES = 15 * 2**20
_MOST_UNPACKED = 256 * 2**20
_MOST_LOG = 128 * 1024
# Files that affect measurements.
_SOURCES = (
    "lrscan/**/*.py",
    "lrscan/**/*.csv",
    "notebooks/profiles.toml",
    "tests/cuda/test_cuda*.py",
)


class CampaignError(workspace.WorkspaceError):
    """Error in a request to a campaign; nothing was changed."""


@dataclass
class State:
    """State of a campaign.

    Attributes:
        device:       the device's name in paths
        device_label: the device's name in messages
        device_type:  "cuda" or "cpu"
        commit:       the measured commit
        dirty:        True if files differed from the commit
        sources:      the digest of each file that affects measurements, by path
        versions:     the versions of the packages that affect measurements
        phases:       {"status", "seconds", "message", "attempts"} of each phase, by name; also
            "kernels" if it loaded CUDA kernels
        format:       the version of this format
    """

    device: str
    device_label: str
    device_type: str
    commit: str
    dirty: bool
    sources: dict[str, str]
    versions: dict[str, str]
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT


def source_digests(root: Path) -> dict[str, str]:
    """Return the git blob id of every file that affects measurements, by path in the project."""
    found = {}
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            data = path.read_bytes()
            whole = b"blob %d\0" % len(data) + data
            found[path.relative_to(root).as_posix()] = hashlib.sha1(whole).hexdigest()
    return found


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect measurements."""
    found = {name: package_version(name) for name in ("torch", "numba", "numba-cuda", "triton")}
    return {name: version for name, version in found.items() if version}


class Store:
    """Result folder in use, with a temporary working folder.

    Args:
        out:     the result folder
        earlier: a result to continue from, a folder or an archive; None: the one in ``out``, if any

    Raises:
        CampaignError: ``earlier`` is not a result, or ``out`` cannot be written
    """

    def __init__(self, out: Path, earlier: Path | None = None) -> None:
        self.out, self.full = out, ""
        archive = archive_in(earlier) if earlier else out / ARCHIVE
        try:
            out.mkdir(parents=True, exist_ok=True)
            probe = out / ".probe"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise CampaignError(f"{out} cannot be written: {error.strerror}") from None
        self.work = Path(tempfile.mkdtemp(prefix="lrscan-campaign-"))
        self.state: State | None = None
        self._packed = 0.0
        if archive.is_file():
            try:
                self.state = unpack(archive, self.work)
            except CampaignError:
                self.close()
                raise

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.work / "records"

    def log(self, name: str) -> Path:
        """Return the path of the log with this name."""
        path = self.work / "logs" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        return path

    def pack(self, force: bool = False) -> None:
        """Write the archive if a file has changed since the last time, or if ``force`` is True.

        If the result folder cannot be written, the archive stays as it was, and ``full`` holds the
        reason.
        """
        if self.state is None:
            return
        changed = max(map(_changed_at, self._files()), default=0)
        if not force and changed <= self._packed:
            return
        state = json_text(asdict(self.state))
        try:
            write_files({self.out / ARCHIVE: self._zipped(state)})
            self._packed, self.full = changed, ""
        except OSError as error:
            self.full = f"{self.out} could not be written: {error.strerror}"

    def _files(self) -> list[Path]:
        # A name that starts with a dot belongs to a file that is being written.
        return [path for path in self.work.rglob("*") if path.name[0] != "." and path.is_file()]

    def forget_notes(self) -> None:
        """Delete the notes of earlier runs."""
        shutil.rmtree(self.work / "notes", ignore_errors=True)

    def _zipped(self, state: str) -> bytes:
        with tempfile.TemporaryFile() as file:
            for left_out in ((), ("logs/",), ("logs/", "notes/")):  # until the archive fits
                file.seek(0)
                file.truncate()
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr("state.json", state)
                    for path in sorted(self._files()):
                        name = path.relative_to(self.work).as_posix()
                        if not name.startswith(left_out):
                            archive.writestr(name, _end_of(path, name.startswith("logs/")))
                if file.tell() <= MOST_BYTES:
                    break
            file.seek(0)
            return file.read()

    def close(self) -> None:
        """Delete the working folder, unless it is the only place that has the results."""
        if not self.full:
            shutil.rmtree(self.work, ignore_errors=True)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # it was renamed in the meantime
        return 0


def _end_of(path: Path, cut: bool) -> bytes:
    """Return a file's contents, or only their end if ``cut`` is True."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_LOG) if cut else 0)
        return file.read()


def archive_in(path: Path) -> Path:
    """Return the archive that a path names: the path itself, or the archive in that folder.

    Raises:
        CampaignError: there is no such file
    """
    found = path / ARCHIVE if path.is_dir() else path
    if not found.is_file():
        raise CampaignError(f"there is no campaign result in {path}: {found.name} is missing")
    return found


def unpack(archive: Path, folder: Path) -> State:
    """Unpack an archive into an empty folder.

    Raises:
        CampaignError: the archive is damaged, is not a campaign result, or names files outside the
            folder
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = [info.filename for info in file.infolist()]
            if sum(info.file_size for info in file.infolist()) > _MOST_UNPACKED:
                raise ValueError(f"it unpacks to more than {_MOST_UNPACKED // 2**20} MiB")
            for name in names:
                parts = PurePosixPath(name.replace("\\", "/"))
                if parts.is_absolute() or ".." in parts.parts or ":" in name:
                    raise ValueError(f"it names {name!r}, a path outside the archive")
            given = json.loads(file.read("state.json"))
            if given.get("format") != FORMAT:
                raise ValueError(
                    f"its format is {given.get('format')!r}, but only format {FORMAT} can be read"
                )
            state = State(**given)
            file.extractall(folder, [name for name in names if name != "state.json"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise CampaignError(f"{archive} is not a campaign result: {error}") from None
    return state
