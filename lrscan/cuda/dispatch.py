"""The CUDA backend: chooses and sizes a kernel, and launches it on torch's current stream.

With ``NUMBA_ENABLE_CUDASIM=1``, the same kernels run in Numba's simulator on CPU tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan.core.algebra import Algebra
from lrscan.core.dtypes import described, kind_of
from lrscan.core.sweep import Operand, Rows
from lrscan.cuda import blocked, serial
from lrscan.cuda.launch import processors, streams_of
from lrscan.cuda.single_pass import kernel as single_pass
from lrscan.cuda.steps import Extents, Row, Variant

# Limits up to which "auto" chooses "serial" (one thread per column), measured on an H200 with 8 to
# 8,192 steps, 64 to 2**21 columns, float32 and bfloat16. "single_pass" has more to prepare and has
# to pass states on. But it keeps more of the memory busy, and it reads scattered columns in the
# order of memory.
_SHORTEST_STEPS = 8  # fewer cost more to launch than to compute
# Key: backward. For columns that are not contiguous.
_SHORT_STEPS_APART = {False: 8, True: 16}
_THREADS_PER_SM = 1024  # fewer columns than this per multiprocessor count as few
# The next limits are for forward sweeps over contiguous columns. A round reads steps ahead once.
# With two bytes per number, "serial" takes any number of rounds if there are enough columns,
# because "single_pass" then computes for longer.
_MOST_ROUNDS, _MOST_ROUNDS_16_BIT = 4, 16
_THREADS_PER_SM_16_BIT = 480

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
    """Return a function that runs a forward or backward sweep over tensors on a CUDA device.

    See :mod:`lrscan.core.sweep` for the arguments.
    """
    variant = _variant(operands, backward, algebra)
    likely = {row: _row(operand) for row, operand in operands.items()}
    rows = Rows(*(likely.get(row, _NO_ROW) for row in Rows._fields))
    extents = Extents(steps, *sizes)
    if algorithm == "auto":
        algorithm = _choose(operands, variant, steps, sizes, processors(device))
    launch = _BACKENDS[algorithm](variant, rows, extents, processors(device))
    numbers = [*sum(rows, ()), *extents]
    each = len(Row._fields)
    addresses = [
        (each * Rows._fields.index(row), row, operand.offset * operand.dtype.itemsize)
        for row, operand in operands.items()
    ]
    stream_of = streams_of(device)

    def sweep(tensors: Mapping[str, Tensor]) -> None:
        real = numbers.copy()
        for i, row, offset in addresses:
            real[i] = tensors[row].data_ptr() + offset
        with stream_of(device, tensors) as stream:
            launch(real, stream)

    return sweep


_NO_ROW = Row(*[0] * len(Row._fields))


def _row(operand: Operand) -> Row:
    """Return the row of an operand, with a stand-in for its address.

    The stand-in is not zero and has the alignment of the real address. The choice of a kernel
    depends on nothing else of an address.
    """
    size = operand.dtype.itemsize
    address = 64 + operand.offset * size % 16 + (not operand.aligned)
    return Row(address, operand.time * size, *(stride * size for stride in operand.columns))


def _variant(operands: Mapping[str, Operand], backward: bool, algebra: Algebra) -> Variant:
    a, x, start = (
        kind_of(operands.get(row, operands["x"]).dtype, algebra.numbers(row))
        for row in ("a", "x", "start")
    )
    want_dx, want_da = not backward or "out" in operands, "da" in operands
    return Variant(backward, a, x, start, want_dx, want_da, algebra)


def _choose(
    operands: Mapping[str, Operand],
    variant: Variant,
    steps: int,
    sizes: tuple[int, ...],
    processors: int,
) -> str:
    """Return the algorithm for "auto"."""
    columns, half = math.prod(sizes), described(variant.x).size == 2
    few = columns < processors * _THREADS_PER_SM
    if steps < _SHORTEST_STEPS and few:
        return "serial"
    lead = operands.get("out") or operands["x"]
    if abs(lead.columns[2]) > variant.algebra.state_numbers:  # columns are not contiguous
        short = steps <= (_SHORT_STEPS_APART[variant.backward] if few else _SHORTEST_STEPS * half)
        return "serial" if short else "single_pass"
    ahead = serial.steps_ahead(variant)
    # Steps that do not fill a round are slow: they are read one by one.
    if variant.backward or steps < ahead or 16 * (steps % ahead) > steps:
        return "single_pass"
    short = steps <= ahead * (_MOST_ROUNDS_16_BIT if half else _MOST_ROUNDS)
    enough = half and columns >= processors * _THREADS_PER_SM_16_BIT
    return "serial" if short or enough else "single_pass"
