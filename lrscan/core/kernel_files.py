"""Files of compiled kernels, each with a seal, so that a damaged one is taken for none.

A disk that was full, a kill or a copy that broke off leave files that are cut off or empty. The
seal is the SHA-256 of what comes before it, at the end, where readers of machine code do not look.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lrscan.core.files import write_files

_BYTES = hashlib.sha256().digest_size


def write(path: Path, data: bytes) -> None:
    """Write a file with its seal."""
    write_files({path: data + hashlib.sha256(data).digest()})


def read(path: Path) -> bytes | None:
    """What was written, without its seal; None where there is no such file, or a damaged one."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    data, seal = whole[:-_BYTES], whole[-_BYTES:]
    return data if hashlib.sha256(data).digest() == seal else None
