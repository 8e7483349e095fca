"""Implementations of the recurrence operators. :mod:`lrscan.core.torch_library` registers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrscan.core import autograd, gradients, sweep
from lrscan.core.autograd import plain
from lrscan.core.checks import check
from lrscan.core.torch_internals import (
    SingleLevelFunction,
    below_autograd,
    single_level_functions,
)


def linear_recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
) -> Tensor:
    dim = check(a, x, h0, dim, reverse, algorithm, cu_seqlens)
    return sweep.forward(plain(a), plain(x), plain(h0), dim, reverse, algorithm, cu_seqlens)


def linear_recurrence_fake(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
) -> Tensor:
    check(a, x, h0, dim, reverse, algorithm, cu_seqlens)
    if x.is_complex() and torch.onnx.is_in_onnx_export():  # it would ignore our translation
        raise NotImplementedError(
            f"x is {x.dtype}, but linear_recurrence exports to ONNX for real tensors only; use "
            "torch.export or torch.jit.trace for complex ones"
        )
    return sweep.empty_output(a, x)


def linear_recurrence_backward(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    x_shape: Sequence[int],
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
    wanted: Sequence[bool],
) -> list[Tensor]:
    tensors = plain(a), plain(h), plain(h0), plain(dh)
    found = gradients.backward(*tensors, x_shape, dim, reverse, algorithm, cu_seqlens, wanted)
    return [gradient for gradient in found if gradient is not None]


def linear_recurrence_backward_fake(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    x_shape: Sequence[int],
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
    wanted: Sequence[bool],
) -> list[Tensor]:
    found = gradients.empty_gradients(a, h, h0, x_shape, wanted)
    return [gradient for gradient in found if gradient is not None]


class Differentiated(SingleLevelFunction):
    """The recurrence with its gradients, at a single level of torch.func or outside it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, h0: Tensor | None, *options: Any) -> Tensor:
        with torch.enable_grad():  # torch turns it off here, but outer levels need it
            h = _below(a, x, h0, *options)
        *ctx.options, cu_seqlens = options
        ctx.x_shape, ctx.rank = x.shape, h.dim()
        # The gradients of x and h0 need the coefficients only.
        ctx.save_for_backward(a, h0, h if ctx.needs_input_grad[0] else None, cu_seqlens)
        return h

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        a, h0, h, cu_seqlens = ctx.saved_tensors
        dim, reverse, algorithm = ctx.options
        wanted = ctx.needs_input_grad[:3]
        options = (ctx.x_shape, dim % ctx.rank, reverse, algorithm, cu_seqlens)
        return *autograd.backward(a, h, h0, dh, options, wanted), None, None, None, None


def _below(a: Tensor, x: Tensor, h0: Tensor | None, *options: Any) -> Tensor:
    """Compute the recurrence without gradients at this level."""
    with below_autograd():
        return torch.ops.lrscan.linear_recurrence(a, x, h0, *options)


def differentiated_recurrence(a: Tensor, x: Tensor, h0: Tensor | None, *options: Any) -> Tensor:
    tensors = (a, x) if h0 is None else (a, x, h0)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        with single_level_functions():
            apply: Any = Differentiated.apply  # type: ignore[attr-defined]  # made by its metaclass
            return apply(a, x, h0, *options)
    return _below(a, x, h0, *options)


batched_recurrence = autograd.batched
