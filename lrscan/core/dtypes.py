"""The dtypes of the operator: how a value lies in memory, and what it is computed in.

A *kind* is the name by which kernels know what a value is made of: a dtype's for one number,
"float32_4" for four of them side by side. States are carried, and sums accumulated, in the kind
``state``: half precision in float32, since a state must not be rounded at every step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch


class Kind(NamedTuple):
    """How a value lies in memory.

    bytes    of each plane of a number
    planes   of each number: 2 if it is complex
    state    the kind that it is computed in
    number   the kind of one of its numbers
    numbers  how many they are
    """

    bytes: int
    planes: int
    state: str
    number: str
    numbers: int = 1

    @property
    def size(self) -> int:
        """Bytes of a value."""
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
# Those beside which a coefficient, or a state, may be float32.
HALF = tuple(
    dtype for dtype, (kind, own) in zip(DTYPES, KINDS.items(), strict=True) if own.state != kind
)
# The real dtype of the same precision, of each complex one.
REAL = {dtype: dtype.to_real() for dtype in DTYPES if dtype.is_complex}


@functools.cache
def kind_of(dtype: torch.dtype, count: int = 1) -> str:
    """The kind of so many numbers of a torch dtype."""
    return _several(str(dtype).removeprefix("torch."), count)


@functools.cache
def described(kind: str) -> Kind:
    """What a kind is."""
    number, _, count = kind.partition("_")
    one, n = KINDS[number], int(count or 1)
    return one._replace(state=_several(one.state, n), numbers=n)


def _several(number: str, count: int) -> str:
    return number if count == 1 else f"{number}_{count}"


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of ``state``, also for dtypes that are none of the operator's: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64, or complex128 for a complex dtype."""
    return torch.promote_types(dtype, torch.float64)
