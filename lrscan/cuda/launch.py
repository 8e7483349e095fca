"""Compiling kernels, keeping them on disk, and launching them on torch's current stream.

A kernel becomes machine code in two steps, neither of which needs a GPU: Numba writes PTX, NVIDIA's
linker a cubin. That is kept beside the compiled CPU kernels, under a digest of all sources, so only
the first call on a machine waits for it. A launch hands one packed buffer of numbers to the driver:
no tensor is inspected, and nothing is looked up but the kernel itself.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from numba import cuda, types
from numba.core.caching import FunctionCache
from torch import Tensor

from lrscan.cuda import simulated_memory
from lrscan.cuda.bfloat16 import without_bfloat16
from lrscan.cuda.common import SIZING
from lrscan.cuda.memory import SIMULATED
from lrscan.provenance import package_version
from lrscan.sources import digest
from lrscan.sweep import ROWS
from lrscan.workspace import write_files

SIGNATURE = types.void(
    types.UniTuple(types.UniTuple(types.int64, 5), len(ROWS)),
    types.UniTuple(types.int64, 4),
    types.UniTuple(types.int64, SIZING),
)
_NUMBERS = 5 * len(ROWS) + 4 + SIZING
_PACK = struct.Struct(f"={_NUMBERS}q").pack_into
# Multiprocessors that a launch is sized for in the simulator.
_SIMULATED_PROCESSORS = 1
# torch's default stream, also where the bindings take 0 for a default stream of each thread.
_LEGACY_STREAM = 1


class Kernel:
    """A kernel for all devices: compiled when it is first launched on one.

    function      its Python body, with the arguments of :mod:`lrscan.cuda.common`
    name          of this variant, unique: the file it is kept in
    most_threads  of a block
    fewest_blocks of a multiprocessor, which bounds the registers of a thread
    """

    def __init__(
        self, function: Callable, name: str, most_threads: int, fewest_blocks: int = 1
    ) -> None:
        self.function, self.name = function, name
        self.launch_bounds = (most_threads, fewest_blocks)
        self._handles: dict[int, object] = {}
        self.simulated = cuda.jit(function) if SIMULATED else None

    def handle(self, device: int) -> object:
        """The loaded kernel on a device, which must be current."""
        if device not in self._handles:
            capability = torch.cuda.get_device_capability(device)
            code, name = self.cubin(capability), self.function.__name__.encode()
            # In a capture of this thread the driver refuses to load, unless it is asked to relax.
            mode = _bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            mode = _driver("cuThreadExchangeStreamCaptureMode", mode)
            try:
                module = _driver("cuModuleLoadData", code)
                self._handles[device] = _driver("cuModuleGetFunction", module, name)
            finally:
                _driver("cuThreadExchangeStreamCaptureMode", mode)
        return self._handles[device]

    def cubin(self, capability: tuple[int, int]) -> bytes:
        """The machine code for a compute capability, from disk if it was compiled before."""
        path = self._path(capability)
        if path is not None and path.is_file():
            return path.read_bytes()
        code = link(self.ptx(capability), capability)
        if path is not None:
            try:
                write_files({path: code})
            except OSError:  # a full disk, or a folder that became read-only: compile every time
                pass
        return code

    def ptx(self, capability: tuple[int, int]) -> str:
        """The code that the linker takes, with the function's own name."""
        ptx, _ = cuda.compile(
            self.function,
            SIGNATURE,
            device=False,
            abi="numba",
            cc=capability,
            output="ptx",
            debug=False,  # not as Numba's environment has it: the code is kept for all processes
            opt=True,
            launch_bounds=self.launch_bounds,
        )
        mangled = re.search(r"\.entry (\w+)", ptx)[1]
        ptx = re.sub(rf"\b{mangled}\b", self.function.__name__, ptx)
        return ptx if capability >= (8, 0) else without_bfloat16(ptx)

    def _path(self, capability: tuple[int, int]) -> Path | None:
        try:
            folder = Path(FunctionCache(self.function).cache_path)
        except RuntimeError:  # no folder can be written
            return None
        key = f"{digest(Path(__file__).parent)[:16]}-{_compilers()}"
        return folder / f"{self.name}-sm{capability[0]}{capability[1]}-{key}.cubin"


def link(ptx: str, capability: tuple[int, int]) -> bytes:
    """Machine code from PTX."""
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError:  # before cuda-core 0.5
        from cuda.core.experimental import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}")
    return Linker(ObjectCode.from_ptx(ptx.encode()), options=options).link("cubin").code


@functools.cache
def _compilers() -> str:
    """Versions of what makes a cubin, where they are installed as packages."""
    names = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    return "-".join(package_version(name) or "0" for name in names)


def _driver(function: str, *args: object) -> object:
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
        self.buffer = ctypes.create_string_buffer(8 * _NUMBERS)
        self._size = ctypes.c_size_t(8 * _NUMBERS)
        # CU_LAUNCH_PARAM_BUFFER_POINTER, ..., CU_LAUNCH_PARAM_BUFFER_SIZE, ..., end
        self._extra = (ctypes.c_void_p * 5)(
            1, ctypes.addressof(self.buffer), 2, ctypes.addressof(self._size), 0
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


class Stream:
    """torch's current stream of the device that tensors are on, for the calls within ``with``."""

    def __init__(self, device: torch.device, tensors: Mapping[str, Tensor]) -> None:
        self.device = device
        self._workspaces: list[Tensor] = []
        self._guard = None
        if SIMULATED:
            if device.type == "cuda":
                raise RuntimeError(f"Numba's CUDA simulator is on, and the tensors are on {device}")
            simulated_memory.allow_only(tensors.values())
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
        """The address of so many bytes, from torch's allocator, until the stream is done."""
        tensor = torch.empty(size, dtype=torch.uint8, device=self.device)
        self._workspaces.append(tensor)
        if SIMULATED:
            simulated_memory.allow(tensor)
        return tensor.data_ptr()

    def launch(self, kernel: Kernel, grid: int, threads: int, numbers: Sequence[int]) -> None:
        """Start a kernel: its rows, extents and sizing one after the other in ``numbers``."""
        if SIMULATED:
            rows = tuple(tuple(numbers[r : r + 5]) for r in range(0, 5 * len(ROWS), 5))
            rest = tuple(numbers[5 * len(ROWS) :])
            kernel.simulated[grid, threads](rows, rest[:4], rest[4:])
            return
        _PACK(_parameters.buffer, 0, *numbers)
        handle = kernel.handle(self.device.index)
        shape = (grid, 1, 1, threads, 1, 1)
        _driver("cuLaunchKernel", handle, *shape, 0, self.handle, 0, _parameters.address)

    def clear(self, address: int, size: int) -> None:
        """Set so many bytes of memory, a multiple of 4, to zero."""
        if SIMULATED:
            ctypes.memset(address, 0, size)
        else:
            _driver("cuMemsetD32Async", address, 0, size // 4, self.handle)


def blocks(tasks: int, threads: int) -> int:
    """Thread blocks that hold so many tasks."""
    return -(-tasks // threads)


@functools.cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device."""
    if SIMULATED:
        return _SIMULATED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
