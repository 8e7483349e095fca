"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run in Numba's simulator, on CPU tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan.core.algebra import Algebra
from lrscan.core.dtypes import KINDS, kind_of
from lrscan.core.sweep import Operand, Rows
from lrscan.cuda import blocked, serial
from lrscan.cuda.launch import processors, streams_of
from lrscan.cuda.single_pass import kernel as single_pass
from lrscan.cuda.steps import Variant

# Where "auto" takes one thread per column, as measured on an H200: 8 to 8,192 steps, 64 to 2**21
# columns, float32 and bfloat16. single_pass has more to prepare and to hand on, but keeps more of
# the memory busy, and reads numbers that lie apart in the order of memory.
_SHORTEST_STEPS = 8  # fewer cost more to launch than to compute
_SHORT_STEPS_APART = {False: 8, True: 16}  # where columns lie apart, forward and backward
_THREADS_AN_SM = 1024  # fewer columns are few
# Where columns lie side by side, forward: so many rounds of reading ahead, and with two bytes per
# number any number of rounds if there are so many columns, for there single_pass computes longer.
_MOST_ROUNDS, _MOST_ROUNDS_16_BIT = 4, 16
_THREADS_AN_SM_16_BIT = 480

_BACKENDS = {
    "serial_paper": serial.prepare_paper,
    "serial": serial.prepare,
    "blocked": blocked.prepare,
    "single_pass": single_pass.prepare,
}


def prepare(
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    algorithm: str,
    device: torch.device,
    algebra: Algebra,
) -> Callable[[Mapping[str, Tensor]], None]:
    """What runs a forward or backward sweep over tensors on one CUDA device."""
    a, x, start = (kind_of(operands.get(row, operands["x"]).dtype) for row in ("a", "x", "start"))
    variant = Variant(backward, a, x, start, not backward or "out" in operands, "da" in operands)
    strides: list[int] = []
    offsets: list[tuple[int, str, int]] = []
    for i, row in enumerate(Rows._fields):
        if row not in operands:
            strides += (0,) * 5
            continue
        dtype, offset, time, columns, aligned = operands[row]
        size = KINDS[kind_of(dtype)].size
        offsets.append((5 * i, row, offset * size))
        # In the place of an address stands one that is not zero and as well aligned.
        strides += (64 + offset * size % 16 + (not aligned), time * size)
        strides += (stride * size for stride in columns)
    extents = (steps, *sizes)
    if algorithm == "auto":
        algorithm = _choose(operands, variant, steps, sizes, processors(device))
    launch = _BACKENDS[algorithm](variant, tuple(strides), extents, processors(device))
    strides += extents
    stream_of = streams_of(device)

    def sweep(tensors: Mapping[str, Tensor]) -> None:
        numbers = strides.copy()
        for i, row, offset in offsets:
            numbers[i] = tensors[row].data_ptr() + offset
        with stream_of(device, tensors) as stream:
            launch(numbers, stream)

    return sweep


def _choose(
    operands: Mapping[str, Operand],
    variant: Variant,
    steps: int,
    sizes: tuple[int, ...],
    processors: int,
) -> str:
    """The algorithm of "auto"."""
    columns, half = math.prod(sizes), KINDS[variant.x].size == 2
    few = columns < processors * _THREADS_AN_SM
    if steps < _SHORTEST_STEPS and few:
        return "serial"
    lead = operands.get("out") or operands["x"]
    if abs(lead.columns[2]) > 1:
        short = steps <= (_SHORT_STEPS_APART[variant.backward] if few else _SHORTEST_STEPS * half)
        return "serial" if short else "single_pass"
    ahead = serial.steps_ahead(variant)
    # Steps that are left over from those read ahead are slow.
    if variant.backward or steps < ahead or 16 * (steps % ahead) > steps:
        return "single_pass"
    short = steps <= ahead * (_MOST_ROUNDS_16_BIT if half else _MOST_ROUNDS)
    enough = half and columns >= processors * _THREADS_AN_SM_16_BIT
    return "serial" if short or enough else "single_pass"
