"""The derivatives of the recurrence, for torch.autograd and torch.func."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from lrscan.core import dispatch, gradients, sweep
from lrscan.core.dtypes import HALF, state_dtype
from lrscan.core.gradients import Gradients
from lrscan.core.torch_internals import (
    below_autograd,
    dispatch_modes,
    forward_ad_is_on,
    function_mode_is_on,
    is_batched,
    is_tracing,
    jvp_levels,
    only_the_default_device,
    transforms_are_active,
)


def recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Compute the recurrence of checked arguments, with every derivative that may be needed.

    ``cu_seqlens`` is as in :func:`lrscan.core.sweep.forward`.
    """
    options = (dim, reverse, algorithm, cu_seqlens)
    if type(x) not in _PLAIN or type(a) not in _PLAIN:
        if _is_distributed(a, x, h0):
            rule = dispatch.found(dispatch.DTENSOR_RULE)
            return rule(recurrence, a, x, h0, *options[:3], cu_seqlens=cu_seqlens)
    if torch.compiler.is_compiling():
        if forward_ad_is_on():
            raise NotImplementedError(
                "linear_recurrence has no forward-mode derivative within torch.compile"
            )
        return torch.ops.lrscan.linear_recurrence(a, x, h0, *options)
    if transforms_are_active():
        if jvp_levels() > 1:  # torch would silently drop tangents
            raise NotImplementedError(
                "linear_recurrence has no derivative in forward mode over forward mode; use "
                "reverse mode for one of them, as torch.func.jacfwd(torch.func.jacrev(...)) does"
            )
        return TransformableRecurrence.apply(a, x, h0, *options)
    if forward_ad_is_on():  # the dispatcher would drop tangents
        return Recurrence.apply(a, x, h0, *options)
    if intercepted(a, x, h0):
        return torch.ops.lrscan.linear_recurrence(a, x, h0, *options)
    if _needs_gradients(a, x, h0):
        return Recurrence.apply(a, x, h0, *options)
    return sweep.forward(plain(a), plain(x), plain(h0), *options)


def one_step(a: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """Compute one step of the recurrence from the state h; checked arguments, no time axis."""
    return recurrence(a.unsqueeze(0), x.unsqueeze(0), h, 0, False, "auto").squeeze(0)


def _evaluated(a: Tensor, x: Tensor, h0: Tensor | None, *options: Any) -> Tensor:
    """Compute the recurrence inside an autograd function, which provides the derivatives."""
    if intercepted(a, x, h0):
        with below_autograd():
            return torch.ops.lrscan.linear_recurrence(a, x, h0, *options)
    return sweep.forward(plain(a), plain(x), plain(h0), *options)


def intercepted(a: Tensor, x: Tensor, h0: Tensor | None) -> bool:
    """Return True if the call must go through torch's dispatcher.

    That is so for a mode (fake tensors, tracing), for a subclass of Tensor, and for tensors without
    memory of their own (meta tensors, batches of gradients).
    """
    return bool(
        dispatch_modes()
        or (function_mode_is_on() and not only_the_default_device())
        or type(a) not in _PLAIN
        or type(x) not in _PLAIN
        or (h0 is not None and type(h0) not in _PLAIN)
        or x.is_meta
        or is_batched(a)
        or is_batched(x)
        or (h0 is not None and is_batched(h0))
        or is_tracing()
    )


def _is_distributed(*tensors: Tensor | None) -> bool:
    """Return True if any of them is a DTensor. Without its module loaded, there can be none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(t, module.DTensor) for t in tensors)


_PLAIN = (Tensor, torch.nn.Parameter)


def needs_derivatives(a: Tensor, x: Tensor, h0: Tensor | None) -> bool:
    """Return True if a derivative may be needed, in any mode."""
    return _needs_gradients(a, x, h0) or forward_ad_is_on() or transforms_are_active()


def _needs_gradients(a: Tensor, x: Tensor, h0: Tensor | None) -> bool:
    """Return True if a derivative may be needed in reverse mode, outside torch.func."""
    return torch.is_grad_enabled() and (
        a.requires_grad or x.requires_grad or (h0 is not None and h0.requires_grad)
    )


class Recurrence(torch.autograd.Function):
    """The recurrence as an autograd function: derivatives of any order, and forward mode.

    Call ``apply(a, x, h0, dim, reverse, algorithm, cu_seqlens)`` with checked arguments.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, h0: Tensor | None, *options: Any) -> Tensor:
        if forward_ad_is_on():
            h = _evaluated(a, x, h0, *options)
        else:
            h = sweep.forward(plain(a), plain(x), plain(h0), *options)
        _save(ctx, a, x, h0, options, h)
        return h

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        a, h0, h = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        found = backward(a, h, h0, dh, (ctx.x_shape, *ctx.options), wanted)
        return *found, None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any,
        a_tangent: Tensor | None,
        x_tangent: Tensor | None,
        h0_tangent: Tensor | None,
        *_: Any,
    ) -> Tensor:
        a, h0, h = ctx.saved_tensors
        dim, reverse, _, cu_seqlens = ctx.options
        impulse = torch.zeros_like(h) if x_tangent is None else x_tangent
        if a_tangent is not None:
            # A step of the recurrence, where zero times NaN is zero. torch would give NaN.
            before = _state_before(h, h0, dim, reverse, cu_seqlens)
            impulse = one_step(a_tangent, impulse, before)
        return recurrence(a, impulse, h0_tangent, *ctx.options)


