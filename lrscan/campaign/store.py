"""The result folder of a campaign, and the folder that it works in.

Everything is in one archive, `campaign.zip`, since a result often has to travel:

    state.json          what was measured (device, commit, sources, versions), and how phases ended
    records/<device>/   the records, as :mod:`lrscan.evidence.records` writes them
    notes/              of the smoke test: cases that passed and failed
    logs/               what each phase printed, the end of it

The archive is written anew, aside, and then renamed. A campaign works in a temporary folder, so the
archive is all that there is to lose, but for a training run that was not finished: its checkpoint
is in `build/checkpoints` and, being large, stays on the machine.
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
# What a result may weigh: some ways of sending one take no larger file.
MOST_BYTES = 15 * 2**20
_MOST_UNPACKED = 256 * 2**20
_MOST_LOG = 128 * 1024
# What is measured is measured by these.
_SOURCES = (
    "lrscan/**/*.py",
    "lrscan/**/*.csv",
    "notebooks/profiles.toml",
    "tests/cuda/test_cuda*.py",
)


class CampaignError(workspace.WorkspaceError):
    """What was asked for cannot be done, and nothing was changed."""


@dataclass
class State:
    """What a campaign has measured so far.

    device, device_label, device_type   of the GPU, as provenance has them
    commit, dirty   what was measured; the digest of each source file is in `sources`
    versions        of the packages that measured
    phases          by name, {"status", "seconds", "message", "attempts"}
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
    """The git blob id of every file that decides what is measured, by its path in the project."""
    found = {}
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            data = path.read_bytes()
            whole = b"blob %d\0" % len(data) + data
            found[path.relative_to(root).as_posix()] = hashlib.sha1(whole).hexdigest()
    return found


def versions() -> dict[str, str]:
    """The packages whose change makes another measurement."""
    found = {name: package_version(name) for name in ("torch", "numba", "numba-cuda", "triton")}
    return {name: version for name, version in found.items() if version}


class Store:
    """A result folder in use.

    Args:
        out:     the result folder
        earlier: a result to go on from: a folder or an archive; None: what is in ``out``, if any

    Raises:
        CampaignError: ``earlier`` is no result, or ``out`` cannot be written
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
        return self.work / "records"

    def log(self, name: str) -> Path:
        path = self.work / "logs" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        return path

    def pack(self, force: bool = False) -> None:
        """Write the archive, if a file has changed since it was written last.

        Where the folder is full the archive stays as it was, and `full` says why.
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
        # A name with a dot in front is of a file that is being written.
        return [path for path in self.work.rglob("*") if path.name[0] != "." and path.is_file()]

    def forget_notes(self) -> None:
        """Drop what the smoke test noted."""
        shutil.rmtree(self.work / "notes", ignore_errors=True)

    def _zipped(self, state: str) -> bytes:
        with tempfile.TemporaryFile() as file:
            for left_out in ((), ("logs/",), ("logs/", "notes/")):  # where all is too large
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
        """Drop the working folder, if the archive could be written."""
        if not self.full:  # else it is the only place that has the results
            shutil.rmtree(self.work, ignore_errors=True)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # replaced meanwhile
        return 0


def _end_of(path: Path, cut: bool) -> bytes:
    """A file's contents, only their end where they are to be ``cut``."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_LOG) if cut else 0)
        return file.read()


def archive_in(path: Path) -> Path:
    """The archive that a path names: itself, or one in that folder.

    Raises:
        CampaignError: there is none
    """
    found = path / ARCHIVE if path.is_dir() else path
    if not found.is_file():
        raise CampaignError(f"{path} holds no result of a campaign: there is no {found.name}")
    return found


def unpack(archive: Path, folder: Path) -> State:
    """Unpack an archive into an empty folder.

    Raises:
        CampaignError: it is not whole, is none of a campaign, or names files outside the folder
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = [info.filename for info in file.infolist()]
            if sum(info.file_size for info in file.infolist()) > _MOST_UNPACKED:
                raise ValueError("it is too large")
            for name in names:
                parts = PurePosixPath(name.replace("\\", "/"))
                if parts.is_absolute() or ".." in parts.parts or ":" in name:
                    raise ValueError(f"it names {name!r}")
            given = json.loads(file.read("state.json"))
            if given.get("format") != FORMAT:
                raise ValueError(f"its format is {given.get('format')!r}, and {FORMAT} is known")
            state = State(**given)
            file.extractall(folder, [name for name in names if name != "state.json"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise CampaignError(f"{archive} is no result of a campaign: {error}") from None
    return state
