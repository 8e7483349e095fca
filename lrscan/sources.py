"""A digest of the sources that a backend's kernels are made from: the key of compiled kernels."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def digest(folder: Path) -> str:
    """SHA-256 of the algebra and of every module in ``folder``, a package of kernels."""
    sources = [Path(__file__).with_name("algebra.py"), *sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
