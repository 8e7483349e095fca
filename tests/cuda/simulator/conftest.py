"""These tests run the CUDA kernels in Numba's simulator, which must be on before Numba starts.

It runs a Python thread for every CUDA thread, so tiles are small here: fewer numbers a thread.
"""

import os
import sys

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
    from lrscan.learn.machines import simulator

    with simulator.one_array_for_a_block():
        yield
