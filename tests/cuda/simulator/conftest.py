"""Settings for the tests in Numba's CUDA simulator, which must be on before Numba is imported.

The simulator runs a Python thread for every CUDA thread, so these tests use small tiles with fewer
numbers per thread.
"""

import os
import sys

import pytest

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["*"]


@pytest.fixture(autouse=True, scope="session")
def small_threads():
    """Use a quarter of the numbers per thread, few threads, and fast switches between threads."""
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
