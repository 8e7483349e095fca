"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run in Numba's simulator, on CPU tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lrscan.cuda import blocked, serial, single_pass
from lrscan.cuda.common import Variant
from lrscan.cuda.kinds import kind_of
from lrscan.cuda.launch import Stream, processors
from lrscan.sweep import ROWS, Operand

# "auto" takes one thread a column where time is so short that a state is handed on no more than
# a few times, and where columns alone are threads enough to keep the memory busy.
_SHORT_STEPS = 32
_THREADS_AN_SM = 1024

_MISSING = (0, 0, 0, 0, 0)


def prepare(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
) -> None:
    """Run a forward or backward sweep over operands on one CUDA device."""
    x = operands["X"].tensor
    kinds = [kind_of(operands.get(row, operands["X"]).tensor.dtype) for row in ("A", "X", "START")]
    variant = Variant(backward, *kinds, not backward or "OUT" in operands, "DA" in operands)
    numbers = []
    for row in ROWS:
        numbers += _row(operands[row]) if row in operands else _MISSING
    numbers += (steps, *sizes)
    columns = math.prod(sizes)
    with Stream(x.device, (operand.tensor for operand in operands.values())) as stream:
        if algorithm == "auto":
            algorithm = _choose(operands, steps, sizes, processors(x.device))
        if algorithm == "single_pass":
            single_pass.run(variant, numbers, stream)
        elif algorithm == "blocked":
            blocked.run(variant, numbers, steps, columns, stream)
        else:
            serial.run(variant, numbers, columns, stream, plain=algorithm == "serial_paper")


def _row(operand: Operand) -> tuple[int, ...]:
    """What a kernel takes for an operand, in bytes."""
    tensor, offset, time, (outer, middle, inner) = operand
    size = tensor.element_size()
    start = tensor.data_ptr() + offset * size
    return start, time * size, outer * size, middle * size, inner * size


def _choose(
    operands: Mapping[str, Operand], steps: int, sizes: tuple[int, ...], processors: int
) -> str:
    """The algorithm of "auto".

    One thread a column reads each input once as well, without handing anything on; it is slower
    only while it has too few threads to keep the memory busy, or reads across the memory's lines.
    """
    lead = operands.get("OUT") or operands["X"]
    coalesced = abs(lead.columns[2]) == 1
    many = math.prod(sizes) >= processors * _THREADS_AN_SM
    return "serial" if steps <= _SHORT_STEPS or (many and coalesced) else "single_pass"
