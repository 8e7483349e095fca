"""Files of compiled kernels, each with a checksum, so that a damaged file counts as missing.

A full disk, a killed process or an interrupted copy leave files that are cut off or empty. The
checksum is the SHA-256 of the contents. It is at the end, where readers of machine code ignore it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrscan.core.files import write_files

_BYTES = hashlib.sha256().digest_size
# How long a process waits for another one to compile a kernel, before it compiles it as well.
LONGEST_WAIT_S = 120.0


def write(path: Path, data: bytes) -> None:
    """Write a file with its checksum."""
    write_files({path: data + hashlib.sha256(data).digest()})


def read(path: Path) -> bytes | None:
    """Return the contents without the checksum; None if the file is missing or damaged."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    data, seal = whole[:-_BYTES], whole[-_BYTES:]
    return data if hashlib.sha256(data).digest() == seal else None


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait while another process compiles the kernel of this file, and keep others waiting.

    Ranks of one job need the same kernels at the same time. One of them compiles a kernel; the
    others wait, and find its file when it is their turn.
    """
    from filelock import FileLock, Timeout  # not needed to load a kernel

    lock = FileLock(f"{path}.lock", timeout=LONGEST_WAIT_S)
    try:
        lock.acquire()
    except (OSError, NotImplementedError, Timeout):  # a file system without locks: do not wait
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            Path(lock.lock_file).unlink()
        lock.release()
