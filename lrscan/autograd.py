"""The derivatives of the recurrence, for torch.autograd and torch.func."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lrscan import gradients, sweep


def recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    dim: int,
    reverse: bool,
    algorithm: str,
    cu: Tensor | None = None,
) -> Tensor:
    """The recurrence of checked arguments, with the derivatives that may be asked for.

    ``cu`` as in :func:`lrscan.sweep.forward`.
    """
    options = (dim, reverse, algorithm, cu)
    if torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling():
        return TransformableRecurrence.apply(a, x, h0, *options)
    if torch.compiler.is_compiling() or intercepted(a, x, h0):
        return torch.ops.lrscan.linear_recurrence(a, x, h0, *options)
    if _differentiated(a, x, h0):
        return Recurrence.apply(a, x, h0, *options)
    return sweep.forward(*map(plain, (a, x, h0)), *options)


def intercepted(a: Tensor, x: Tensor, h0: Tensor | None) -> bool:
    """Whether torch must dispatch the call: for a mode (fake tensors, tracing) or a subclass."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or type(a) not in _PLAIN
        or type(x) not in _PLAIN
        or (h0 is not None and type(h0) not in _PLAIN)
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def forward_ad_is_on() -> bool:
    """Whether a derivative may be asked for in forward mode."""
    return forward_ad._current_level >= 0


def _differentiated(a: Tensor, x: Tensor, h0: Tensor | None) -> bool:
    """Whether a derivative may be asked for, backward or forward."""
    if forward_ad_is_on():
        return True
    return torch.is_grad_enabled() and (
        a.requires_grad or x.requires_grad or (h0 is not None and h0.requires_grad)
    )


class Recurrence(torch.autograd.Function):
    """The recurrence with its first and higher derivatives, and forward mode.

    ``apply(a, x, h0, dim, reverse, algorithm, cu)``, of checked arguments.
    """

    @staticmethod
    def forward(ctx, a, x, h0, *options):
        h = sweep.forward(*map(plain, (a, x, h0)), *options)
        _save(ctx, a, x, h0, options, h)
        return h

    @staticmethod
    def backward(ctx, dh):
        a, h0, h = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            found = differentiable_gradients(a, h, h0, dh, ctx.x_shape, *ctx.options, wanted)
        else:
            tensors = map(plain, (a, h, h0, dh))
            found = gradients.backward(*tensors, ctx.x_shape, *ctx.options, wanted)
        return *found, None, None, None, None

    @staticmethod
    def jvp(ctx, a_tangent, x_tangent, h0_tangent, *_):
        a, h0, h = ctx.saved_tensors
        dim, reverse, _, cu = ctx.options
        impulse = torch.zeros_like(h) if x_tangent is None else x_tangent
        if a_tangent is not None:
            impulse = (impulse + a_tangent * _state_before(h, h0, dim, reverse, cu)).to(h.dtype)
        return recurrence(a, impulse, h0_tangent, *ctx.options)


class TransformableRecurrence(Recurrence):
    """The same in the form that torch.func transforms, which costs more to call."""

    @staticmethod
    def forward(a, x, h0, *options):
        return sweep.forward(*map(plain, (a, x, h0)), *options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, x, h0, *options = inputs
        _save(ctx, a, x, h0, options, output)

    @staticmethod
    def vmap(info, in_dims, a, x, h0, dim, reverse, algorithm, cu):
        rank = max(
            tensor.dim() - (axis is not None) for tensor, axis in zip((a, x), in_dims, strict=False)
        )
        batched = [
            tensor if tensor is None or axis is None else _batch_first(tensor, axis, own_rank)
            for tensor, axis, own_rank in zip(
                (a, x, h0), in_dims, (rank, rank, rank - (cu is None)), strict=False
            )
        ]
        if in_dims[0] is None and in_dims[1] is None:  # only h0 is batched
            batched[1] = x.expand(info.batch_size, *sweep.broadcast_shape(a, x))
        return recurrence(*batched, dim + 1, reverse, algorithm, cu), 0


def _batch_first(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """The batched axis in front of ``rank`` others, ones being put in where axes are missing."""
    tensor = tensor.movedim(axis, 0)
    missing = rank - (tensor.dim() - 1)
    return tensor.reshape(tensor.shape[:1] + (1,) * missing + tensor.shape[1:])


def _save(ctx, a, x, h0, options, h):
    ctx.options, ctx.x_shape = options, x.shape
    ctx.save_for_backward(a, h0, h)
    ctx.save_for_forward(a, h0, h)


def differentiable_gradients(a, h, h0, dh, x_shape, dim, reverse, algorithm, cu, wanted):
    """(da, dx, dh0) made of differentiable operations, for derivatives of derivatives."""
    if h.shape[dim] == 0:
        zero = None if h0 is None else torch.zeros_like(h0)
        return torch.zeros_like(a), h.new_zeros(x_shape), zero
    # The coefficient that leads out of step t is that of the step after it; the last has none.
    along = a.expand(h.shape)
    sequences, starts, ends = _ends(h.shape[dim], reverse, cu, h.device)
    later = along.roll(1 if reverse else -1, dim).index_fill(dim, ends, 0).conj()
    g = recurrence(later, dh, None, dim, not reverse, algorithm)
    da = dx = dh0 = None
    if wanted[0]:
        da = _state_before(h, h0, dim, reverse, cu).conj() * g
        da = da.sum_to_size(a.shape).to(a.dtype)
    if wanted[1]:
        dx = g.sum_to_size(x_shape)
    if wanted[2]:
        dh0 = along.index_select(dim, starts).conj() * g.index_select(dim, starts)
        if cu is None:
            dh0 = dh0.squeeze(dim)
        else:
            zero = dh0.new_zeros(sweep.state_shape(h.shape, dim, cu))
            dh0 = zero.index_copy(dim, sequences, dh0)
        dh0 = dh0.sum_to_size(h0.shape).to(h0.dtype)
    return da, dx, dh0


def _ends(steps: int, reverse: bool, cu: Tensor | None, device: torch.device):
    """(sequences that are not empty, their first steps, their last ones)."""
    if cu is None:
        cu = torch.tensor([0, steps])
    cu = cu.to(device)
    sequences = (cu[1:] > cu[:-1]).nonzero().squeeze(1)
    first, last = cu[sequences], cu[sequences + 1] - 1
    return sequences, *((last, first) if reverse else (first, last))


def _state_before(h: Tensor, h0: Tensor | None, dim: int, reverse: bool, cu: Tensor | None):
    """h one step earlier, and h0 (or zero) where a sequence starts."""
    steps = h.shape[dim]
    if steps == 0:
        return h
    sequences, starts, _ = _ends(steps, reverse, cu, h.device)
    before = h.roll(-1 if reverse else 1, dim)
    if h0 is None:
        return before.index_fill(dim, starts, 0)
    h0 = h0.to(h.dtype).expand(sweep.state_shape(h.shape, dim, cu))
    h0 = h0.unsqueeze(dim) if cu is None else h0.index_select(dim, sequences)
    return before.index_copy(dim, starts, h0)


def plain(tensor: Tensor | None) -> Tensor | None:
    """The tensor with conjugation and negation done in memory, where torch left them for later."""
    return None if tensor is None else tensor.resolve_conj().resolve_neg()
