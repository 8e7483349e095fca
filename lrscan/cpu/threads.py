"""Threads for kernels, which divide their work among the threads that call them.

If torch's OpenMP can be reached from here, a kernel runs on its threads. They are already awake if
torch has just used them. They keep spinning for some milliseconds, so they would slow down any
other threads.

They do not survive a fork, and on some platforms they cannot be reached. Then a pool of Python
threads is used. A call borrows the workers that happen to be idle. It does not wait for a worker
that has not woken up yet.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable


def _find_team() -> Callable[[int, int, int, int], None] | None:
    """Return ``GOMP_parallel(function, argument, threads, flags)`` of torch's OpenMP, or None."""
    try:
        team = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team


_team = _find_team()
_function_type = ctypes.CFUNCTYPE(None, ctypes.c_int64)


def run(kernel: int, argument: int, threads: int) -> None:
    """Call the C function at address ``kernel`` with ``argument``, on up to ``threads`` threads.

    The function divides the task among the threads that call it. It finishes the task even if only
    one does.
    """
    if threads > 1 and _team is not None:
        _team(kernel, argument, threads, 0)
        return
    function = _functions.get(kernel)
    if function is None:
        function = _functions[kernel] = _function_type(kernel)
    if threads == 1:
        function(argument)
    else:
        _run_in_pool(function, argument, threads)


_functions: dict[int, Callable[[int], None]] = {}


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True, name="lrscan-worker")
        self._wake, self._finished = threading.Lock(), threading.Lock()
        self._wake.acquire()
        self._finished.acquire()
        self.start()

    def run(self) -> None:
        while True:
            self._wake.acquire()
            if self._claim.acquire(blocking=False):
                self._function(self._argument)
                self._finished.release()
            else:  # too late: the call is over, and nothing waits for this worker
                _idle.append(self)

    def begin(self, function: Callable[[int], None], argument: int) -> None:
        self._function, self._argument, self._claim = function, argument, threading.Lock()
        self._wake.release()

    def end(self) -> None:
        """Wait until the work has ended; if it has not begun, prevent it from beginning."""
        if not self._claim.acquire(blocking=False):
            self._finished.acquire()
            _idle.append(self)


_idle: deque[_Worker] = deque()
_count = 0
_growing = threading.Lock()


def _forget() -> None:
    """Start with an empty pool after a fork, since the child has none of the threads."""
    global _idle, _count, _growing, _team
    _idle, _count, _growing, _team = deque(), 0, threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _borrow(wanted: int) -> list[_Worker]:
    global _count
    if _count < wanted:
        with _growing:
            while _count < wanted:
                _idle.append(_Worker())
                _count += 1
    workers: list[_Worker] = []
    while len(workers) < wanted:
        try:
            workers.append(_idle.pop())
        except IndexError:  # the others are busy with another call: do without
            break
    return workers


def _run_in_pool(function: Callable[[int], None], argument: int, threads: int) -> None:
    workers = _borrow(threads - 1)
    for worker in workers:
        worker.begin(function, argument)
    function(argument)
    for worker in workers:
        worker.end()
