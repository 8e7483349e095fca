"""The dtypes of the operator: the layout of a value in memory, and the dtype of its arithmetic.

A *kind* names the contents of a value for the kernels. It is the name of a dtype for one number,
and "float32_4" for four adjacent numbers. States are carried and sums are accumulated in the kind
``state``. For half precision that is float32, because a state must not be rounded at every step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch


class Kind(NamedTuple):
    """Layout of a value in memory.

    Attributes:
        bytes: bytes per plane of a number
        planes: planes per number: 2 if it is complex, else 1
        state: the kind of the arithmetic
        number: the kind of one of its numbers
        numbers: how many numbers it has
    """

    bytes: int
    planes: int
    state: str
    number: str
    numbers: int = 1

    @property
    def size(self) -> int:
        """Bytes per value."""
        return self.bytes * self.planes * self.numbers


KINDS = {
    "float64": Kind(8, 1, "float64", "float64"),
    "float32": Kind(4, 1, "float32", "float32"),
    "float16": Kind(2, 1, "float32", "float16"),
    "bfloat16": Kind(2, 1, "float32", "bfloat16"),
    "complex64": Kind(4, 2, "complex64", "complex64"),
    "complex128": Kind(8, 2, "complex128", "complex128"),
}
DTYPES: tuple[torch.dtype, ...] = tuple(getattr(torch, kind) for kind in KINDS)
# Dtypes of x with which a coefficient or a state may be float32.
HALF = tuple(
    dtype for dtype, (kind, own) in zip(DTYPES, KINDS.items(), strict=True) if own.state != kind
)
# For each complex dtype, the real dtype of the same precision.
REAL = {dtype: dtype.to_real() for dtype in DTYPES if dtype.is_complex}


@functools.cache
def kind_of(dtype: torch.dtype, count: int = 1) -> str:
    """Return the kind of ``count`` numbers of a torch dtype."""
    return _several(str(dtype).removeprefix("torch."), count)


@functools.cache
def described(kind: str) -> Kind:
    """Return the layout of a kind."""
    number, _, count = kind.partition("_")
    one, n = KINDS[number], int(count or 1)
    return one._replace(state=_several(one.state, n), numbers=n)


def _several(number: str, count: int) -> str:
    return number if count == 1 else f"{number}_{count}"


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of states: at least float32. Takes any dtype, not only the operator's."""
    return torch.promote_types(dtype, torch.float32)


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float64, or complex128 for a complex dtype."""
    return torch.promote_types(dtype, torch.float64)
