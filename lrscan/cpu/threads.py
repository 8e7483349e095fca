"""A pool of threads for kernels that release the interpreter lock.

Numba's own thread layers abort after a fork (omp) or when two Python threads use them at once
(workqueue). Here a call borrows the workers that happen to be idle and works along itself, so it
needs none of them to finish: calls from several threads share the pool, and a forked child starts
a new one. The kernels hand out their pieces through a shared counter, so a worker that wakes late
costs little.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

import torch


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True, name="lrscan-worker")
        self._wake, self._finished = threading.Lock(), threading.Lock()
        self._wake.acquire()
        self._finished.acquire()
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        while True:
            self._wake.acquire()
            try:
                self._work(*self._args)
            except BaseException as error:  # handed on by wait()
                self._error = error
            self._work = self._args = None
            self._finished.release()

    def begin(self, work: Callable, args: tuple) -> None:
        self._work, self._args = work, args
        self._wake.release()

    def wait(self) -> BaseException | None:
        """Wait for the work to end; returns what it raised."""
        self._finished.acquire()
        error, self._error = self._error, None
        return error


_idle: deque[_Worker] = deque()
_count = 0
_growing = threading.Lock()


def _forget() -> None:
    """After a fork the child has no threads: start with an empty pool."""
    global _idle, _count, _growing
    _idle, _count, _growing = deque(), 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _borrow(wanted: int) -> list[_Worker]:
    global _count
    if _count < wanted:
        with _growing:
            while _count < wanted:
                _idle.append(_Worker())
                _count += 1
    workers = []
    while len(workers) < wanted:
        try:
            workers.append(_idle.pop())
        except IndexError:  # busy with another call: do without
            break
    return workers


def run(work: Callable, args: tuple, most: int) -> None:
    """Call ``work(*args)`` on this thread and, at the same time, on up to ``most - 1`` others.

    ``work`` divides the task among whoever calls it. ``torch.set_num_threads`` is obeyed.
    """
    wanted = min(most, torch.get_num_threads()) - 1
    workers = _borrow(wanted) if wanted > 0 else ()
    for worker in workers:
        worker.begin(work, args)
    errors = []
    try:
        work(*args)
    finally:  # a worker may still be writing to what the caller owns
        for worker in workers:
            errors.append(worker.wait())
            _idle.append(worker)
    for error in filter(None, errors):
        raise error
