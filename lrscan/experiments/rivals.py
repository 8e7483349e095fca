"""Other implementations of the recurrence, to measure next to the operator.

None of them is a dependency: ``pip install "lrscan[rivals]"`` installs those that need no compiler.
If one is not installed, does not take the tensors or fails, the records give the reason.
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
    """Another implementation and the way to time it.

    Attributes:
        make:  from (a, x, dim) to a call that computes h of the same shape, from h0 = 0; copying
               the inputs to the implementation's layout is not part of the call
        clock: the clock for a GPU, see :func:`lrscan.experiments.timing.time_all`
    """

    make: Callable[[Tensor, Tensor, int], Callable[[], Tensor]]
    clock: str


def prepare(
    names: Iterable[str], a: Tensor, x: Tensor, dim: int
) -> tuple[dict[str, Callable[[], Tensor]], dict[str, str]]:
    """Return calls that compute the recurrence, and for each missing rival the reason."""
    calls: dict[str, Callable[[], Tensor]] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            calls[name] = RIVALS[name].make(a, x, dim)
        except Exception as error:
            reasons[name] = reason(error)
    return calls, reasons


def reason(error: Exception) -> str:
    """Return an error as one line, without the folders of this machine."""
    lines = str(error).strip().splitlines()
    words = (lines[0] if lines else "").split()
    kept = " ".join("..." if "/" in word else word for word in words)
    return f"{type(error).__name__}: {kept[:200]}" if kept else type(error).__name__


def _rows(tensor: Tensor, dim: int) -> Tensor:
    """Return a tensor in the shape (1, columns, time), contiguous in time."""
    return tensor.movedim(dim, -1).reshape(1, -1, tensor.shape[dim]).contiguous()


def _accelerated_scan(*modules: str) -> Callable[[Tensor, Tensor, int], Callable[[], Tensor]]:
    """Return a maker for a kernel of accelerated-scan; its shape is (batch, channels, T)."""

    def make(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
        gates, tokens = (
            t.contiguous() if t.dim() == 3 and dim == 2 else _rows(t, dim) for t in (a, x)
        )
        if modules == ("warp",) and (steps := gates.shape[-1]) not in _WARP_STEPS:
            raise ValueError(f"{steps:,} steps: it takes powers of two from 32 to 65,536")
        scan = _first_of(*(f"accelerated_scan.{module}" for module in modules)).scan
        shape = x.movedim(dim, -1).shape
        return lambda: scan(gates, tokens).reshape(shape).movedim(-1, dim)

    return make


_WARP_STEPS = [2**k for k in range(5, 17)]


def _first_of(*names: str) -> ModuleType:
    """Import and return the first of these modules that is installed."""
    *others, last = names
    for name in others:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "."):
                raise
    return importlib.import_module(last)


def _torchlpc(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    """Return a call of torchlpc, whose shape is (batch, T).

    On a GPU it is the paper's algorithm in Numba; on a CPU it is y[t] = x[t] - A[t] y[t-1].
    """
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
    """Compose two affine maps, ``first`` and then ``second``."""
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
    # Otherwise JAX reserves three quarters of the GPU's memory, where our tensors are.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = importlib.import_module("jax")
    scan = jax.jit(lambda a, x: jax.lax.associative_scan(_compose, (a, x), axis=dim)[1])
    arrays = [jax.dlpack.from_dlpack(t.contiguous()) for t in (a, x)]
    return lambda: torch.from_dlpack(scan(*arrays).block_until_ready())


RIVALS = {
    "accelerated-scan warp": Rival(_accelerated_scan("warp"), "stream"),
    # From version 0.3 on the module is called "scalar".
    "accelerated-scan triton": Rival(_accelerated_scan("triton", "scalar"), "stream"),
    "torchlpc": Rival(_torchlpc, "stream"),
    "jax associative_scan": Rival(_jax_associative_scan, "host"),
    "torch associative_scan": Rival(_torch_associative_scan, "stream"),
}
