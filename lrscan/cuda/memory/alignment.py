"""Width and alignment of accesses to adjacent values."""

import math

from lrscan.core.dtypes import described


def access_bytes(kind: str, count: int) -> int:
    """Return the bytes of each access to ``count`` values. Their address must be a multiple of it.

    Several values are read 16 bytes at a time, or in the largest power of two that divides their
    size. A single value is read number by number, because no better alignment is known.
    """
    own = described(kind)
    return math.gcd(own.size * count, 16) if count > 1 else own.size // own.numbers
