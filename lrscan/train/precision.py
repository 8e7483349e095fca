"""The precision of float32 products and recurrent nets on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in float32 for a while: no TF32 in matrix products, nor in cuDNN's RNNs.

    torch lets cuDNN's recurrent nets use TF32 by default and matrix products not, so that a
    comparison of the two would favour the first.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
