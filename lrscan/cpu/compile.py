"""Compiling a kernel once, and keeping it on disk.

Numba's own disk cache looks at one file only: it would go on using a kernel whose algebra was
edited in another module. Here the key is the variant's name and a digest of every source that a
CPU kernel is made from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from numba import njit
from numba.core.caching import FunctionCache

from lrscan.sources import digest


class _KernelCache(FunctionCache):
    def __init__(self, function: Callable, variant: str):
        super().__init__(function)
        self._variant = variant

    def _index_key(self, sig, codegen):
        return sig, codegen.magic_tuple(), (digest(Path(__file__).parent), self._variant)


def kernel(variant: str) -> Callable[[Callable], Callable]:
    """Decorate a function to compile it without the interpreter lock, cached as ``variant``."""

    def decorate(function: Callable) -> Callable:
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        try:
            dispatcher._cache = _KernelCache(function, variant)
        except RuntimeError:  # no folder can be written: compile in every process
            pass
        return dispatcher

    return decorate
