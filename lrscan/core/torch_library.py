"""Registration of the operators with torch's dispatcher: for compile, export, modes, subclasses.

These operators and their backward are registered::

    torch.ops.lrscan.linear_recurrence(a, x, h0, dim, reverse, algorithm, cu_seqlens)
    torch.ops.lrscan.fused_cell(gates, start, name)     [h, the last c], and c if it is not h

In eager mode, :mod:`lrscan.core.autograd` and :mod:`lrscan.nn.fused` bypass the dispatcher. That is
faster, and gives higher derivatives.

The implementations are looked up by name at the first call. This module imports only torch and
:mod:`lrscan.core.dispatch`. The operators can therefore be registered as soon as torch is imported,
even while other modules of this package are being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lrscan.core.dispatch import OPERATORS, found

_LIBRARY = torch.library.Library("lrscan", "DEF")


def _late(module: str, name: str) -> Callable:
    """Return a stand-in for a function of a module in OPERATORS, imported at the first call."""

    def call(*args: Any, **options: Any) -> Any:
        return found(f"{OPERATORS[module]}:{name}")(*args, **options)

    return call


def _define(module: str, name: str, schema: str, devices: tuple[str, ...] = ("CPU", "CUDA")) -> str:
    """Define an operator from the functions ``name`` and ``name_fake``; return its full name."""
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for device in devices:
        _LIBRARY.impl(name, _late(module, name), device)
    full = f"lrscan::{name}"
    torch.library.register_fake(full, _late(module, f"{name}_fake"), lib=_LIBRARY)
    return full


_recurrence = _define(
    "recurrence",
    "linear_recurrence",
    "(Tensor a, Tensor x, Tensor? h0,"
    " int dim, bool reverse, str algorithm, Tensor? cu_seqlens) -> Tensor",
)
_define(
    "recurrence",
    "linear_recurrence_backward",
    "(Tensor a, Tensor h, Tensor? h0, Tensor dh, SymInt[] x_shape,"
    " int dim, bool reverse, str algorithm, Tensor? cu_seqlens, bool[] wanted) -> Tensor[]",
)
_cell = _define(
    "cells", "fused_cell", "(Tensor gates, Tensor start, str name) -> Tensor[]", ("CPU",)
)
_define(
    "cells",
    "fused_cell_backward",
    "(Tensor gates, Tensor start, Tensor c, Tensor dh, Tensor? dend, str name) -> Tensor[]",
    ("CPU",),
)
# ``register_autograd``, which is used below, would not do: torch.func cannot differentiate it.
_LIBRARY.impl("linear_recurrence", _late("recurrence", "differentiated_recurrence"), "Autograd")
torch.library.register_vmap(_recurrence, _late("recurrence", "batched_recurrence"), lib=_LIBRARY)
torch.library.register_autograd(
    _cell,
    _late("cells", "cell_gradients"),
    setup_context=_late("cells", "keep_for_cell_gradients"),
    lib=_LIBRARY,
)
