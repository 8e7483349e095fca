"""Machine code of kernels: where it is looked for, where it is kept, and how it is made.

A kernel becomes machine code in two steps, neither of which needs a GPU: Numba writes PTX, NVIDIA's
linker a cubin (:mod:`lrscan.cuda.numba_cuda`). Three places are asked for it, in this order:

    carried   the folder that ``LRSCAN_KERNELS`` names, which another machine filled by
              ``lrscan warmup --cuda 9.0 --out FOLDER``. The code is taken if it was made from the
              same sources, whatever made it: a cubin needs no compiler any more.
    kept      this machine's cache, beside the compiled CPU kernels. Its key also has the versions
              of Numba and of the linker.
    compiled  here and now, and then kept.

A file that was cut off is passed over: a driver is not told where code ends, and would read on.
:data:`tally` counts them.
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
    """What is asked of a kernel, such as :class:`lrscan.cuda.launch.Kernel`, to compile it.

    function       its Python body, with the arguments of :mod:`lrscan.cuda.steps`
    signature      their Numba types
    name           of this variant, unique: the file it is kept in
    launch_bounds  most threads of a block, and fewest blocks of a multiprocessor
    """

    function: Callable
    name: str
    launch_bounds: tuple[int, int]

    @property
    def signature(self) -> Any: ...


# How many kernels of this process came from where.
tally: Counter[str] = Counter()


def sources(kernel: Compilable, capability: Capability) -> Iterator[bytes]:
    """The kernel's machine code, from one place after another.

    Who cannot use what comes first asks for the next: a driver may refuse code from a newer linker.
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
    """The kernel's machine code for a compute capability, from the first place that has it."""
    return next(sources(kernel, capability))


def export(kernel: Compilable, capability: Capability, folder: Path) -> bool:
    """Write the kernel's code to a folder for ``LRSCAN_KERNELS``; False if it is there already."""
    path = Path(folder, f"{file_name(kernel, capability)}.cubin")
    if kernel_files.read(path) is not None:
        return False
    kernel_files.write(path, machine_code(kernel, capability))
    return True


def compiled(kernel: Compilable, capability: Capability) -> bytes:
    """The kernel's machine code, made here and now."""
    return numba_cuda.linked(ptx(kernel, capability), capability)


def ptx(kernel: Compilable, capability: Capability) -> str:
    """What the linker takes: the kernel in PTX, with the function's own name."""
    bounds = kernel.launch_bounds
    text = numba_cuda.compiled_to_ptx(kernel.function, kernel.signature, capability, bounds)
    mangled = re.findall(r"\.entry (\w+)", text)[0]
    text = re.sub(rf"\b{mangled}\b", kernel.function.__name__, text)
    return text if capability >= (8, 0) else without_bfloat16(text)


def file_name(kernel: Compilable, capability: Capability) -> str:
    """What its file is called, without the ending: the same for the same sources."""
    made_from = digest("cuda")[:16]
    return f"{kernel.name}-sm{capability[0]}{capability[1]}-{made_from}"


def _cache_path(kernel: Compilable, name: str) -> Path | None:
    """Where the code is kept on this machine; None where no folder can be written."""
    folder = numba_cuda.folder_of(kernel.function)
    return None if folder is None else folder / f"{name}-{_compilers()}.cubin"


@functools.cache
def _compilers() -> str:
    """Versions of what makes a cubin, where they are installed as packages."""
    names = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    return "-".join(package_version(name) or "0" for name in names)
