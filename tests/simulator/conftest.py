"""These tests run the CUDA kernels in Numba's simulator, which must be on before Numba starts."""

import os

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["*"]
