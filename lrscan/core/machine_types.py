"""The kinds of :mod:`lrscan.core.dtypes` as LLVM, Numba and NumPy know them.

Kernels of both backends take their types from here. Numba is loaded by it, so nothing imports it
before a kernel is needed.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types

from lrscan.core.dtypes import KINDS, described

# One plane of a number in memory. LLVM's own bfloat is not known to all that compiles kernels, so
# that is 16 bits: the upper half of a float32.
_PLANES = {
    "float64": ir.DoubleType(),
    "float32": ir.FloatType(),
    "float16": ir.HalfType(),
    "bfloat16": ir.IntType(16),
    "complex64": ir.FloatType(),
    "complex128": ir.DoubleType(),
}
# Numbers that are computed with.
_NUMBERS = {state: getattr(types, state) for state in {kind.state for kind in KINDS.values()}}


def memory_type(kind: str) -> ir.Type:
    """LLVM's type of one plane of a number of a kind, as it lies in memory."""
    return _PLANES[described(kind).number]


@functools.cache
def numba_type(kind: str) -> types.Type:
    """Numba's type of the value that one of a kind is computed in: a number, or a tuple of them."""
    state = described(described(kind).state)
    number = _NUMBERS[state.number]
    return number if state.numbers == 1 else types.UniTuple(number, state.numbers)


@functools.cache
def numpy_dtype(kind: str) -> np.dtype:
    """NumPy's dtype of that value; an array of several numbers has an axis more, of them."""
    state = described(described(kind).state)
    return np.dtype(state.number if state.numbers == 1 else (state.number, (state.numbers,)))
