"""Machine code of kernels: finding it, compiling it, and caching it.

A kernel becomes machine code in two steps, neither of which needs a GPU. Numba compiles it to PTX,
and NVIDIA's linker turns that into a cubin (:mod:`lrscan.cuda.numba_cuda`). The machine code comes
from the first of three sources that has it:

- "carried": the folder named by ``LRSCAN_KERNELS``, which ``lrscan warmup --cuda 9.0 --out FOLDER``
  filled on another machine. The code is used if its source files are the same, whichever versions
  compiled it, because loading a cubin needs no compiler.
- "kept": this machine's cache, next to the compiled CPU kernels. Its key also has the versions of
  Numba and of the linker.
- "compiled": compiled now, and then kept in the cache.

Truncated files are ignored. The driver does not know where the code ends, so it would read beyond
the end of such a file.
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from lrscan.core import kernel_files
from lrscan.core.compilation import noticed
from lrscan.core.source_digest import digest
from lrscan.core.versions import package_version
from lrscan.cuda import numba_cuda
from lrscan.cuda.bfloat16 import without_bfloat16
from lrscan.cuda.numba_cuda import Capability

CARRIED, KEPT, COMPILED = "carried", "kept", "compiled"


class Compilable(Protocol):
    """A kernel that can be compiled, such as :class:`lrscan.cuda.launch.Kernel`.

    Attributes:
        function: its Python body, with the arguments of :mod:`lrscan.cuda.steps`
        name: unique name of the variant, also used for its file
        launch_bounds: (most threads per block, fewest blocks per multiprocessor)
    """

    function: Callable
    name: str
    launch_bounds: tuple[int, int]

    @property
    def signature(self) -> Any:
        """Numba's signature of the body."""


# Number of kernels of this process by source.
tally: Counter[str] = Counter()


def sources(kernel: Compilable, capability: Capability) -> Iterator[bytes]:
    """Yield the kernel's machine code from each source in turn.

    A caller that cannot use one version continues with the next: a driver may refuse code from a
    newer linker.
    """
    name, where = file_name(kernel, capability), os.environ.get("LRSCAN_KERNELS")
    carried = Path(where, f"{name}.cubin") if where else None
    own = _cache_path(kernel, name)
    refused = False
    for place, path in ((CARRIED, carried), (KEPT, own)):
        code = kernel_files.read(path) if path else None
        if code is not None:
            tally[place] += 1
            yield code
            tally[place] -= 1
            refused |= place == KEPT
    with kernel_files.turn(own) if own else nullcontext():
        # Another process may have compiled it meanwhile.
        code = None if own is None or refused else kernel_files.read(own)
        tally[COMPILED if code is None else KEPT] += 1
        if code is None:
            with noticed(f"the CUDA kernel {kernel.name}", kept=own is not None):
                code = compiled(kernel, capability)
            if own is not None:
                with suppress(OSError):  # a full disk, or a read-only folder: compile every time
                    kernel_files.write(own, code)
    yield code


def machine_code(kernel: Compilable, capability: Capability) -> bytes:
    """Return the machine code for a compute capability, from the first source that has it."""
    return next(sources(kernel, capability))


def export(kernel: Compilable, capability: Capability, folder: Path) -> bool:
    """Write the kernel's code to a folder for ``LRSCAN_KERNELS``.

    Returns:
        True, or False if the folder has it already
    """
    path = Path(folder, f"{file_name(kernel, capability)}.cubin")
    if kernel_files.read(path) is not None:
        return False
    kernel_files.write(path, machine_code(kernel, capability))
    return True


def compiled(kernel: Compilable, capability: Capability) -> bytes:
    """Compile the kernel, and return its machine code."""
    return numba_cuda.linked(ptx(kernel, capability), capability)


def ptx(kernel: Compilable, capability: Capability) -> str:
    """Return the kernel in PTX, the linker's input. The entry has the name of the function."""
    bounds = kernel.launch_bounds
    text = numba_cuda.compiled_to_ptx(kernel.function, kernel.signature, capability, bounds)
    mangled = re.findall(r"\.entry (\w+)", text)[0]
    text = re.sub(rf"\b{mangled}\b", kernel.function.__name__, text)
    return text if capability >= (8, 0) else without_bfloat16(text)


def file_name(kernel: Compilable, capability: Capability) -> str:
    """Return the name of the kernel's file without suffix. It has a digest of the source files."""
    made_from = digest("cuda")[:16]
    return f"{kernel.name}-sm{capability[0]}{capability[1]}-{made_from}"


def _cache_path(kernel: Compilable, name: str) -> Path | None:
    """Return the path of the code in this machine's cache, or None if no folder is writable."""
    folder = numba_cuda.folder_of(kernel.function)
    return None if folder is None else folder / f"{name}-{_compilers()}.cubin"


@functools.cache
def _compilers() -> str:
    """Return the versions of the packages that make a cubin, with 0 for one not installed."""
    names = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    return "-".join(package_version(name) or "0" for name in names)
