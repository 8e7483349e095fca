"""Any layout of a tensor as one axis of time and at most three column axes.

The recurrence couples elements along one axis only. All other axes are columns, in any order. Axes
that can be walked with one stride in every operand are merged: a contiguous (T, B, C) has one
column axis of size B*C, a contiguous (B, T, C) has two. Nothing is copied. A broadcast axis has
stride zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

COLUMN_AXES = 3


class Columns(NamedTuple):
    """Column axes, outermost first, shared by all operands.

    Attributes:
        sizes: extents, exactly three, padded with ones in front
        strides: for each operand, its strides over those axes, in elements
    """

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def columns_of(shape: Sequence[int], strides: Sequence[Sequence[int]], dim: int) -> Columns | None:
    """Merge the axes other than ``dim`` of operands of equal shape, given their strides.

    The first operand decides the order: its smallest stride becomes the inner axis.

    Returns:
        The merged axes, or None if more than three remain.
    """
    axes = [
        (shape[d], *(own[d] for own in strides))
        for d in range(len(shape))
        if d != dim and shape[d] != 1
    ]
    axes.sort(key=lambda axis: axis[1], reverse=True)
    merged: list[tuple[int, ...]] = []
    for axis in axes:
        size = axis[0]
        if merged and all(
            outer == inner * size for outer, inner in zip(merged[-1][1:], axis[1:], strict=True)
        ):
            merged[-1] = (merged[-1][0] * size, *axis[1:])
        else:
            merged.append(axis)
    if len(merged) > COLUMN_AXES:
        return None
    padding = (1,) + (0,) * len(strides)
    merged = [padding] * (COLUMN_AXES - len(merged)) + merged
    sizes, *merged_strides = zip(*merged, strict=True)
    return Columns(sizes, tuple(merged_strides))
