"""The recurrence as an operator of torch's dispatcher: for compile, export, modes, subclasses.

``torch.ops.lrscan.linear_recurrence(a, x, h0, dim, reverse, algorithm)`` and its backward. In
eager mode :mod:`lrscan.autograd` goes past the dispatcher, which is quicker and differentiates
further.
"""

from __future__ import annotations

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from lrscan import autograd, gradients, sweep
from lrscan.arguments import check

_LIBRARY = torch.library.Library("lrscan", "DEF")
_LIBRARY.define(
    "linear_recurrence(Tensor a, Tensor x, Tensor? h0, int dim, bool reverse, str algorithm,"
    " Tensor? cu) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    "linear_recurrence_backward(Tensor a, Tensor h, Tensor? h0, Tensor dh, SymInt[] x_shape,"
    " int dim, bool reverse, str algorithm, Tensor? cu, bool[] wanted) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _forward(a, x, h0, dim, reverse, algorithm, cu):
    dim = check(a, x, h0, dim, reverse, algorithm, cu)
    return sweep.forward(*map(autograd.plain, (a, x, h0)), dim, reverse, algorithm, cu)


def _forward_fake(a, x, h0, dim, reverse, algorithm, cu):
    check(a, x, h0, dim, reverse, algorithm, cu)
    return sweep.empty_output(a, x)


def _backward(a, h, h0, dh, x_shape, dim, reverse, algorithm, cu, wanted):
    tensors = map(autograd.plain, (a, h, h0, dh))
    found = gradients.backward(*tensors, x_shape, dim, reverse, algorithm, cu, wanted)
    return [gradient for gradient in found if gradient is not None]


def _backward_fake(a, h, h0, dh, x_shape, dim, reverse, algorithm, cu, wanted):
    found = gradients.empty_gradients(a, h, h0, x_shape, wanted)
    return [gradient for gradient in found if gradient is not None]


class Dispatched(_SingleLevelFunction):
    """The operator with its gradients, at one level of torch.func or at none.

    ``torch.library.register_autograd`` makes an ``autograd.Function`` in its place, of which
    torch.func takes no gradient: it would ask for its levels a second time.
    """

    @staticmethod
    def forward(ctx, a, x, h0, *options):
        with torch.enable_grad():  # for the outer levels: torch switches it off in here
            h = _below(a, x, h0, *options)
        *ctx.options, cu = options
        ctx.x_shape, ctx.rank = x.shape, h.dim()
        # The gradients of x and h0 take the coefficients alone.
        ctx.save_for_backward(a, h0, h if ctx.needs_input_grad[0] else None, cu)
        return h

    @staticmethod
    def backward(ctx, dh):
        a, h0, h, cu = ctx.saved_tensors
        dim, reverse, algorithm = ctx.options
        wanted = ctx.needs_input_grad[:3]
        options = (ctx.x_shape, dim % ctx.rank, reverse, algorithm, cu)
        return *autograd.backward(a, h, h0, dh, *options, wanted), None, None, None, None


def _below(*inputs):
    """The operator without gradients at this level."""
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.lrscan.linear_recurrence(*inputs)


def _differentiated(a, x, h0, *options):
    tensors = (a, x) if h0 is None else (a, x, h0)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        with enable_single_level_autograd_function():
            return Dispatched.apply(a, x, h0, *options)
    return _below(a, x, h0, *options)


for device in ("CPU", "CUDA"):
    _LIBRARY.impl("linear_recurrence", _forward, device)
    _LIBRARY.impl("linear_recurrence_backward", _backward, device)
_NAME = "lrscan::linear_recurrence"
torch.library.register_fake(_NAME, _forward_fake, lib=_LIBRARY)
torch.library.register_fake(f"{_NAME}_backward", _backward_fake, lib=_LIBRARY)
_LIBRARY.impl("linear_recurrence", _differentiated, "Autograd")
torch.library.register_vmap(_NAME, autograd.batched, lib=_LIBRARY)