class TransformableRecurrence(Recurrence):
    """The same in the form that torch.func can transform. A call of it costs more."""

    @staticmethod
    def forward(  # type: ignore[override]  # torch takes either form
        a: Tensor, x: Tensor, h0: Tensor | None, *options: Any
    ) -> Tensor:
        return _evaluated(a, x, h0, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, x, h0, *options = inputs
        _save(ctx, a, x, h0, options, output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return batched(info, in_dims, *args)


def batched(
    info: Any,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, int]:
    """Vmap rule: the batch becomes one more axis of columns, in front.

    Returns:
        (h, the axis of the batch in it)
    """
    rank = max(
        tensor.dim() - (axis is not None) for tensor, axis in zip((a, x), in_dims, strict=False)
    )
    dim %= rank
    of_a, of_x, of_h0 = in_dims[:3]
    if of_a is None and of_x is None:  # only h0 is batched
        x = x.expand(info.batch_size, *sweep.broadcast_shape(a, x))
    a = a if of_a is None else _batch_first(a, of_a, rank)
    x = x if of_x is None else _batch_first(x, of_x, rank)
    if h0 is not None and of_h0 is not None:
        h0 = _batch_first(h0, of_h0, rank - (cu_seqlens is None))
    return recurrence(a, x, h0, dim + 1, reverse, algorithm, cu_seqlens), 0


def _batch_first(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """Move the batched axis in front of ``rank`` others; missing axes become axes of size one."""
    tensor = tensor.movedim(axis, 0)
    missing = rank - (tensor.dim() - 1)
    return tensor.reshape(tensor.shape[:1] + (1,) * missing + tensor.shape[1:])


def _save(
    ctx: Any, a: Tensor, x: Tensor, h0: Tensor | None, options: Sequence[Any], h: Tensor
) -> None:
    ctx.options, ctx.x_shape = options, x.shape
    # The gradients of x and h0 need the coefficients only. Forward mode needs everything.
    kept = h if ctx.needs_input_grad[0] or forward_ad_is_on() else None
    ctx.save_for_backward(a, h0, kept)
    ctx.save_for_forward(a, h0, h)


# (shape of x, dim, reverse, algorithm, cu_seqlens)
Options = tuple[Sequence[int], int, bool, str, Tensor | None]


def backward(
    a: Tensor,
    h: Tensor | None,
    h0: Tensor | None,
    dh: Tensor,
    options: Options,
    wanted: Sequence[bool],
) -> Gradients:
    """Return (da, dx, dh0), each None if not wanted. h may be None if da is not wanted."""
    h = dh if h is None else h
    compiling = torch.compiler.is_compiling()
    if torch.is_grad_enabled() or transforms_are_active() or (not compiling and is_batched(dh)):
        return differentiable_gradients(a, h, h0, dh, options, wanted)
    if compiling or intercepted(a, dh, h0):
        found = torch.ops.lrscan.linear_recurrence_backward(a, h, h0, dh, *options, list(wanted))
        given = iter(found)
        da, dx, dh0 = (next(given) if want else None for want in wanted)
        return da, dx, dh0
    return gradients.backward(plain(a), plain(h), plain(h0), plain(dh), *options, wanted)


def differentiable_gradients(
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    dh: Tensor,
    options: Options,
    wanted: Sequence[bool],
) -> Gradients:
    """Return (da, dx, dh0) from differentiable operations, for higher derivatives."""
    x_shape, dim, reverse, algorithm, cu_seqlens = options
    dtypes = a.dtype, h.dtype, h.dtype if h0 is None else h0.dtype
    if h.dtype in HALF:  # in float32, as in a sweep
        wide = state_dtype(h.dtype)
        a, h, dh = a.to(wide), h.to(wide), dh.to(wide)
        h0 = None if h0 is None else h0.to(wide)
    if h.shape[dim] == 0:
        zero = None if h0 is None else torch.zeros_like(h0)
        return _as(dtypes, torch.zeros_like(a), h.new_zeros(x_shape), zero)
    # The coefficient from step t to the next is that of the next step. The last step has none.
    along = a.expand(h.shape)
    sequences, starts, ends = _ends(h.shape[dim], reverse, cu_seqlens, h.device)
    later = along.roll(1 if reverse else -1, dim).index_fill(dim, ends, 0).conj()
    g = recurrence(later, dh, None, dim, not reverse, algorithm, cu_seqlens)
    da = dx = dh0 = None
    if wanted[0]:
        da = (_state_before(h, h0, dim, reverse, cu_seqlens).conj() * g).sum_to_size(a.shape)
    if wanted[1]:
        dx = g.sum_to_size(x_shape)
    if wanted[2] and h0 is not None:
        first_a = along.index_select(dim, starts)
        dh0 = sweep.product(first_a.conj(), g.index_select(dim, starts))
        if cu_seqlens is None:
            dh0 = dh0.squeeze(dim)
        else:
            zero = dh0.new_zeros(sweep.state_shape(h.shape, dim, cu_seqlens))
            dh0 = zero.index_copy(dim, sequences, dh0)
        dh0 = dh0.sum_to_size(h0.shape)
    return _as(dtypes, da, dx, dh0)


def _as(dtypes: Sequence[torch.dtype], *tensors: Tensor | None) -> Gradients:
    """Cast each tensor that is not None to its dtype."""
    da, dx, dh0 = (
        None if tensor is None else tensor.to(dtype)
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    )
    return da, dx, dh0


def _ends(
    steps: int, reverse: bool, cu_seqlens: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (indices of the sequences that are not empty, their first steps, their last steps).

    First and last are in the order of the recurrence, so ``reverse`` swaps them.
    """
    if cu_seqlens is None:
        first = torch.zeros(1, dtype=torch.int64, device=device)
        last = first + (steps - 1)
        return first, *((last, first) if reverse else (first, last))
    cu_seqlens = cu_seqlens.to(device)
    sequences = (cu_seqlens[1:] > cu_seqlens[:-1]).nonzero().squeeze(1)
    first, last = cu_seqlens[sequences], cu_seqlens[sequences + 1] - 1
    return sequences, *((last, first) if reverse else (first, last))


def _state_before(
    h: Tensor, h0: Tensor | None, dim: int, reverse: bool, cu_seqlens: Tensor | None
) -> Tensor:
    """Return h one step earlier. Where a sequence starts, that is h0, or zero without one."""
    steps = h.shape[dim]
    if steps == 0:
        return h
    sequences, starts, _ = _ends(steps, reverse, cu_seqlens, h.device)
    before = h.roll(-1 if reverse else 1, dim)
    if cu_seqlens is not None and cu_seqlens[-1] < steps:  # no step leads to the ignored tail
        out = torch.tensor([steps - 1 if reverse else int(cu_seqlens[-1])], device=h.device)
        before = before.index_fill(dim, out, 0)
    if h0 is None:
        return before.index_fill(dim, starts, 0)
    h0 = h0.to(h.dtype).expand(sweep.state_shape(h.shape, dim, cu_seqlens))
    h0 = h0.unsqueeze(dim) if cu_seqlens is None else h0.index_select(dim, sequences)
    return before.index_copy(dim, starts, h0)


@overload
def plain(tensor: Tensor) -> Tensor: ...
@overload
def plain(tensor: None) -> None: ...
def plain(tensor: Tensor | None) -> Tensor | None:
    """Return the tensor with lazy conjugation and negation carried out in memory."""
    return None if tensor is None else tensor.resolve_conj().resolve_neg()
