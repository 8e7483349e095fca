"""Implementations of the fused-cell operators that ``lrscan.core.torch_library`` registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrscan.cpu import fused_cells


def fused_cell(gates: Tensor, start: Tensor, name: str) -> list[Tensor]:
    c, h = fused_cells.forward(name, gates.contiguous(), start)
    return [h, c[-1].clone(), *([] if h is c else [c])]


def fused_cell_fake(gates: Tensor, start: Tensor, name: str) -> list[Tensor]:
    c = gates.new_empty(*gates.shape[:2], start.shape[-1])
    return [c, start.new_empty(start.shape), *([] if name == "gilr" else [torch.empty_like(c)])]


def fused_cell_backward(
    gates: Tensor, start: Tensor, c: Tensor, dh: Tensor, dend: Tensor | None, name: str
) -> list[Tensor]:
    return list(fused_cells.backward(name, gates.contiguous(), start, c.contiguous(), dh, dend))


def fused_cell_backward_fake(
    gates: Tensor, start: Tensor, c: Tensor, dh: Tensor, dend: Tensor | None, name: str
) -> list[Tensor]:
    return [gates.new_empty(gates.shape), start.new_empty(start.shape)]


def keep_for_cell_gradients(
    ctx: Any, inputs: tuple[Tensor, Tensor, str], output: list[Tensor]
) -> None:
    gates, start, ctx.name = inputs
    ctx.save_for_backward(gates, start, output[2] if len(output) > 2 else output[0])


def cell_gradients(ctx: Any, found: list[Tensor | None]) -> tuple[Tensor, Tensor, None]:
    gates, start, c = ctx.saved_tensors
    dh, dend = found[:2]  # the third output, c, serves this function only, so no gradient arrives
    dh = torch.zeros_like(c) if dh is None else dh
    dpre, dstart = torch.ops.lrscan.fused_cell_backward(gates, start, c, dh, dend, ctx.name)
    return dpre, dstart, None
