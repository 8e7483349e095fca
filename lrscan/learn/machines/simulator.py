"""CUDA kernels without a GPU: Numba's simulator, with a record of every access to memory.

Import this module before anything that imports ``numba.cuda``: it switches the simulator on.

Threads run one at a time here, each up to its next barrier, in an order that can be chosen. So a
kernel with a missing barrier gives the same wrong result every time, and the log says which two
accesses had no barrier between them. Times mean nothing in a simulator and are never shown.

The only public part of Numba's simulator is the variable that switches it on: it has no order of
threads, no log and no hook for either. So this module extends its classes for a thread, for shared
memory and for what a kernel sees as ``cuda``, and replaces them while a kernel is watched. The
names are those of numba-cuda 0.30.4, and of numba 0.68.1, whose own simulator runs without
numba-cuda. Everything else that is specific to numba-cuda is in :mod:`lrscan.cuda.numba_cuda`.
"""

from __future__ import annotations

import inspect
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
if "numba.core.config" in sys.modules:
    sys.modules["numba.core.config"].reload_config()

from numba import cuda  # noqa: E402  after the variable
from numba.core import config  # noqa: E402

if not getattr(config, "ENABLE_CUDASIM", 0) or not hasattr(cuda, "simulator"):
    raise ImportError(
        "numba.cuda was imported before the simulator was switched on: "
        "restart the kernel and import lrscan.learn.machines.simulator first"
    )

from numba.cuda.simulator import kernel as _kernels  # noqa: E402
from numba.cuda.simulator.kernelapi import (  # noqa: E402
    FakeCUDAModule,
    FakeCUDAShared,
    numpy_support,  # numba's own if numba-cuda is not installed
)

from lrscan.learn.machines.accesses import Log  # noqa: E402


class _Watched:
    """An array that records every access."""

    def __init__(self, name: str, array: Any, log: Log, late: bool = False) -> None:
        self.name, self.array, self.log = name, array, log
        self.late, self.seen = late, set[tuple]()

    def __getitem__(self, index: Any) -> Any:
        self.log.note(self.name, index, "read")
        read = threading.current_thread(), index
        if self.late and read not in self.seen:
            self.seen.add(read)
            return self.array.dtype.type(0)
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.log.note(self.name, index, "write")
        self.array[index] = value

    def __len__(self) -> int:
        return len(self.array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)


class _Thread(_kernels.BlockThread):
    """A CUDA thread that runs up to its next barrier each time it is advanced."""

    def __init__(
        self,
        target: Callable,
        manager: _BlockManager,
        block_point: tuple[int, ...],
        point: tuple[int, ...],
        launch: int,
    ) -> None:
        super().__init__(target, manager, block_point, point, False)
        self.launch, self.block, self.epoch = launch, block_point[0], 0
        self.turn, self.pause = threading.Event(), threading.Event()

    def run(self) -> None:
        super().run()
        self.pause.set()

    def syncthreads(self) -> None:
        self.epoch += 1
        self.pause.set()
        self.turn.wait()
        self.turn.clear()
        if self.abort:
            raise RuntimeError("stopped at a barrier")

    def advance(self) -> None:
        """Run to the next barrier or to the end."""
        self.pause.clear()
        if self.ident is None:
            self.start()
        else:
            self.turn.set()
        self.pause.wait()
        if self.exception or self.epoch == self.passed:
            self.join()
        self.passed = self.epoch

    passed = 0


class _Session:
    """State that the parts of a watched launch share."""

    def __init__(self, order: str | int, late: str | None) -> None:
        self.log, self.order, self.launches, self.late = Log(), order, 0, late
        self.names: Iterator[str] = iter(())

    def sorted(self, threads: list[_Thread]) -> list[_Thread]:
        if self.order == "ascending":
            return threads
        if self.order == "descending":
            return threads[::-1]
        return random.Random(self.order).sample(threads, len(threads))

    def manager(
        self, function: Callable, grid_dim: Any, block_dim: Any, debug: bool
    ) -> _BlockManager:
        return _BlockManager(function, block_dim, self)

    def module(self, grid_dim: Any, block_dim: Any, dynshared_size: int) -> Any:
        module = FakeCUDAModule(grid_dim, block_dim, dynshared_size)
        module._shared = _Shared(dynshared_size, self.log)
        return module

    def argument(self, array: Any) -> _Watched:
        name = next(self.names, "argument")
        return _Watched(name, array, self.log, name == self.late)


