"""How wide the accesses to values side by side are, and so how they have to be aligned."""

import math

from lrscan.core.dtypes import described


def access_bytes(kind: str, count: int) -> int:
    """Bytes of each access to ``count`` values; their address is a multiple of it.

    Several values are read 16 bytes at a time, or as the largest power of two that divides them.
    One is read number by number: nothing more is known of where it lies.
    """
    own = described(kind)
    return math.gcd(own.size * count, 16) if count > 1 else own.size // own.numbers
