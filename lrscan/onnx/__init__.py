"""The operator in ONNX: what ``torch.onnx.export`` puts in its place.

    torch.onnx.export(
        model, (x,), "model.onnx", dynamo=True, dynamic_shapes=({0: "T", 1: "B"},),
        custom_translation_table=lrscan.onnx.translations(),
    )

The models of :mod:`lrscan.nn` need no more: while they are exported they take no fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import lrscan.core.torch_library  # noqa: F401  (the operator of torch's dispatcher)


def translations() -> dict[Callable, Callable]:
    """For ``custom_translation_table`` of ``torch.onnx.export(..., dynamo=True)``.

    What was exported gives in a runtime of ONNX (opset 18 or newer) what torch does, to rounding,
    at every T and B where ``dynamic_shapes`` leaves them open; a coefficient of exactly zero
    forgets NaN and infinity there too. It takes 2 sqrt(T) steps of ONNX's Scan, not T.

    All real dtypes, half precision accumulated in float32 (but onnxruntime multiplies no matrices
    of bfloat16 on a CPU). A complex ``x`` is refused by an error, and so is ``cu_seqlens``: a
    coefficient of zero begins a sequence too, see :func:`lrscan.reset_where`. A
    :class:`lrscan.nn.SerialLSTM` is a loop of as many steps as it was exported with.

    Raises:
        ImportError: onnxscript, which torch's exporter is made with, cannot be imported
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        message = "export to ONNX needs two more packages: pip install onnx onnxscript"
        raise ImportError(message) from error
    from lrscan.onnx.translation import linear_recurrence

    return {torch.ops.lrscan.linear_recurrence.default: linear_recurrence}
