"""What is asked of numba-cuda that it does not offer in public, or that is particular to it.

    compiled_to_ptx          cuda.compile, for a capability, with no device here
    linked                   NVIDIA's linker, of cuda-core, which numba-cuda brings along
    numpy_as_numba_knows_it  a name of NumPy that numba-cuda asks for, and newer NumPys lack
    folder_of                where Numba keeps what it compiled of a function

Each says why nothing public does. They were seen to work with numba-cuda 0.30.4, beside numba
0.68.0 and 0.68.1, cuda-core 1.2.2 and NumPy 2.4.6, and without the name that NumPy 2.5 drops. The
private names of the simulator are in ``lrscan/learn/machines/simulator.py``, which has to be
imported before ``numba.cuda``. The rest of the package uses what numba-cuda documents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda
from numba.core.caching import FunctionCache

Capability = tuple[int, int]

_one_at_a_time = threading.RLock()


def compiled_to_ptx(
    function: Callable, signature: Any, capability: Capability, launch_bounds: tuple[int, int]
) -> str:
    """The PTX of a kernel, whose only entry has a mangled name.

    ``cuda.compile`` is public, but ``launch_bounds`` is an argument of numba-cuda's alone: the one
    that is still in Numba has none. And it does not take ``cc`` for the device functions that a
    kernel calls: see :func:`_device_of`.
    """
    with _one_at_a_time, numpy_as_numba_knows_it(), _device_of(capability):
        text, _ = cuda.compile(
            function,
            signature,
            device=False,
            abi="numba",
            cc=capability,
            output="ptx",
            debug=False,  # not as Numba's environment has it: the code is kept for all processes
            opt=True,
            launch_bounds=launch_bounds,
        )
    return text


@contextmanager
def _device_of(capability: Capability) -> Iterator[None]:
    """Let numba-cuda take a device of this capability for the current one.

    It compiles device functions for the current device, and asks the driver for it, which need not
    be here. Nothing public tells it otherwise.
    """
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = before


def linked(text: str, capability: Capability) -> bytes:
    """Machine code from PTX.

    numba-cuda links by the same classes of cuda-core, in a class of its own that is not public.
    """
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError:  # before cuda-core 0.5
        from cuda.core.experimental import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}")
    return Linker(ObjectCode.from_ptx(text.encode()), options=options).link("cubin").code


@contextmanager
def numpy_as_numba_knows_it() -> Iterator[None]:
    """In it NumPy has ``row_stack``, which numba-cuda 0.30 asks for when it first compiles.

    NumPy 2.5 has dropped the name. The same is needed by others that compile with numba-cuda.
    """
    if hasattr(np, "row_stack"):
        yield
        return
    np.row_stack = np.vstack
    try:
        yield
    finally:
        del np.row_stack


def folder_of(function: Callable) -> Path | None:
    """Where Numba keeps what it compiled of a function; None where no folder can be written.

    ``NUMBA_CACHE_DIR`` and more decide that, and only the class behind ``cache=True`` knows how.
    """
    try:
        return Path(FunctionCache(function).cache_path)
    except RuntimeError:
        return None
