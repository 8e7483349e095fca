"""The 32 banks of shared memory, and how often the lanes of a warp meet in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

BANKS = 32


def tree_index(lane: int, stride: int) -> int:
    """The cell that a lane reads at one level of the tree: the last one of its left half."""
    return 2 * stride * lane + stride - 1


def padded(index: int) -> int:
    """The cell of an element, with one unused after every 32 (Harris, Sengupta and Owens 2007)."""
    return index + index // BANKS


def ways(indices: Sequence[int]) -> int:
    """Turns that one access of a warp takes: the most different addresses in one bank.

    Lanes that read the same address are served together.
    """
    banks = defaultdict(set)
    for index in indices:
        banks[index % BANKS].add(index)
    return max(map(len, banks.values()), default=0)
