"""Argument checks of the operator, and the errors that they raise."""

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
    """Return (a, x, h0) as tensors of compatible dtypes where a cast can make them so.

    Under autocast, all tensors are cast to the widest of their dtypes. A number for ``a`` becomes a
    tensor without axes. It has the dtype of ``x``, or float32 if ``x`` has half precision. Real
    ``a`` and ``h0`` become complex if ``x`` is complex of the same precision. Anything else that is
    not a tensor is returned unchanged, and :func:`check` refuses it.
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
            raise TypeError(f"a is a complex number, but x is {x.dtype}; use a complex x")
        dtype = state_dtype(x.dtype) if x.dtype in HALF else x.dtype
        a = torch.full((), a, dtype=dtype, device=x.device)
    if (real := REAL.get(x.dtype)) is not None:
        a, h0 = (t.to(x.dtype) if isinstance(t, Tensor) and t.dtype == real else t for t in (a, h0))
    return a, x, h0


def said(thing: object) -> str:
    """Describe a value for an error message: its type, and its shape or short value.

    The contents are left out, because they may be long.
    """
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
    """Check the arguments of the operator.

    Args:
        a, x, h0, dim, reverse, algorithm: as in :func:`lrscan.linear_recurrence`
        cu_seqlens: the steps where packed sequences begin, and the end of the last one; int64 on
            the CPU. None for a single sequence
        state: the name of h0 in error messages

    Returns:
        ``dim``, counted from the front of the broadcast shape of ``a`` and ``x``.

    Raises:
        TypeError: a wrong type, layout or dtype
        ValueError: a shape, device, ``dim``, ``algorithm`` or ``cu_seqlens`` that does not fit
    """
    tensors = {"x": x, "a": a} if h0 is None else {"x": x, "a": a, state: h0}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            kinds = "a tensor or a number" if name == "a" else "a tensor"
            raise TypeError(f"{name} must be {kinds}, not {said(tensor)}")
        if tensor.layout is not torch.strided:
            raise TypeError(
                f"{name} has the layout {tensor.layout}, but must have torch.strided; "
                "for sequences of unequal length, use cu_seqlens"
            )
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an int, not {said(dim)}")
    if not isinstance(reverse, bool):
        raise TypeError(f"reverse must be a bool, not {said(reverse)}")
    device, dtype = x.device, x.dtype
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(
                f"{name} is on {tensor.device}, but x is on {device}; move them to one device"
            )
    kind = "cuda" if device.type == "meta" else device.type  # only shapes matter on meta
    if kind not in ALGORITHMS:
        raise ValueError(f"x is on {device}; linear_recurrence runs on cpu and cuda")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS[kind]:
        choices = ", ".join(map(repr, ALGORITHMS[kind]))
        raise ValueError(f"algorithm on {kind} must be one of {choices}, not {said(algorithm)}")
    if dtype not in DTYPES:
        choices = ", ".join(map(str, DTYPES))
        raise TypeError(f"x on {kind} must have one of the dtypes {choices}, not {dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != dtype and tensor.dtype != state_dtype(dtype):
            raise TypeError(f"{name} is {tensor.dtype}, but x is {dtype}; cast one of them")
    try:
        shape = broadcast_shape(a, x)
    except RuntimeError:
        raise ValueError(
            f"a has shape {tuple(a.shape)}, "
            f"which does not broadcast with the shape {tuple(x.shape)} of x"
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
                + ("without" if cu_seqlens is None else "with sequences instead of steps in")
                + f" dim {dim}"
            ) from None
    return dim


def lengths_on_the_host(cu_seqlens: Any) -> Tensor:
    """Return the cumulative lengths of packed sequences as int64 on the CPU.

    Raises:
        TypeError: not a tensor of int32 or int64
        ValueError: not of shape (N + 1,)
    """
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
        return  # the values are known only at run time
    if cu_seqlens[0] != 0:
        raise ValueError(f"cu_seqlens must begin with 0, not {cu_seqlens[0]}")
    if (falls := (cu_seqlens[1:] < cu_seqlens[:-1]).nonzero()).numel():
        at = int(falls[0])
        before, after = cu_seqlens[at : at + 2]
        raise ValueError(
            f"cu_seqlens must not decrease: element {at} is {before}, element {at + 1} is {after}"
        )
    if cu_seqlens[-1] > steps:
        raise ValueError(f"cu_seqlens ends with {cu_seqlens[-1]}, but dim {dim} has {steps} steps")
