"""The 32 banks of shared memory, and conflicts between the lanes of a warp."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

BANKS = 32


def tree_index(lane: int, stride: int) -> int:
    """Return the cell that a lane reads at one level of the tree: the last of its left half."""
    return 2 * stride * lane + stride - 1


def padded(index: int) -> int:
    """Return the cell of an element if a cell is left unused after every 32.

    Source: Harris, Sengupta and Owens 2007.
    """
    return index + index // BANKS


def ways(indices: Sequence[int]) -> int:
    """Return how many turns one access of a warp takes.

    This is the largest number of different addresses in one bank: lanes that read the same address
    are served together.
    """
    banks = defaultdict(set)
    for index in indices:
        banks[index % BANKS].add(index)
    return max(map(len, banks.values()), default=0)
