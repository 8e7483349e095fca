"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run in Numba's simulator, on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan.cuda import blocked, launch, serial
from lrscan.cuda.common import Variant
from lrscan.sweep import Operand

# Columns from which one thread a column fills the device: "auto" needs no pieces of time then.
_THREADS_AN_SM = 512


def prepare(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
    device: torch.device,
) -> Callable[[Mapping[str, Tensor]], None]:
    """What runs a forward or backward sweep over tensors on one CUDA device."""
    variant = Variant(backward, operands["X"].dtype, "OUT" in operands, "DA" in operands)
    columns = sizes[0] * sizes[1] * sizes[2]
    if algorithm == "auto":
        enough = launch.processors(device) * _THREADS_AN_SM
        algorithm = "serial" if columns >= enough or steps < blocked.FEWEST_STEPS else "blocked"

    def sweep(tensors: Mapping[str, Tensor]) -> None:
        arguments = launch.arguments(tensors, operands, steps, sizes)
        if algorithm == "blocked":
            blocked.run(variant, arguments, steps, columns, tensors["X"])
        else:
            plain = algorithm == "serial_paper"
            serial.run(variant, arguments, columns, tensors["X"], plain=plain)

    return sweep
