"""How many bytes the package's CUDA kernels move, counted in the simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from unittest import mock

from lrscan.learn.simulator import watching  # before anything that uses numba.cuda

# isort: split
import torch

from lrscan import sweep


def bytes_moved(algorithm: str, steps: int, columns: int, *, backward: bool = False) -> float:
    """Bytes an element that a kernel of the package moves, counted access by access.

    Args:
        algorithm: one of ``lrscan.arguments.ALGORITHMS["cuda"]``
        steps, columns: the shape, float32
        backward:  count the gradients' sweep instead of the forward one
    """
    a, x = torch.full((steps, columns), 0.5), torch.ones(steps, columns)
    h = sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    with watching() as log, _bytes_counted() as counted:
        if backward:
            outputs = torch.empty_like(h), torch.empty_like(h), None
            sweep.backward(a, h, None, x, 0, False, algorithm, None, outputs, backend="cuda")
        else:
            sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    accesses = log.count("read", shared=False) + log.count("write", shared=False)
    return (counted["bytes"] + accesses * x.element_size()) / x.numel()


@contextmanager
def _bytes_counted() -> Iterator[Counter[str]]:
    """Count what kernels load and store by address, through lrscan.cuda.memory."""
    counted: Counter[str] = Counter()
    if find_spec("lrscan.cuda.simulated_memory") is None:
        yield counted
        return
    memory = import_module("lrscan.cuda.simulated_memory")
    kinds = import_module("lrscan.cuda.kinds").KINDS
    read, write = memory._read, memory._write

    def counted_read(kind, address, alignment):
        counted["bytes"] += kinds[kind].size
        return read(kind, address, alignment)

    def counted_write(kind, address, value, alignment):
        counted["bytes"] += kinds[kind].size
        write(kind, address, value, alignment)

    with (
        mock.patch.object(memory, "_read", counted_read),
        mock.patch.object(memory, "_write", counted_write),
    ):
        yield counted
