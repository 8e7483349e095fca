"""Uses of numba-cuda that are not public, or not part of Numba itself.

- :func:`compiled_to_ptx` calls ``cuda.compile`` for a capability, without a device.
- :func:`linked` calls NVIDIA's linker in cuda-core, a dependency of numba-cuda.
- :func:`numpy_as_numba_knows_it` adds a name to NumPy that numba-cuda needs and newer NumPy lacks.
- :func:`folder_of` finds the folder in which Numba caches compiled functions.

Each of them says why no public function will do. They were tested with numba-cuda 0.30.4 together
with numba 0.68.0 and 0.68.1, cuda-core 1.2.2 and NumPy 2.4.6, and also without the name that NumPy
2.5 drops. Private names of the simulator are in ``lrscan/learn/machines/simulator.py``, which must
be imported before ``numba.cuda``. The rest of the package uses only what numba-cuda documents.
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
    """Return the PTX of a kernel. Its only entry has a mangled name.

    ``cuda.compile`` is public, but only numba-cuda's version has the argument ``launch_bounds``.
    The version that is still part of Numba lacks it. Also, ``cc`` does not apply to the device
    functions that a kernel calls, see :func:`_device_of`.
    """
    with _one_at_a_time, numpy_as_numba_knows_it(), _device_of(capability):
        text, _ = cuda.compile(
            function,
            signature,
            device=False,
            abi="numba",
            cc=capability,
            output="ptx",
            debug=False,  # whatever NUMBA_CUDA_DEBUGINFO says: all processes share the cached code
            opt=True,
            launch_bounds=launch_bounds,
        )
    return text


@contextmanager
def _device_of(capability: Capability) -> Iterator[None]:
    """Make numba-cuda see a current device of this capability.

    It compiles device functions for the current device, which it gets from the driver. This machine
    may have no driver. No public option changes that.
    """
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = before


def linked(text: str, capability: Capability) -> bytes:
    """Return the machine code of a kernel in PTX.

    numba-cuda uses the same classes of cuda-core, but wraps them in a private class.
    """
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError:  # before cuda-core 0.5
        from cuda.core.experimental import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}")
    return Linker(ObjectCode.from_ptx(text.encode()), options=options).link("cubin").code


@contextmanager
def numpy_as_numba_knows_it() -> Iterator[None]:
    """Give NumPy a ``row_stack`` inside ``with``, if it has none.

    numba-cuda 0.30 looks this name up when it first compiles, and NumPy 2.5 has dropped it. Other
    code that compiles with numba-cuda needs this, too.
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
    """Return the folder in which Numba caches a function, or None if it can write to none.

    The folder depends on ``NUMBA_CACHE_DIR`` and other settings. Only the class behind
    ``cache=True`` knows the rules.
    """
    try:
        return Path(FunctionCache(function).cache_path)
    except RuntimeError:
        return None
