"""Loading kernels, and launching them on torch's current stream.

Machine code comes from :mod:`lrscan.cuda.machine_code`. A launch hands one packed buffer of numbers
to the driver: no tensor is inspected, and nothing is looked up but the kernel itself.

Tensors without data, of torch's device "meta", launch nothing. Within :func:`noted` their sweeps
tell which kernels they would launch on a device that is not here.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import torch
from numba import cuda
from torch import Tensor

from lrscan.core import sweep
from lrscan.cuda import machine_code
from lrscan.cuda.memory import SIMULATED, simulator
from lrscan.cuda.steps import NUMBERS, arguments, signature

_MOST_NUMBERS = NUMBERS + 8  # that a launch hands to a kernel
_PACKS = [struct.Struct(f"={count}q").pack_into for count in range(_MOST_NUMBERS + 1)]
# Multiprocessors that a launch is sized for in the simulator.
_SIMULATED_PROCESSORS = 1
# torch's default stream, also where the bindings take 0 for a default stream of each thread.
_LEGACY_STREAM = 1


class Kernel:
    """A kernel for all devices: compiled when it is first launched on one.

    function      its Python body, with the arguments of :mod:`lrscan.cuda.steps`
    name          of this variant, unique: the file it is kept in
    sizing        the named tuple of integers that is its third argument
    most_threads  of a block
    fewest_blocks of a multiprocessor, which bounds the registers of a thread
    """

    def __init__(
        self,
        function: Callable,
        name: str,
        sizing: type[tuple],
        most_threads: int,
        fewest_blocks: int = 1,
    ) -> None:
        self.function, self.name, self.sizing = function, name, sizing
        self.launch_bounds = (most_threads, fewest_blocks)
        self._handles: dict[int, object] = {}
        self.simulated: Any = cuda.jit(function) if SIMULATED else None

    @property
    def signature(self) -> Any:
        """Numba's signature of its body."""
        return signature(self.sizing)

    def handle(self, device: int) -> object:
        """The loaded kernel on a device, which must be current."""
        if device not in self._handles:
            self._handles[device] = self._load(torch.cuda.get_device_capability(device))
        return self._handles[device]

    def _load(self, capability: tuple[int, int]) -> object:
        # In a capture of this thread the driver refuses to load, unless it is asked to relax.
        mode = _bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        refused: RuntimeError | None = None
        for code in machine_code.sources(self, capability):
            before = _driver("cuThreadExchangeStreamCaptureMode", mode)
            try:
                module = _driver("cuModuleLoadData", code)
                return _driver("cuModuleGetFunction", module, self.function.__name__.encode())
            except RuntimeError as error:  # code of a newer linker, say: the next place may do
                refused = error
            finally:
                _driver("cuThreadExchangeStreamCaptureMode", before)
        assert refused is not None  # the last place compiles, or raises by itself
        raise refused


def _driver(function: str, *args: object) -> Any:
    """Call the CUDA driver; returns its result, if it has one.

    Raises
    ------
    RuntimeError
        It reports an error.
    """
    status, *results = getattr(_bindings(), function)(*args)
    if status:
        raise RuntimeError(f"{function} failed: {status.name}")
    return results[0] if results else None


@functools.cache
def _bindings() -> ModuleType:
    """NVIDIA's bindings of the driver, which need not be installed where there is no GPU."""
    from cuda.bindings import driver

    return driver


class _Parameters(threading.local):
    """A thread's buffer of kernel arguments, and the list that tells the driver about it.

    bound  whether the thread was seen to have a context of the driver
    """

    def __init__(self) -> None:
        self.bound = False
        self.buffer = ctypes.create_string_buffer(8 * _MOST_NUMBERS)
        self.size = ctypes.c_size_t()
        # CU_LAUNCH_PARAM_BUFFER_POINTER, ..., CU_LAUNCH_PARAM_BUFFER_SIZE, ..., end
        self._extra = (ctypes.c_void_p * 5)(
            1, ctypes.addressof(self.buffer), 2, ctypes.addressof(self.size), 0
        )
        self.address = ctypes.addressof(self._extra)


_parameters = _Parameters()


def _bind(device: int | None) -> None:
    """Give this thread the device's context, if it has none.

    A thread that torch starts for backward has none until it first calls CUDA's runtime, which
    tensors from torch's cache do not do; the driver then refuses every call.
    """
    if not int(_driver("cuCtxGetCurrent")):
        context = _driver("cuDevicePrimaryCtxRetain", _driver("cuDeviceGet", device))
        _driver("cuCtxSetCurrent", context)
    _parameters.bound = True


