"""Precision of float32 in matrix products and recurrent nets on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32 in matrix products and in cuDNN's recurrent nets, and restore both afterwards.

    By default torch allows TF32 in cuDNN's recurrent nets but not in matrix products, so a
    comparison of the two would favour the former.
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
