"""Files of compiled kernels, each with a checksum, so that a damaged file counts as missing.

A full disk, a killed process or an interrupted copy leave files that are cut off or empty. The
checksum is the SHA-256 of the contents. It is at the end, where readers of machine code ignore it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lrscan.core.files import write_files

_BYTES = hashlib.sha256().digest_size


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
