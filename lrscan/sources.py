"""A digest of the sources that a backend's kernels are made from: the key of compiled kernels."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def digest(folder: Path) -> str:
    """SHA-256 of the algebra, the table of operands and every module in ``folder`` of kernels."""
    shared = [Path(__file__).with_name(name) for name in ("algebra.py", "sweep.py")]
    sources = [*shared, *sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
