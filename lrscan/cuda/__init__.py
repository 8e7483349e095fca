"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run in Numba's simulator, on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from lrscan.cuda import blocked, launch, serial
from lrscan.cuda.common import Variant
from lrscan.sweep import Operand

# Columns from which one thread a column fills the device: "auto" needs no pieces of time then.
_THREADS_AN_SM = 512


def sweep(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
) -> None:
    """Run a forward or backward sweep over operands on one CUDA device."""
    x = operands["X"].tensor
    variant = Variant(backward, x.dtype, "OUT" in operands, "DA" in operands)
    arguments = launch.arguments(operands, steps, sizes)
    columns = sizes[0] * sizes[1] * sizes[2]
    if algorithm == "auto":
        enough = launch.processors(x.device) * _THREADS_AN_SM
        algorithm = "serial" if columns >= enough or steps < blocked.FEWEST_STEPS else "blocked"
    if algorithm == "blocked":
        blocked.run(variant, arguments, steps, columns, x)
    else:
        serial.run(variant, arguments, columns, x, plain=algorithm == "serial_paper")
