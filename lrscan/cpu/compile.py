"""Compiling a kernel once, and keeping it on disk.

Numba's own disk cache looks at one file only: it would go on using a kernel whose algebra was
edited in another module. Here the key is the variant's name and a digest of every source that a
CPU kernel is made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from numba import types
from numba.core import sigutils
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

from lrscan.compilation import noticed
from lrscan.sources import digest


class _KernelCache(FunctionCache):
    def __init__(self, function: Callable, variant: str):
        super().__init__(function)
        self._variant = variant

    def _index_key(self, sig, codegen):
        return sig, codegen.magic_tuple(), (digest(Path(__file__).parent), self._variant)


def kernel(variant: str, what: str) -> Callable[[Callable], int]:
    """Decorate a function of an int64 to compile it, cached as ``variant``, to the address of its
    machine code: that of a C function ``void (int64)``, which needs no interpreter.

    ``what`` says to a reader which kernel it is.
    """

    def decorate(function: Callable) -> int:
        signature = sigutils.normalize_signature(types.void(types.int64))
        compiled = CFunc(function, signature, locals={}, options={"error_model": "numpy"})
        try:
            compiled._cache = _KernelCache(function, variant)
            cached = True
        except RuntimeError:  # no folder can be written: compile in every process
            cached = False
        with noticed(f"the CPU kernel {what}", kept=cached):
            compiled.compile()
        tally[KEPT if cached and compiled.cache_hits else COMPILED] += 1
        _kept.append(compiled)
        return compiled.address

    return decorate


KEPT, COMPILED = "kept", "compiled"
# How many kernels of this process were compiled, and how many came from the disk.
tally: Counter[str] = Counter()
_kept: list[CFunc] = []  # machine code lives as long as these