class _BlockManager:
    def __init__(self, function: Callable, block_dim: Any, session: _Session) -> None:
        self._f, self._block_dim, self.session = function, block_dim, session
        self.block_state = np.zeros(block_dim, dtype=np.bool_)

    def run(self, grid_point: tuple[int, ...], *arguments: Any) -> None:
        threads = [
            _Thread(lambda: self._f(*arguments), self, grid_point, point, self.session.launches)
            for point in np.ndindex(*self._block_dim)
        ]
        live, ended = self.session.sorted(threads), False
        while live:
            for thread in live:
                thread.advance()
                if thread.exception:
                    self._stop(threads)
                    raise thread.exception[0].with_traceback(thread.exception[1])
            waiting = [thread for thread in live if thread.is_alive()]
            ended = ended or len(waiting) < len(threads)
            if ended:
                stranded = self.session.log.stranded
                stranded += [(t.block, t.thread_id) for t in waiting]
            live = waiting
        log = self.session.log
        log.barriers = max(log.barriers, *(thread.epoch for thread in threads))

    @staticmethod
    def _stop(threads: list[_Thread]) -> None:
        for thread in threads:
            thread.abort = True
            if thread.ident is not None and thread.is_alive():
                thread.turn.set()
                thread.join()


class _Shared(FakeCUDAShared):
    """Shared memory that is watched and starts as NaN, or as zero in arrays of integers."""

    def __init__(self, size: int, log: Log) -> None:
        super().__init__(size)
        self.log, self.block = log, None
        self.wrapped: dict[tuple, _Watched] = {}

    def array(self, shape: Any, dtype: Any, alignment: Any = None) -> _Watched:
        found = sys._getframe(1)
        key = (found.f_code, found.f_lasti)
        thread: Any = threading.current_thread()
        block = thread.block
        if block != self.block:
            self.block, self.wrapped = block, {}
        if key not in self.wrapped:
            numpy_type = (
                numpy_support.as_dtype(dtype)
                if not isinstance(dtype, np.dtype | type)
                else np.dtype(dtype)
            )
            nothing = np.nan if numpy_type.kind in "fc" else 0
            array = np.full(shape, nothing, numpy_type)
            name = f"shared {len(self.wrapped)}"
            self.wrapped[key] = _Watched(name, array, self.log)
        return self.wrapped[key]


@contextmanager
def watching(order: str | int = "ascending", late: str | None = None) -> Iterator[Log]:
    """Watch every kernel launched inside the ``with`` block, and yield the log.

    Args:
        order: the order in which the threads of a block run between barriers: "ascending",
               "descending", or a seed for a shuffled order
        late:  the name of an argument of the kernel whose elements are 0 when a thread first reads
               them, as if another block had not written them yet
    """
    session = _Session(order, late)
    original = _kernels.FakeCUDAKernel.__call__

    def call(kernel: Any, *arguments: Any) -> Any:
        if kernel._device or _kernels._kernel_context:
            return original(kernel, *arguments)
        names = inspect.signature(kernel.fn).parameters
        pairs = zip(names, arguments, strict=False)
        session.names = iter([n for n, a in pairs if isinstance(a, np.ndarray) and a.ndim])
        session.launches += 1
        return original(kernel, *arguments)

    with (
        mock.patch.object(_kernels, "BlockManager", session.manager),
        mock.patch.object(_kernels, "FakeCUDAModule", session.module),
        mock.patch.object(_kernels, "FakeWithinKernelCUDAArray", session.argument),
        mock.patch.object(_kernels.FakeCUDAKernel, "__call__", call),
    ):
        yield session.log


@contextmanager
def one_array_for_a_block() -> Iterator[None]:
    """Create a shared array only once per block; in Numba, two threads may create it at once.

    This is for kernels that are launched without :func:`watching`.
    """
    lock = threading.Lock()

    def array(shared: Any, shape: Any, dtype: Any) -> Any:
        caller = sys._getframe(1)
        with lock:
            place = caller.f_code, caller.f_lineno
            if place not in shared._allocations:
                shared._allocations[place] = np.empty(shape, numpy_support.as_dtype(dtype))
            return shared._allocations[place]

    with mock.patch.object(FakeCUDAShared, "array", array):
        yield


def launch(
    kernel: Callable,
    grid: int,
    threads: int,
    *arguments: Any,
    order: str | int = "ascending",
    late: str | None = None,
) -> Log:
    """Launch a kernel in the simulator, and return the log of its accesses.

    Args:
        kernel:    a function, jitted or plain
        grid:      the number of blocks; they run one after the other, in order
        threads:   the number of threads per block
        arguments: the arguments of the kernel; NumPy arrays are changed in place
        order:     see :func:`watching`
        late:      see :func:`watching`
    """
    jitted: Any = kernel if hasattr(kernel, "py_func") else cuda.jit(kernel)
    with watching(order, late) as log:
        jitted[grid, threads](*arguments)
    return log
