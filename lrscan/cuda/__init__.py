"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run in Numba's simulator, on CPU tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan.cuda import blocked, serial, single_pass
from lrscan.cuda.common import Variant
from lrscan.cuda.kinds import KINDS, kind_of
from lrscan.cuda.launch import processors, streams_of
from lrscan.cuda.plan import SECTOR_BYTES
from lrscan.sweep import ROWS, Operand

# "auto" takes one thread per column where time is so short that the start of a block costs more, or
# where columns are threads enough and numbers so small that single_pass computes for longer than it
# reads. Found on an H200.
_SHORT_STEPS = 32
_THREADS_AN_SM = 1024
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
) -> Callable[[Mapping[str, Tensor]], None]:
    """What runs a forward or backward sweep over tensors on one CUDA device."""
    kinds = [kind_of(operands.get(row, operands["X"]).dtype) for row in ("A", "X", "START")]
    variant = Variant(backward, *kinds, not backward or "OUT" in operands, "DA" in operands)
    strides, offsets = [], []
    for i, row in enumerate(ROWS):
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
        algorithm = _choose(operands, steps, sizes, backward, processors(device))
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
    steps: int,
    sizes: tuple[int, ...],
    backward: bool,
    processors: int,
) -> str:
    """The algorithm of "auto".

    One thread per column reads each input once as well, without handing anything on; it is slower
    while it has too few threads to keep the memory busy, or reads across the memory's lines.
    Backward it reads ahead too little.
    """
    lead = operands.get("OUT") or operands["X"]
    size, columns = KINDS[kind_of(lead.dtype)].size, math.prod(sizes)
    short = steps <= _SHORT_STEPS
    if short and columns < processors * _THREADS_AN_SM:
        return "serial"
    # A few steps of neighbouring columns may lie in one sector of memory.
    beside = abs(lead.columns[2]) <= (SECTOR_BYTES // size if short else 1)
    enough = short or (size == 2 and columns >= processors * _THREADS_AN_SM_16_BIT)
    return "serial" if beside and enough and not backward else "single_pass"
