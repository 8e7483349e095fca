"""The dtypes of the operator: how an element lies in memory, and what it is computed in.

A *kind* is a dtype's name, which kernels know it by. States are carried, and sums accumulated, in
the kind ``state``: half precision in float32, since a state must not be rounded at every step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch


class Kind(NamedTuple):
    """How an element lies in memory.

    bytes   of each of its numbers
    planes  numbers per element: 2 if it is complex
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
    "float64": Kind(8, 1, "float64"),
    "float32": Kind(4, 1, "float32"),
    "float16": Kind(2, 1, "float32"),
    "bfloat16": Kind(2, 1, "float32"),
    "complex64": Kind(4, 2, "complex64"),
    "complex128": Kind(8, 2, "complex128"),
}
DTYPES: tuple[torch.dtype, ...] = tuple(getattr(torch, kind) for kind in KINDS)
# Those beside which a coefficient, or a state, may be float32.
HALF = tuple(
    dtype for dtype, (kind, own) in zip(DTYPES, KINDS.items(), strict=True) if own.state != kind
)
# The real dtype of the same precision, of each complex one.
REAL = {dtype: dtype.to_real() for dtype in DTYPES if dtype.is_complex}


@functools.cache
def kind_of(dtype: torch.dtype) -> str:
    """The kind of a torch dtype."""
    return str(dtype).removeprefix("torch.")


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of ``state``, also for dtypes that are none of the operator's: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64, or complex128 for a complex dtype."""
    return torch.promote_types(dtype, torch.float64)
