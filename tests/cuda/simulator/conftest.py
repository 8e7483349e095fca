"""These tests run the CUDA kernels in Numba's simulator, which must be on before Numba starts.

It runs a Python thread for every CUDA thread, so tiles are small here: fewer numbers a thread.
"""

import os
import sys
import threading

import numpy as np
import pytest

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["*"]


@pytest.fixture(autouse=True, scope="session")
def small_threads():
    """A quarter of the numbers that a thread owns, few threads, and quick changes between them."""
    from lrscan.cuda import blocked, serial
    from lrscan.cuda.single_pass import tiles

    tiles.REGISTER_BYTES //= 4
    blocked.THREADS = serial.THREADS = 8
    sys.setswitchinterval(1e-4)


@pytest.fixture(autouse=True, scope="session")
def one_array_for_a_block():
    """Numba's simulator lets two threads of a block make a shared array twice, at once."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared, numpy_support

    lock = threading.Lock()

    def array(self, shape, dtype):
        caller = sys._getframe(1)
        with lock:
            place = caller.f_code, caller.f_lineno
            if place not in self._allocations:
                self._allocations[place] = np.empty(shape, numpy_support.as_dtype(dtype))
            return self._allocations[place]

    FakeCUDAShared.array = array
