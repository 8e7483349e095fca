"""Types of LLVM, Numba and NumPy for the kinds of :mod:`lrscan.core.dtypes`.

Kernels of both backends take their types from here. This module loads Numba, so it is imported
only when a kernel is needed.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types

from lrscan.core.dtypes import KINDS, described

# One plane of a number in memory. Not every compiler of kernels knows LLVM's bfloat type, so a
# bfloat16 is 16 bits: the upper half of a float32.
_PLANES = {
    "float64": ir.DoubleType(),
    "float32": ir.FloatType(),
    "float16": ir.HalfType(),
    "bfloat16": ir.IntType(16),
    "complex64": ir.FloatType(),
    "complex128": ir.DoubleType(),
}
# Types of the numbers in the arithmetic.
_NUMBERS = {state: getattr(types, state) for state in {kind.state for kind in KINDS.values()}}


def memory_type(kind: str) -> ir.Type:
    """Return LLVM's type of one plane of a number of a kind, as stored in memory."""
    return _PLANES[described(kind).number]


@functools.cache
def numba_type(kind: str) -> types.Type:
    """Return Numba's type for the arithmetic on a kind: a number, or a tuple of numbers."""
    state = described(described(kind).state)
    number = _NUMBERS[state.number]
    return number if state.numbers == 1 else types.UniTuple(number, state.numbers)


@functools.cache
def numpy_dtype(kind: str) -> np.dtype:
    """Return NumPy's dtype for the same; several numbers are one more axis of the array."""
    state = described(described(kind).state)
    return np.dtype(state.number if state.numbers == 1 else (state.number, (state.numbers,)))
