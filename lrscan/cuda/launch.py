"""Loading kernels, and launching them on torch's current stream.

Machine code comes from :mod:`lrscan.cuda.machine_code`. A launch passes one packed buffer of
numbers to the driver. It inspects no tensor, and looks up nothing except the kernel.

Sweeps over tensors without data (torch's device "meta") launch nothing. Inside :func:`noted`, they
record which kernels they would launch on a device that this machine need not have.
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

_MOST_NUMBERS = NUMBERS + 8  # the most that a launch passes to a kernel
_PACKS = [struct.Struct(f"={count}q").pack_into for count in range(_MOST_NUMBERS + 1)]
# In the simulator, launches are sized for this number of multiprocessors.
_SIMULATED_PROCESSORS = 1
# torch's default stream, in every configuration. The bindings may take 0 to mean the default stream
# of the calling thread.
_LEGACY_STREAM = 1


class Kernel:
    """A kernel for all devices. On each device, its first launch compiles or loads it.

    Args:
        function: its Python body, with the arguments of :mod:`lrscan.cuda.steps`
        name: unique name of the variant, also used for its file in the cache
        sizing: the named tuple of integers that is the kernel's third argument
        most_threads: the most threads per block
        fewest_blocks: how many blocks a multiprocessor must be able to hold at least; this limits
            the registers per thread
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
        """Numba's signature of the body."""
        return signature(self.sizing)

    def handle(self, device: int) -> object:
        """Return the kernel as loaded on a device. That device must be the current one."""
        if device not in self._handles:
            self._handles[device] = self._load(torch.cuda.get_device_capability(device))
        return self._handles[device]

    def _load(self, capability: tuple[int, int]) -> object:
        # While this thread captures a graph, the driver refuses to load, except in relaxed mode.
        mode = _bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        refused: RuntimeError | None = None
        for code in machine_code.sources(self, capability):
            before = _driver("cuThreadExchangeStreamCaptureMode", mode)
            try:
                module = _driver("cuModuleLoadData", code)
                return _driver("cuModuleGetFunction", module, self.function.__name__.encode())
            except RuntimeError as error:  # for example, code from a newer linker
                refused = error
            finally:
                _driver("cuThreadExchangeStreamCaptureMode", before)
        assert refused is not None  # the last source compiles the kernel, or raises
        raise refused


def _driver(function: str, *args: object) -> Any:
    """Call a function of the CUDA driver, and return its result if it has one.

    Raises:
        RuntimeError: if the driver reports an error
    """
    status, *results = getattr(_bindings(), function)(*args)
    if status:
        raise RuntimeError(f"{function} failed: {status.name}")
    return results[0] if results else None


@functools.cache
def _bindings() -> ModuleType:
    """Return NVIDIA's bindings of the driver. A machine without a GPU need not have them."""
    from cuda.bindings import driver

    return driver


class _Parameters(threading.local):
    """A thread's buffer of kernel arguments, and the list that describes it to the driver.

    Attributes:
        bound: True once the thread is known to have a context of the driver
        buffer: the arguments of the next launch
        size: how many bytes of the buffer are in use
        address: address of the list
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
    """Give this thread the device's context if it has none.

    The driver refuses every call from a thread without a context. A thread that torch starts for
    backward gets one at its first call to CUDA's runtime. Allocating tensors from torch's cache
    makes no such call.
    """
    if not int(_driver("cuCtxGetCurrent")):
        context = _driver("cuDevicePrimaryCtxRetain", _driver("cuDeviceGet", device))
        _driver("cuCtxSetCurrent", context)
    _parameters.bound = True


class Launches(Protocol):
    """A target of launches inside ``with``: a stream, or the record of an absent device."""

    def __enter__(self) -> Launches: ...

    def __exit__(self, *error: object) -> None: ...

    def workspace(self, size: int) -> int:
        """Return the address of ``size`` bytes of scratch memory."""
        ...

    def launch(self, kernel: Kernel, grid: int, threads: int, numbers: Sequence[int]) -> None:
        """Start a kernel. ``numbers`` are its rows, extents and sizing, concatenated."""
        ...

    def clear(self, address: int, size: int) -> None:
        """Set ``size`` bytes of memory to zero. ``size`` is a multiple of 4."""
        ...


class Stream:
    """torch's current stream on the device of the tensors, for the calls inside ``with``.

    In Numba's simulator, a launch runs on the CPU instead.

    Args:
        device: the device of the tensors
        tensors: the tensors that the kernels may access

    Raises:
        RuntimeError: if the simulator is on and the device is a GPU
    """

    def __init__(self, device: torch.device, tensors: Mapping[str, Tensor]) -> None:
        self.device = device
        self._workspaces: list[Tensor] = []
        self._guard = None
        if SIMULATED:
            if device.type == "cuda":
                raise RuntimeError(
                    f"Numba's CUDA simulator is on, but the tensors are on {device}: move them to "
                    "the CPU, or unset NUMBA_ENABLE_CUDASIM"
                )
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
        """Allocate memory from torch, and keep it for the lifetime of this object."""
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
    """Return how many thread blocks hold ``tasks`` threads."""
    return -(-tasks // threads)


def processors(device: torch.device) -> int:
    """Return the number of streaming multiprocessors of the device."""
    if device.type == "meta":
        return _absent_device().processors
    if SIMULATED:
        return _SIMULATED_PROCESSORS
    return _processors_of(device)


@functools.cache
def _processors_of(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


class Absent:
    """Stand-in for the stream of an absent device: it records launches and runs nothing.

    Attributes:
        processors: streaming multiprocessors of the device
        kernels: the kernels that it was asked to launch, by name
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
    """Collect the kernels that sweeps over "meta" tensors would launch on a device.

    Such sweeps need ``backend="cuda"``. Only one thread may use this at a time.

    Args:
        processors: streaming multiprocessors of the device

    Yields:
        the kernels by name; sweeps inside ``with`` add to them
    """
    global _absent
    sweep._prepared.cache_clear()  # cached sweeps may be sized for another device
    _absent = Absent(processors)
    try:
        yield _absent.kernels
    finally:
        _absent = None
        sweep._prepared.cache_clear()


def streams_of(
    device: torch.device,
) -> Callable[[torch.device, Mapping[str, Tensor]], Launches]:
    """Return a function that returns the target of launches for a device and its tensors."""
    return Stream if device.type != "meta" else lambda device, tensors: _absent_device()


def _absent_device() -> Absent:
    if _absent is None:
        raise RuntimeError(
            'tensors on "meta" have no data to sweep over: use tensors on another device'
        )
    return _absent


def launch_both_ways(shape: Sequence[int], dim: int, dtype: torch.dtype, algorithm: str) -> None:
    """Run a forward and a backward sweep over tensors without data, inside :func:`noted`."""
    a, x, dh, h, da, dx = (torch.empty(shape, dtype=dtype, device="meta") for _ in range(6))
    options = (dim, False, algorithm)
    sweep.forward(a, x, None, *options, out=h, backend="cuda")
    sweep.backward(a, h, None, dh, *options, None, (da, dx, None), backend="cuda")
