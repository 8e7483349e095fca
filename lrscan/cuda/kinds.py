"""The types of elements in memory, and of the states that are computed with."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch


class Kind(NamedTuple):
    """How an element lies in memory.

    bytes   of each of its numbers
    planes  numbers an element: 2 if it is complex
    state   the kind that it is computed in
    """

    bytes: int
    planes: int
    state: str

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.bytes * self.planes


KINDS = {
    "float16": Kind(2, 1, "float32"),
    "bfloat16": Kind(2, 1, "float32"),
    "float32": Kind(4, 1, "float32"),
    "float64": Kind(8, 1, "float64"),
    "complex64": Kind(4, 2, "complex64"),
    "complex128": Kind(8, 2, "complex128"),
}


@functools.cache
def kind_of(dtype: torch.dtype) -> str:
    """The kind of a torch dtype."""
    return str(dtype).removeprefix("torch.")


def state_of(kind: str) -> np.dtype:
    """The NumPy dtype in which elements of a kind are computed."""
    return np.dtype(KINDS[kind].state)
