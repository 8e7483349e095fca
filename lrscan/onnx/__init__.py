"""Export of the operator to ONNX with ``torch.onnx.export``.

Pass the translation of the operator to the exporter::

    torch.onnx.export(
        model, (x,), "model.onnx", dynamo=True, dynamic_shapes=({0: "T", 1: "B"},),
        custom_translation_table=lrscan.onnx.translations(),
    )

The models of :mod:`lrscan.nn` need nothing else. They use no fused kernel during an export.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import lrscan.core.torch_library  # noqa: F401  (the operator of torch's dispatcher)


def translations() -> dict[Callable, Callable]:
    """Return the ``custom_translation_table`` for ``torch.onnx.export(..., dynamo=True)``.

    In an ONNX runtime (opset 18 or newer) the exported program agrees with torch to within
    rounding. It does so at every T and B, if ``dynamic_shapes`` leaves them open. A coefficient of
    exactly zero forgets NaN and infinity there too. The program takes about 2 sqrt(T) steps of
    ONNX's Scan instead of T.

    All real dtypes are supported. Half precision is accumulated in float32, but onnxruntime does
    not multiply matrices of bfloat16 on a CPU. A complex ``x`` raises an error at export, and so
    does ``cu_seqlens``. A coefficient of zero begins a sequence too, see
    :func:`lrscan.reset_where`. A :class:`lrscan.nn.SerialLSTM` becomes a loop with as many steps as
    the example input has.

    Returns:
        {operator of torch's dispatcher: its translation}

    Raises:
        ImportError: onnxscript, which torch's exporter needs, cannot be imported

    Example:
        >>> from lrscan.onnx import translations
        >>> list(translations())
        [<OpOverload(op='lrscan.linear_recurrence', overload='default')>]
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        message = "export to ONNX needs onnx and onnxscript: pip install onnx onnxscript"
        raise ImportError(message) from error
    from lrscan.onnx.translation import linear_recurrence

    return {torch.ops.lrscan.linear_recurrence.default: linear_recurrence}
