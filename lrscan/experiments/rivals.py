"""Other implementations of the recurrence, to measure beside the operator.

None of them is a dependency: ``pip install "lrscan[rivals]"`` brings those that need no compiler.
The records name those that are not installed, do not take the tensors or fail, with the reason.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from lrscan.core import torch_internals


class Rival(NamedTuple):
    """An implementation.

    make   from (a, x, dim) to what computes h of that shape, from h0 = 0: the copy of the inputs to
           the layout that it wants is not in its time
    clock  how it is timed on a GPU, see :func:`lrscan.experiments.timing.time_all`
    """

    make: Callable[[Tensor, Tensor, int], Callable[[], Tensor]]
    clock: str


def prepare(
    names: Iterable[str], a: Tensor, x: Tensor, dim: int
) -> tuple[dict[str, Callable[[], Tensor]], dict[str, str]]:
    """(calls, reasons): calls that compute the recurrence, and why others of ``names`` do not."""
    calls: dict[str, Callable[[], Tensor]] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            calls[name] = RIVALS[name].make(a, x, dim)
        except Exception as error:
            reasons[name] = reason(error)
    return calls, reasons


def reason(error: Exception) -> str:
    """An error in a line, without the folders of this machine."""
    lines = str(error).strip().splitlines()
    words = (lines[0] if lines else "").split()
    kept = " ".join("..." if "/" in word else word for word in words)
    return f"{type(error).__name__}: {kept[:200]}" if kept else type(error).__name__


def _rows(tensor: Tensor, dim: int) -> Tensor:
    """(1, columns, time), contiguous in time."""
    return tensor.movedim(dim, -1).reshape(1, -1, tensor.shape[dim]).contiguous()


def _accelerated_scan(*modules: str) -> Callable[[Tensor, Tensor, int], Callable[[], Tensor]]:
    """A kernel of accelerated-scan, for tensors of shape (batch, channels, T)."""

    def make(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
        gates, tokens = (
            t.contiguous() if t.dim() == 3 and dim == 2 else _rows(t, dim) for t in (a, x)
        )
        if modules == ("warp",) and (steps := gates.shape[-1]) not in _WARP_STEPS:
            raise ValueError(f"takes powers of two from 32 to 65,536 steps, not {steps:,}")
        scan = _first_of(*(f"accelerated_scan.{module}" for module in modules)).scan
        shape = x.movedim(dim, -1).shape
        return lambda: scan(gates, tokens).reshape(shape).movedim(-1, dim)

    return make


_WARP_STEPS = [2**k for k in range(5, 17)]


def _first_of(*names: str) -> ModuleType:
    """The first of these modules that there is."""
    *others, last = names
    for name in others:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "."):
                raise
    return importlib.import_module(last)


def _torchlpc(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    """The paper's algorithm in Numba on a GPU; y[t] = x[t] - A[t] y[t-1] on a CPU: (batch, T)."""
    shape = x.movedim(dim, -1).shape
    coefficients, inputs = (_rows(t, dim)[0] for t in (a, x))
    if x.device.type == "cuda":
        recurrence = importlib.import_module("torchlpc.recurrence").RecurrenceCUDA
        start = x.new_zeros(len(inputs))
        return lambda: recurrence.apply(coefficients, inputs, start).reshape(shape).movedim(-1, dim)
    filtered = importlib.import_module("torchlpc").sample_wise_lpc
    negative = -coefficients.unsqueeze(-1)
    return lambda: filtered(inputs, negative).reshape(shape).movedim(-1, dim)


def _compose(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The affine map ``first`` and then ``second``."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _torch_associative_scan(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    scanned = torch_internals.associative_scan()
    mode = "pointwise" if x.device.type == "cuda" else "generic"

    def scan(a: Tensor, x: Tensor) -> Tensor:
        return scanned(_compose, (a, x), dim, combine_mode=mode)[1]

    if x.device.type == "cuda":
        scan = torch.compile(scan, fullgraph=True, dynamic=False)
    return lambda: scan(a, x)


def _jax_associative_scan(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    # Without this it takes three quarters of a GPU's memory, where our tensors are.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = importlib.import_module("jax")
    scan = jax.jit(lambda a, x: jax.lax.associative_scan(_compose, (a, x), axis=dim)[1])
    arrays = [jax.dlpack.from_dlpack(t.contiguous()) for t in (a, x)]
    return lambda: torch.from_dlpack(scan(*arrays).block_until_ready())


RIVALS = {
    "accelerated-scan warp": Rival(_accelerated_scan("warp"), "stream"),
    # Its module is called "scalar" from version 0.3 on.
    "accelerated-scan triton": Rival(_accelerated_scan("triton", "scalar"), "stream"),
    "torchlpc": Rival(_torchlpc, "stream"),
    "jax associative_scan": Rival(_jax_associative_scan, "host"),
    "torch associative_scan": Rival(_torch_associative_scan, "stream"),
}
