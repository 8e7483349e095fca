"""The operator: checks, dispatch to a backend, and every derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from lrscan import sweep

ALGORITHMS = {
    "cpu": ("auto", "serial", "blocked"),
    "cuda": ("auto", "serial_paper", "serial", "blocked"),
}
_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = {
    "cpu": (*_FLOATING, torch.complex64, torch.complex128),
    "cuda": (torch.float64, torch.float32, torch.complex64, torch.complex128),
}
_HALF = (torch.float16, torch.bfloat16)


def linear_recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None = None,
    *,
    dim: int = 0,
    reverse: bool = False,
    algorithm: str = "auto",
) -> Tensor:
    """``h[t] = a[t] * h[t-1] + x[t]`` along ``dim``, elementwise, in parallel over time.

    Differentiable in ``a``, ``x`` and ``h0``, to any order and in forward mode. With g the
    gradient at h through all later steps:

        g[t] = dh[t] + conj(a[t+1]) * g[t+1]      dx = g
        da[t] = conj(h[t-1]) * g[t]               dh0 = conj(a[0]) * g[0]

    Args:
        a:         coefficients, broadcastable with ``x``
        x:         inputs, any shape with an axis of time; T may be 0
        h0:        state before the first step, broadcastable to the shape of the result without
                   ``dim``; zero if None
        dim:       the axis of time
        reverse:   run from the last step to the first
        algorithm: "serial" (one thread a column), "blocked" (Algorithm 1 of the paper), on CUDA
                   also "serial_paper" (a plain loop, the paper's baseline), or "auto" (by shape)

    ``a``, ``x`` and ``h0`` have one dtype: float64, float32, complex64, complex128, on the CPU
    also float16 and bfloat16, which are accumulated in float32. With those, ``a`` and ``h0`` may
    be float32. All layouts are read in place.

    Returns:
        h, of the broadcast shape of ``a`` and ``x``, and with the dtype of ``x``. Within rounding
        of the serial loop as long as that does not overflow; the same inputs give the same bits
        on every run, with ``algorithm`` given or the number of threads unchanged.

    Raises:
        TypeError:  an argument of the wrong type, or a dtype that is not supported
        ValueError: shapes, devices, ``dim`` or ``algorithm`` that do not fit

    Source: Martin and Cundy 2018, arXiv:1709.04057, sections 2.2 and 2.3.
    """
    a, x, h0, dim = _checked(a, x, h0, dim, reverse, algorithm)
    return _LinearRecurrence.apply(a, x, h0, dim, reverse, algorithm)


class _LinearRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(a, x, h0, dim, reverse, algorithm):
        return sweep.forward(*map(_plain, (a, x, h0)), dim, reverse, algorithm)

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, _, h0, *ctx.options = inputs
        ctx.save_for_backward(a, h0, output)
        ctx.save_for_forward(a, h0, output)

    @staticmethod
    def backward(ctx, dh):
        a, h0, h = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            gradients = _differentiable_gradients(a, h, h0, dh, *ctx.options, wanted)
        else:
            tensors = map(_plain, (a, h, h0, dh))
            gradients = sweep.backward(*tensors, *ctx.options, wanted)
        return *gradients, None, None, None

    @staticmethod
    def jvp(ctx, a_tangent, x_tangent, h0_tangent, *_):
        a, h0, h = ctx.saved_tensors
        dim, reverse, algorithm = ctx.options
        impulse = torch.zeros_like(h) if x_tangent is None else x_tangent
        if a_tangent is not None:
            impulse = (impulse + a_tangent * _state_before(h, h0, dim, reverse)).to(h.dtype)
        return linear_recurrence(
            a, impulse, h0_tangent, dim=dim, reverse=reverse, algorithm=algorithm
        )

    @staticmethod
    def vmap(info, in_dims, a, x, h0, dim, reverse, algorithm):
        batched = [
            None if tensor is None else
            tensor.unsqueeze(0) if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip((a, x, h0), in_dims, strict=False)
        ]
        h = linear_recurrence(*batched, dim=dim + 1, reverse=reverse, algorithm=algorithm)
        return h.expand(info.batch_size, *h.shape[1:]), 0


def _differentiable_gradients(a, h, h0, dh, dim, reverse, algorithm, wanted):
    """(da, dx, dh0) made of differentiable operations, for derivatives of derivatives."""
    steps = h.shape[dim]
    if steps == 0:
        zero = None if h0 is None else torch.zeros_like(h0)
        return torch.zeros_like(a), torch.zeros_like(h), zero
    # The coefficient that leads out of step t is that of the step after it; the last has none.
    start, end = (steps - 1, 0) if reverse else (0, steps - 1)
    later = a.roll(1 if reverse else -1, dim)
    index = torch.tensor([end], device=a.device)
    later = later.index_fill(dim, index, 0).conj()
    g = linear_recurrence(later, dh, dim=dim, reverse=not reverse, algorithm=algorithm)
    da = dh0 = None
    if wanted[0]:
        da = (_state_before(h, h0, dim, reverse).conj() * g).to(a.dtype)
    if wanted[2]:
        dh0 = (a.select(dim, start).conj() * g.select(dim, start)).to(h0.dtype)
    return da, g, dh0


def _state_before(h: Tensor, h0: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """h one step earlier: h0 (or zero), then h without its last step."""
    steps = h.shape[dim]
    if steps == 0:
        return h
    first = h.select(dim, 0)
    start = (torch.zeros_like(first) if h0 is None else h0.to(h.dtype)).unsqueeze(dim)
    parts = [start, h.narrow(dim, 0, steps - 1)]
    if reverse:
        parts = [h.narrow(dim, 1, steps - 1), start]
    return torch.cat(parts, dim)


def _plain(tensor: Tensor | None) -> Tensor | None:
    """The tensor with conjugation and negation done in memory, where torch left them for later."""
    return None if tensor is None else tensor.resolve_conj().resolve_neg()


def _checked(a, x, h0, dim, reverse, algorithm):
    """The arguments, broadcast and with ``dim`` counted from the front, or an error."""
    tensors = {"a": a, "x": x} if h0 is None else {"a": a, "x": x, "h0": h0}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {tensor!r}")
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an int, not {dim!r}")
    if not isinstance(reverse, bool):
        raise TypeError(f"reverse must be a bool, not {reverse!r}")
    for name, tensor in tensors.items():
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}")
    if x.device.type not in ALGORITHMS:
        raise ValueError(f"x is on {x.device}; linear_recurrence runs on cpu and cuda")
    if algorithm not in ALGORITHMS[x.device.type]:
        choices = ", ".join(map(repr, ALGORITHMS[x.device.type]))
        raise ValueError(f"algorithm on {x.device.type} is one of {choices}, not {algorithm!r}")
    if x.dtype not in DTYPES[x.device.type]:
        choices = ", ".join(str(dtype) for dtype in DTYPES[x.device.type])
        raise TypeError(f"x on {x.device.type} has one of the dtypes {choices}, not {x.dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != x.dtype and not (x.dtype in _HALF and tensor.dtype == torch.float32):
            raise TypeError(f"{name} is {tensor.dtype}, but x is {x.dtype}")
    try:
        shape = torch.broadcast_shapes(a.shape, x.shape)
    except RuntimeError:
        raise ValueError(
            f"a has shape {tuple(a.shape)}, which does not broadcast with x {tuple(x.shape)}"
        ) from None
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"dim is {dim}, but a and x broadcast to the shape {tuple(shape)}")
    dim %= len(shape)
    if h0 is not None:
        columns = shape[:dim] + shape[dim + 1 :]
        try:
            h0 = h0.expand(columns)
        except RuntimeError:
            raise ValueError(
                f"h0 has shape {tuple(h0.shape)}; it must broadcast to {tuple(columns)}, "
                f"the shape {tuple(shape)} without dim {dim}"
            ) from None
    return a.expand(shape), x.expand(shape), h0, dim
