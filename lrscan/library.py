"""The recurrence as an operator of torch's dispatcher: for compile, export, modes, subclasses.

``torch.ops.lrscan.linear_recurrence(a, x, h0, dim, reverse, algorithm)`` and its backward. In
eager mode :mod:`lrscan.autograd` goes past the dispatcher, which is quicker and differentiates
further.
"""

from __future__ import annotations

import torch

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


def _setup_context(ctx, inputs, output):
    a, x, h0, *ctx.options, cu = inputs
    ctx.x_shape, ctx.rank = x.shape, output.dim()
    # The gradients of x and h0 take the coefficients alone.
    ctx.save_for_backward(a, h0, output if ctx.needs_input_grad[0] else None, cu)


def _gradients(ctx, dh):
    a, h0, h, cu = ctx.saved_tensors
    dim, reverse, algorithm = ctx.options
    wanted = ctx.needs_input_grad[:3]
    options = (ctx.x_shape, dim % ctx.rank, reverse, algorithm, cu)
    return *autograd.backward(a, h, h0, dh, *options, wanted), None, None, None, None


for device in ("CPU", "CUDA"):
    _LIBRARY.impl("linear_recurrence", _forward, device)
    _LIBRARY.impl("linear_recurrence_backward", _backward, device)
_NAME = "lrscan::linear_recurrence"
torch.library.register_fake(_NAME, _forward_fake, lib=_LIBRARY)
torch.library.register_fake(f"{_NAME}_backward", _backward_fake, lib=_LIBRARY)
torch.library.register_autograd(_NAME, _gradients, setup_context=_setup_context, lib=_LIBRARY)
torch.library.register_vmap(_NAME, autograd.batched, lib=_LIBRARY)
