"""Bytes moved by the package's CUDA kernels, counted in the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import lrscan.learn.machines.simulator  # noqa: F401  before anything that uses numba.cuda

# isort: split
import torch

from lrscan.core import sweep
from lrscan.cuda.memory import simulator


def bytes_moved(algorithm: str, steps: int, columns: int, *, backward: bool = False) -> float:
    """Return the bytes per element that a kernel of the package moves, in float32.

    Every access counts, also one that a cache would serve on a GPU.

    Args:
        algorithm: one of ``lrscan.core.checks.ALGORITHMS["cuda"]``
        steps:     the length of the sequence
        columns:   the number of independent recurrences
        backward:  count the sweep for the gradients instead of the forward one
    """
    a, x = torch.full((steps, columns), 0.5), torch.ones(steps, columns)
    h = sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    with _sizes_of_accesses() as sizes:
        if backward:
            outputs = torch.empty_like(h), torch.empty_like(h), None
            sweep.backward(a, h, None, x, 0, False, algorithm, None, outputs, backend="cuda")
        else:
            sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    return sum(sizes) / x.numel()


@contextmanager
def _sizes_of_accesses() -> Iterator[list[int]]:
    """Collect the bytes of every load and store of a kernel."""
    sizes: list[int] = []  # a list, because threads of the simulator would lose counts of a sum
    read, write = simulator._read, simulator._write

    def counted_read(kind: str, address: int, alignment: int) -> Any:
        sizes.append(simulator.number_bytes(kind))
        return read(kind, address, alignment)

    def counted_write(kind: str, address: int, value: Any, alignment: int) -> None:
        sizes.append(simulator.number_bytes(kind))
        write(kind, address, value, alignment)

    with (
        mock.patch.object(simulator, "_read", counted_read),
        mock.patch.object(simulator, "_write", counted_write),
    ):
        yield sizes
