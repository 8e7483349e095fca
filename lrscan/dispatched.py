"""What the operators of torch's dispatcher do; their names are in :mod:`lrscan.library`."""

from __future__ import annotations

from lrscan import autograd, gradients, sweep
from lrscan.arguments import check


def linear_recurrence(a, x, h0, dim, reverse, algorithm, cu):
    dim = check(a, x, h0, dim, reverse, algorithm, cu)
    return sweep.forward(*map(autograd.plain, (a, x, h0)), dim, reverse, algorithm, cu)


def linear_recurrence_fake(a, x, h0, dim, reverse, algorithm, cu):
    check(a, x, h0, dim, reverse, algorithm, cu)
    return sweep.empty_output(a, x)


def linear_recurrence_backward(a, h, h0, dh, x_shape, dim, reverse, algorithm, cu, wanted):
    tensors = map(autograd.plain, (a, h, h0, dh))
    found = gradients.backward(*tensors, x_shape, dim, reverse, algorithm, cu, wanted)
    return [gradient for gradient in found if gradient is not None]


def linear_recurrence_backward_fake(a, h, h0, dh, x_shape, dim, reverse, algorithm, cu, wanted):
    found = gradients.empty_gradients(a, h, h0, x_shape, wanted)
    return [gradient for gradient in found if gradient is not None]


def keep_for_gradients(ctx, inputs, output):
    a, x, h0, *ctx.options, cu = inputs
    ctx.x_shape, ctx.rank = x.shape, output.dim()
    # The gradients of x and h0 take the coefficients alone.
    ctx.save_for_backward(a, h0, output if ctx.needs_input_grad[0] else None, cu)


def recurrence_gradients(ctx, dh):
    a, h0, h, cu = ctx.saved_tensors
    dim, reverse, algorithm = ctx.options
    wanted = ctx.needs_input_grad[:3]
    options = (ctx.x_shape, dim % ctx.rank, reverse, algorithm, cu)
    return *autograd.backward(a, h, h0, dh, *options, wanted), None, None, None, None


batched = autograd.batched
