"""What the operator accepts, and the errors for everything else."""

from __future__ import annotations

import functools
import reprlib
from typing import Any

import torch
from torch import Tensor

from lrscan.core.dtypes import DTYPES, HALF, REAL, state_dtype
from lrscan.core.sweep import broadcast_shape, state_shape
from lrscan.core.torch_internals import is_fake

ALGORITHMS = {
    "cpu": ("auto", "serial", "blocked"),
    "cuda": ("auto", "serial_paper", "serial", "blocked", "single_pass"),
}
_NUMBER = (int, float, complex)


def converted(a: Any, x: Any, h0: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments as tensors of dtypes that go together, as far as a cast makes them so.

    Under autocast all take the widest of their dtypes. A number for ``a`` becomes a tensor of no
    axes, with the dtype of x, or float32 where that is of half precision. Real ``a`` and ``h0``
    become complex where x is so, of the same precision. What is no tensor is left for
    :func:`check` to refuse.
    """
    if not isinstance(x, Tensor):
        return a, x, h0
    device = x.device.type
    if device in ALGORITHMS and torch.is_autocast_enabled(device):
        given = [t.dtype for t in (a, x, h0) if isinstance(t, Tensor)]
        widest = functools.reduce(torch.promote_types, given)
        a, x, h0 = (t.to(widest) if isinstance(t, Tensor) else t for t in (a, x, h0))
    if isinstance(a, _NUMBER) and not isinstance(a, bool):
        if isinstance(a, complex) and not x.is_complex():
            raise TypeError(f"a is a complex number, but x is {x.dtype}")
        dtype = state_dtype(x.dtype) if x.dtype in HALF else x.dtype
        a = torch.full((), a, dtype=dtype, device=x.device)
    if (real := REAL.get(x.dtype)) is not None:
        a, h0 = (t.to(x.dtype) if isinstance(t, Tensor) and t.dtype == real else t for t in (a, h0))
    return a, x, h0


def said(thing: object) -> str:
    """What a thing is, for an error: not what it holds, which may be much."""
    if isinstance(shape := getattr(thing, "shape", None), tuple):
        return f"{type(thing).__name__} of shape {tuple(shape)}"
    if thing is None or isinstance(thing, (bool, str, torch.dtype, *_NUMBER)):
        return reprlib.repr(thing)
    return type(thing).__name__


def check(
    a: Any,
    x: Any,
    h0: Any,
    dim: Any,
    reverse: Any,
    algorithm: Any,
    cu_seqlens: Tensor | None = None,
    state: str = "h0",
) -> int:
    """``dim``, counted from the front of the broadcast shape; or the error that fits.

    ``cu_seqlens`` are the steps where packed sequences begin and the last one ends, if there are
    several; ``state`` is what errors call h0.
    """
    tensors = {"x": x, "a": a} if h0 is None else {"x": x, "a": a, state: h0}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            kinds = "a tensor or a number" if name == "a" else "a tensor"
            raise TypeError(f"{name} must be {kinds}, not {said(tensor)}")
        if tensor.layout is not torch.strided:
            raise TypeError(
                f"{name} has the layout {tensor.layout}, not torch.strided; for sequences of "
                "unequal length there is cu_seqlens"
            )
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an int, not {said(dim)}")
    if not isinstance(reverse, bool):
        raise TypeError(f"reverse must be a bool, not {said(reverse)}")
    device, dtype = x.device, x.dtype
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, but x is on {device}")
    kind = "cuda" if device.type == "meta" else device.type  # only shapes matter there
    if kind not in ALGORITHMS:
        raise ValueError(f"x is on {device}; linear_recurrence runs on cpu and cuda")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS[kind]:
        choices = ", ".join(map(repr, ALGORITHMS[kind]))
        raise ValueError(f"algorithm on {kind} is one of {choices}, not {said(algorithm)}")
    if dtype not in DTYPES:
        choices = ", ".join(map(str, DTYPES))
        raise TypeError(f"x on {kind} has one of the dtypes {choices}, not {dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != dtype and tensor.dtype != state_dtype(dtype):
            raise TypeError(f"{name} is {tensor.dtype}, but x is {dtype}")
    try:
        shape = broadcast_shape(a, x)
    except RuntimeError:
        raise ValueError(
            f"a has shape {tuple(a.shape)}, which does not broadcast with x {tuple(x.shape)}"
        ) from None
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"dim is {dim}, but a and x broadcast to the shape {tuple(shape)}")
    dim %= len(shape)
    if cu_seqlens is not None:
        _check_lengths(cu_seqlens, shape[dim], dim)
    if h0 is not None:
        columns = state_shape(shape, dim, cu_seqlens)
        try:
            h0.expand(columns)
        except RuntimeError:
            raise ValueError(
                f"{state} has shape {tuple(h0.shape)}; it must broadcast to {tuple(columns)}, "
                f"the shape {tuple(shape)} "
                + ("without" if cu_seqlens is None else "with the sequences as")
                + f" dim {dim}"
            ) from None
    return dim


def lengths_on_the_host(cu_seqlens: Any) -> Tensor:
    """Cumulative lengths of packed sequences as int64 on the CPU, or the error that fits."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        found = cu_seqlens.dtype if isinstance(cu_seqlens, Tensor) else said(cu_seqlens)
        raise TypeError(f"cu_seqlens must be a tensor of int32 or int64, not {found}")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2:
        raise ValueError(
            f"cu_seqlens has shape {tuple(cu_seqlens.shape)}; it must be (N + 1,) for N sequences"
        )
    return cu_seqlens.to("cpu", torch.int64)


def _check_lengths(cu_seqlens: Tensor, steps: int, dim: int) -> None:
    if torch.compiler.is_compiling() or is_fake(cu_seqlens):
        return  # known when it runs
    if cu_seqlens[0] != 0:
        raise ValueError(f"cu_seqlens must begin with 0, not {cu_seqlens[0]}")
    if (falls := (cu_seqlens[1:] < cu_seqlens[:-1]).nonzero()).numel():
        at = int(falls[0])
        before, after = cu_seqlens[at : at + 2]
        raise ValueError(f"cu_seqlens must not fall: [{at}] is {before}, [{at + 1}] {after}")
    if cu_seqlens[-1] > steps:
        raise ValueError(f"cu_seqlens ends with {cu_seqlens[-1]}, but dim {dim} has {steps} steps")
