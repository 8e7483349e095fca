"""Compiling kernels for torch tensors, and launching them by raw pointers.

A pointer skips the CUDA array interface, whose checks cost tens of microseconds a tensor. In the
simulator a pointer is a flat NumPy array over the tensor's storage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from numba import cuda, types
from numba.core import config
from torch import Tensor

from lrscan.cuda.common import STATES
from lrscan.sweep import ROWS, Operand

SIMULATED = bool(config.ENABLE_CUDASIM)
_SIMULATED_PROCESSORS = 1


def signature(dtype: torch.dtype, workspace: int):
    """The types of a kernel's arguments; ``workspace`` is 0 or the number of its arrays."""
    pointer = types.CPointer(STATES[dtype])
    strides = types.UniTuple(types.UniTuple(types.int64, 5), len(ROWS))
    extents = types.UniTuple(types.int64, 4)
    has = types.UniTuple(types.int64, 2)
    extra = (types.int64, *[pointer] * workspace) if workspace else ()
    return types.void(*[pointer] * len(ROWS), strides, has, extents, *extra)


def compiled(function: Callable, dtype: torch.dtype, workspace: int = 0):
    """The kernel, compiled for the current device (in the simulator: as it is)."""
    if SIMULATED:
        return cuda.jit(function)
    return cuda.jit(signature(dtype, workspace))(function)


def pointer(tensor: Tensor):
    """What a kernel takes for a tensor."""
    if not SIMULATED:
        return tensor.data_ptr()
    size = tensor.untyped_storage().size() // tensor.element_size() - tensor.storage_offset()
    return tensor.as_strided((size,), (1,)).numpy()


def arguments(
    tensors: Mapping[str, Tensor],
    operands: Mapping[str, Operand],
    steps: int,
    sizes: tuple[int, ...],
) -> tuple[object, ...]:
    """The arguments that every kernel begins with (see :mod:`lrscan.cuda.common`)."""
    x = tensors["X"]
    nothing = Operand(x.dtype, 0, 0, (0, 0, 0), False)
    rows = [operands.get(row, nothing) for row in ROWS]
    has = tuple(int(row in operands) for row in ("START", "DSTART"))
    strides = tuple((row.offset, row.time, *row.columns) for row in rows)
    pointers = (pointer(tensors.get(row, x)) for row in ROWS)
    return *pointers, strides, has, (steps, *sizes)


def blocks(tasks: int, threads: int) -> int:
    """Thread blocks that hold so many tasks."""
    return -(-tasks // threads)


@functools.cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device."""
    if SIMULATED:
        return _SIMULATED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def launch(kernel, grid: int, threads: int, arguments: tuple[object, ...], like: Tensor) -> None:
    """Start the kernel on torch's current stream of the device that ``like`` is on."""
    if SIMULATED:
        kernel[grid, threads](*arguments)
        return
    with torch.cuda.device(like.device):
        stream = cuda.external_stream(torch.cuda.current_stream().cuda_stream)
        kernel[grid, threads, stream](*arguments)
