"""Compilation of kernels, each compiled once and cached on disk.

Numba's own disk cache checks one file only. It would keep a kernel whose algebra was edited in
another module. Here the key is the variant's name and a digest of every source that a CPU kernel is
built from.

Numba also keeps one index for all kernels of a function. A killed process may leave it cut off, and
two processes that compile at once may overwrite each other's. Here each kernel is a file of its
own, named after its key.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    """Code of a function that is only ever inlined into others.

    Numba optimises every function together with all that it calls, and compiles it to machine code.
    For a function that is only inlined, this work would be repeated at every level up to the
    kernel. It would take half the time of a compilation.
    """

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # it has no machine code of its own

    @property
    def codegen(self) -> _PartLibrary:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: machine code without Python wrappers does not use the environment."""


class _PartCompiler(Compiler):
    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, _PartLibrary(target.codegen(), "part"), *rest)


# Options of a part of a kernel. LLVM inlines it, so flags known at compile time prune its branches.
# Only kernels call it, so it needs no wrappers for Python or C.
_PART: dict[str, Any] = {
    "forceinline": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _PartCompiler,
}
inlined = njit(**_PART)


class _KernelCache(FunctionCache):
    def __init__(self, function: Callable, variant: str, turn: ExitStack) -> None:
        super().__init__(function)
        self._variant = variant
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, turn)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), (digest("cpu"), self._variant)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a full disk, or a folder that became read-only: compile every time
            pass


class _Files(IndexDataCacheFile):
    """Numba's cache files, one per key, without an index.

    Where a file is missing, ``turn`` is entered: nobody else compiles that kernel until it closes.
    """

    def __init__(self, folder: str, base: str, turn: ExitStack) -> None:
        super().__init__(folder, base, None)
        self._turn = turn

    def _path(self, key: Any) -> Path:
        digest_of_key = hashlib.sha256(repr((numba.__version__, key)).encode()).hexdigest()[:32]
        return Path(self._cache_path, f"{Path(self._index_name).stem}.{digest_of_key}.nbc")

    def load(self, key: Any) -> Any:
        path = self._path(key)
        if kernel_files.read(path) is None:
            self._turn.enter_context(kernel_files.turn(path))
            if kernel_files.read(path) is None:
                return None
        return self._load_data(path.name)  # which stops before the checksum

    def save(self, key: Any, data: Any) -> None:
        kernel_files.write(self._path(key), self._dump(data))


def kernel(variant: str, what: str) -> Callable[[Callable], int]:
    """Decorate a function of an int64: compile it, and return the address of its machine code.

    The machine code is a C function ``void (int64)`` that needs no interpreter.

    Args:
        variant: name of the variant, part of its key in the cache
        what: the kernel in words, for log messages
    """

    def decorate(function: Callable) -> int:
        signature = sigutils.normalize_signature(types.void(types.int64))
        turn = ExitStack()
        compiled: Any = CFunc(function, signature, locals={}, options={"error_model": "numpy"})
        try:
            compiled._cache = _KernelCache(function, variant, turn)
            cached = True
        except RuntimeError:  # no folder is writable: compile in every process
            cached = False
        with noticed(f"the CPU kernel {what}", kept=cached), _garbage_collection_off(), turn:
            compiled.compile()
        tally[KEPT if cached and compiled.cache_hits else COMPILED] += 1
        _in_use.append(compiled)
        return compiled.address

    return decorate


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Keep Python's garbage collector from running.

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
# The number of kernels that this process compiled, and that it loaded from disk.
tally: Counter[str] = Counter()
_in_use: list[CFunc] = []  # keeps their machine code alive
