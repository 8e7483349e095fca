"""Dispatch of cells to fused CPU kernels; a cell without a kernel uses torch operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lrscan.core.autograd import intercepted
from lrscan.core.time_axis import along, current
from lrscan.core.torch_internals import forward_ad_is_on, is_batched, transforms_are_active

# Pre-activations by name, each (T, B, n); or of all gates, stacked along the last axis.
Gates = dict[str, Tensor] | Tensor
Recurrence = Callable[[Gates, Tensor], tuple[Tensor, Tensor]]


def fused(name: str) -> Callable[[Callable], Callable]:
    """Mark the method ``cell`` of a model as the one that a fused kernel implements.

    Args:
        name: the kernel's name in :mod:`lrscan.cpu.fused_cells`
    """

    def mark(cell: Callable) -> Callable:
        cell.fused = name  # type: ignore[attr-defined]  # functions take attributes
        return cell

    return mark


def kernel_of(model: type[nn.Module]) -> str | None:
    """Return the name that :func:`fused` gave to a model's cell, or None if it has no kernel."""
    return getattr(getattr(model, "cell", None), "fused", None)


def evaluate(
    cell: Callable, algorithm: str, recurrence: Recurrence, gates: Gates, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``recurrence(gates, start)``: (h, c after the last step), by a kernel if possible."""
    name = getattr(cell, "fused", None)
    if name is None or algorithm != "auto" or not isinstance(gates, Tensor):
        return recurrence(gates, start)
    if torch.compiler.is_compiling():
        # An exported program may run on another device, and torch.func cannot differentiate the
        # operator.
        if torch.compiler.is_exporting() or transforms_are_active():
            return recurrence(gates, start)
        if not current().whole or forward_ad_is_on():
            return recurrence(gates, start)
        if not _fits(name, cell, gates, start):
            return recurrence(gates, start)
        h, end, *_ = torch.ops.lrscan.fused_cell(gates, start, name)
        return h, end
    if not (_is_plain(gates, start) and _fits(name, cell, gates, start)):
        return recurrence(gates, start)
    return FusedCell.apply(gates, start, name, recurrence)


def _is_plain(gates: Tensor, start: Tensor) -> bool:
    """Return True if torch runs eagerly on one device and nothing intercepts its operations."""
    return not (
        current().split
        or transforms_are_active()
        or forward_ad_is_on()
        or intercepted(gates, start, None)
    )


def _fits(name: str, cell: Callable, gates: Tensor, start: Tensor) -> bool:
    """Return True if the kernel supports these tensors and the model's activation."""
    if gates.device.type != "cpu" or not gates.dtype == start.dtype == torch.float32:
        return False
    from lrscan.cpu import fused_cells  # load Numba only when it is needed

    n = start.shape[-1]
    return (
        gates.is_contiguous()
        and gates.shape[0] > 1
        and n % fused_cells.LANES == 0
        and gates.shape[-1] == fused_cells.GATES[name] * n
        and getattr(getattr(cell, "__self__", None), "activation", torch.tanh) is torch.tanh
    )


class FusedCell(torch.autograd.Function):
    """Autograd function of a fused kernel: ``apply(gates, start, name, recurrence)``.

    It returns (h, c after the last step). Backward uses a kernel too, except for higher derivatives
    and batches of gradients: those use ``recurrence``, which consists of differentiable torch
    operations. Sequences may lie end to end (:mod:`lrscan.core.time_axis`).
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, start: Tensor, name: str, recurrence: Recurrence
    ) -> tuple[Tensor, Tensor]:
        from lrscan.cpu import fused_cells

        ctx.time = current()
        c, h = fused_cells.forward(name, gates, start, ctx.time.cu_seqlens)
        ctx.name, ctx.recurrence = name, recurrence
        ctx.save_for_backward(gates, start, c)
        ctx.set_materialize_grads(False)
        return h, ctx.time.ends(c)

    @staticmethod
    def backward(ctx: Any, dh: Tensor | None, dend: Tensor | None) -> tuple[Tensor | None, ...]:
        from lrscan.cpu import fused_cells

        gates, start, c = ctx.saved_tensors
        dh = torch.zeros_like(c) if dh is None else dh
        second = torch.is_grad_enabled()
        if not (second or is_batched(dh) or (dend is not None and is_batched(dend))):
            lengths = ctx.time.cu_seqlens
            dgates, dstart = fused_cells.backward(ctx.name, gates, start, c, dh, dend, lengths)
            return dgates, dstart, None, None
        # Backward may be called under another axis of time than forward was.
        with torch.enable_grad(), along(ctx.time):
            results = ctx.recurrence(gates, start)
        given = dh, torch.zeros_like(start) if dend is None else dend
        wanted = [t for t, want in zip((gates, start), ctx.needs_input_grad, strict=False) if want]
        found = iter(torch.autograd.grad(results, wanted, given, create_graph=second))
        return *(next(found) if want else None for want in ctx.needs_input_grad[:2]), None, None
