"""Compiling a kernel once, and keeping it on disk.

Numba's own disk cache looks at one file only: it would go on using a kernel whose algebra was
edited in another module. Here the key is the variant's name and a digest of every source that a
CPU kernel is made from. Numba also has an index for all kernels of a function, which a process that
is killed may leave cut off, and two that compile at once may write over each other. Here a kernel
is a file by itself, whose name follows from its key.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba import njit, types
from numba.core import sigutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from lrscan.core import kernel_files
from lrscan.core.compilation import noticed
from lrscan.core.source_digest import digest


class _PartLibrary(JITCodeLibrary):
    """The code of a function that is only ever inlined into others.

    Numba optimises every function with all that it calls, and turns it to machine code. Of a
    function that only other functions call, which inline it, that would be done again at every
    level up to the kernel: half the time of a compilation.
    """

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # there is none

    @property
    def codegen(self) -> _PartLibrary:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """The environment is Python's, which machine code without wrappers does not look at."""


class _PartCompiler(Compiler):
    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, _PartLibrary(target.codegen(), "part"), *rest)


# A part of a kernel. LLVM inlines it, so that flags known at compile time prune the branches there.
# Nothing but kernels calls it, so it needs no wrappers for others.
_PART: dict[str, Any] = {
    "forceinline": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _PartCompiler,
}
inlined = njit(**_PART)


class _KernelCache(FunctionCache):
    def __init__(self, function: Callable, variant: str) -> None:
        super().__init__(function)
        self._variant = variant
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, None)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), (digest("cpu"), self._variant)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a full disk, or a folder that became read-only: compile every time
            pass


class _Files(IndexDataCacheFile):
    """Numba's files, with one for each key and no index."""

    def _path(self, key: Any) -> Path:
        made_from = hashlib.sha256(repr((numba.__version__, key)).encode()).hexdigest()[:32]
        return Path(self._cache_path, f"{Path(self._index_name).stem}.{made_from}.nbc")

    def load(self, key: Any) -> Any:
        path = self._path(key)
        # Numba reads it again, up to the seal.
        return None if kernel_files.read(path) is None else self._load_data(path.name)

    def save(self, key: Any, data: Any) -> None:
        kernel_files.write(self._path(key), self._dump(data))


def kernel(variant: str, what: str) -> Callable[[Callable], int]:
    """Decorate a function of an int64 to compile it, cached as ``variant``, to the address of its
    machine code: that of a C function ``void (int64)``, which needs no interpreter.

    ``what`` says to a reader which kernel it is.
    """

    def decorate(function: Callable) -> int:
        signature = sigutils.normalize_signature(types.void(types.int64))
        compiled: Any = CFunc(function, signature, locals={}, options={"error_model": "numpy"})
        try:
            compiled._cache = _KernelCache(function, variant)
            cached = True
        except RuntimeError:  # no folder can be written: compile in every process
            cached = False
        with noticed(f"the CPU kernel {what}", kept=cached), _garbage_left():
            compiled.compile()
        tally[KEPT if cached and compiled.cache_hits else COMPILED] += 1
        _in_use.append(compiled)
        return compiled.address

    return decorate


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Switch Python's garbage collector off.

    Numba makes a great many objects that refer to each other and live until the kernel is compiled.
    Looking for garbage among them takes a seventh of the time of a compilation.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


KEPT, COMPILED = "kept", "compiled"
# How many kernels of this process were compiled, and how many came from the disk.
tally: Counter[str] = Counter()
_in_use: list[CFunc] = []  # machine code lives as long as these