class Launches(Protocol):
    """Where launches go, for the calls within ``with``: a stream, or a device that is not here."""

    def __enter__(self) -> Launches: ...

    def __exit__(self, *error: object) -> None: ...

    def workspace(self, size: int) -> int:
        """The address of so many bytes."""
        ...

    def launch(self, kernel: Kernel, grid: int, threads: int, numbers: Sequence[int]) -> None:
        """Start a kernel: its rows, extents and sizing one after the other in ``numbers``."""
        ...

    def clear(self, address: int, size: int) -> None:
        """Set so many bytes of memory, a multiple of 4, to zero."""
        ...


class Stream:
    """torch's current stream of the device that tensors are on, for the calls within ``with``."""

    def __init__(self, device: torch.device, tensors: Mapping[str, Tensor]) -> None:
        self.device = device
        self._workspaces: list[Tensor] = []
        self._guard = None
        if SIMULATED:
            if device.type == "cuda":
                raise RuntimeError(f"Numba's CUDA simulator is on, and the tensors are on {device}")
            simulator.allow_only(tensors.values())
        elif torch.cuda.current_device() != device.index:
            self._guard = torch.cuda.device(device)

    def __enter__(self) -> Stream:
        if self._guard is not None:
            self._guard.__enter__()
        if not SIMULATED:
            if not _parameters.bound:
                _bind(self.device.index)
            self.handle = torch.cuda.current_stream(self.device.index).cuda_stream
            self.handle = self.handle or _LEGACY_STREAM
        return self

    def __exit__(self, *error: object) -> None:
        if self._guard is not None:
            self._guard.__exit__(*error)

    def workspace(self, size: int) -> int:
        """They are from torch's allocator, until the stream is done."""
        tensor = torch.empty(size, dtype=torch.uint8, device=self.device)
        self._workspaces.append(tensor)
        if SIMULATED:
            simulator.allow(tensor)
        return tensor.data_ptr()

    def launch(self, kernel: Kernel, grid: int, threads: int, numbers: Sequence[int]) -> None:
        if SIMULATED:
            kernel.simulated[grid, threads](*arguments(numbers, kernel.sizing))
            return
        _PACKS[len(numbers)](_parameters.buffer, 0, *numbers)
        _parameters.size.value = 8 * len(numbers)
        handle = kernel.handle(self.device.index)
        shape = (grid, 1, 1, threads, 1, 1)
        _driver("cuLaunchKernel", handle, *shape, 0, self.handle, 0, _parameters.address)

    def clear(self, address: int, size: int) -> None:
        if SIMULATED:
            ctypes.memset(address, 0, size)
        else:
            _driver("cuMemsetD32Async", address, 0, size // 4, self.handle)


def blocks(tasks: int, threads: int) -> int:
    """Thread blocks that hold so many tasks."""
    return -(-tasks // threads)


def processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device."""
    if device.type == "meta":
        return _absent_device().processors
    if SIMULATED:
        return _SIMULATED_PROCESSORS
    return _processors_of(device)


@functools.cache
def _processors_of(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


class Absent:
    """A device that is not here, in the place of a stream of its own: it notes what is launched.

    processors  its streaming multiprocessors
    kernels     the kernels that were to be launched, by name
    """

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.kernels: dict[str, Kernel] = {}

    def __enter__(self) -> Absent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def workspace(self, size: int) -> int:
        return 0

    def launch(self, kernel: Kernel, grid: int, threads: int, numbers: Sequence[int]) -> None:
        self.kernels[kernel.name] = kernel

    def clear(self, address: int, size: int) -> None:
        pass


_absent: Absent | None = None


@contextmanager
def noted(processors: int) -> Iterator[dict[str, Kernel]]:
    """The kernels that sweeps over "meta" tensors would launch on a device, by name.

    Such a sweep is asked for with ``backend="cuda"``. Not for several threads at once.

    Args:
        processors: streaming multiprocessors of the device
    """
    global _absent
    sweep._prepared.cache_clear()  # what was prepared for another device
    _absent = Absent(processors)
    try:
        yield _absent.kernels
    finally:
        _absent = None
        sweep._prepared.cache_clear()


def streams_of(
    device: torch.device,
) -> Callable[[torch.device, Mapping[str, Tensor]], Launches]:
    """What gives the place where launches for tensors of a device go."""
    return Stream if device.type != "meta" else lambda device, tensors: _absent_device()


def _absent_device() -> Absent:
    if _absent is None:
        raise RuntimeError('tensors on "meta" have no data to sweep over')
    return _absent


def launch_both_ways(shape: Sequence[int], dim: int, dtype: torch.dtype, algorithm: str) -> None:
    """A forward and a backward sweep over tensors without data, within :func:`noted`."""
    a, x, dh, h, da, dx = (torch.empty(shape, dtype=dtype, device="meta") for _ in range(6))
    options = (dim, False, algorithm)
    sweep.forward(a, x, None, *options, out=h, backend="cuda")
    sweep.backward(a, h, None, dh, *options, None, (da, dx, None), backend="cuda")
