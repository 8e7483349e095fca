"""What the operators of fused cells do; :mod:`lrscan.core.torch_library` has their names."""

from __future__ import annotations

import torch

from lrscan.cpu import fused_cells


def fused_cell(gates, start, name):
    c, h = fused_cells.forward(name, gates.contiguous(), start)
    return [h, c[-1].clone(), *([] if h is c else [c])]


def fused_cell_fake(gates, start, name):
    c = gates.new_empty(*gates.shape[:2], start.shape[-1])
    return [c, start.new_empty(start.shape), *([] if name == "gilr" else [torch.empty_like(c)])]


def fused_cell_backward(gates, start, c, dh, dend, name):
    return list(fused_cells.backward(name, gates.contiguous(), start, c.contiguous(), dh, dend))


def fused_cell_backward_fake(gates, start, c, dh, dend, name):
    return [gates.new_empty(gates.shape), start.new_empty(start.shape)]


def keep_for_cell_gradients(ctx, inputs, output):
    gates, start, ctx.name = inputs
    ctx.save_for_backward(gates, start, output[2] if len(output) > 2 else output[0])


def cell_gradients(ctx, found):
    gates, start, c = ctx.saved_tensors
    dh, dend = found[:2]  # c itself is for this function alone
    dh = torch.zeros_like(c) if dh is None else dh
    dpre, dstart = torch.ops.lrscan.fused_cell_backward(gates, start, c, dh, dend, ctx.name)
    return dpre, dstart, None
