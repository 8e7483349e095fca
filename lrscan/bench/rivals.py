"""Other implementations of the recurrence, each in the layout that suits it best.

None of them is a dependency: ``pip install "lrscan[rivals]"`` brings those that PyPI has for a
CPU. What is not installed is left out of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor


def rivals(a: Tensor, x: Tensor, dim: int) -> dict[str, Callable[[], Tensor]]:
    """Calls that compute the recurrence from h0 = 0; each returns h with time as its axis ``dim``.

    The inputs are copied to the layout of a rival here, so that its call is timed without that.
    """
    makers = {"torch associative_scan": _torch_associative_scan}
    if find_spec("torchlpc"):
        makers["torchlpc"] = _torchlpc
    if find_spec("jax"):
        makers["jax associative_scan"] = _jax_associative_scan
    return {name: make(a, x, dim) for name, make in makers.items()}


def _torchlpc(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    """y[t] = x[t] - A[t] y[t-1], for tensors of shape (batch, T)."""
    from torchlpc import sample_wise_lpc

    shape = x.movedim(dim, -1).shape
    rows = x.movedim(dim, -1).reshape(-1, shape[-1]).contiguous()
    coefficients = -a.movedim(dim, -1).reshape(-1, shape[-1]).contiguous().unsqueeze(-1)
    return lambda: sample_wise_lpc(rows, coefficients).reshape(shape).movedim(-1, dim)


def _compose(first, second):
    """The affine map ``first`` and then ``second``."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _torch_associative_scan(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    from torch._higher_order_ops.associative_scan import associative_scan

    mode = "pointwise" if x.device.type == "cuda" else "generic"

    def scan(a, x):
        return associative_scan(_compose, (a, x), dim, combine_mode=mode)[1]

    if x.device.type == "cuda":
        scan = torch.compile(scan, fullgraph=True)
    return lambda: scan(a, x)


def _jax_associative_scan(a: Tensor, x: Tensor, dim: int) -> Callable[[], Tensor]:
    import jax

    scan = jax.jit(lambda a, x: jax.lax.associative_scan(_compose, (a, x), axis=dim)[1])
    arrays = [jax.dlpack.from_dlpack(t.contiguous()) for t in (a, x)]
    return lambda: torch.from_dlpack(scan(*arrays).block_until_ready())
