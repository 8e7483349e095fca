"""The linear recurrence ``h[t] = a[t] * h[t-1] + x[t]``, in parallel over time.

Public names are imported on first use, so the command line does not wait for torch.

The operators are registered with torch's dispatcher once both lrscan and torch have been imported,
in either order. Exported and scripted programs can then be loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrscan import distributed, nn, onnx, tasks, train
    from lrscan.core.api import (
        linear_recurrence,
        linear_recurrence_step,
        packed_linear_recurrence,
        reset_where,
    )
    from lrscan.core.reference import linear_recurrence_reference

try:
    __version__ = version("lrscan")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

_HOMES = {
    "linear_recurrence": "lrscan.core.api",
    "linear_recurrence_reference": "lrscan.core.reference",
    "linear_recurrence_step": "lrscan.core.api",
    "packed_linear_recurrence": "lrscan.core.api",
    "reset_where": "lrscan.core.api",
}
_MODULES = ("distributed", "nn", "onnx", "tasks", "train")

__all__ = [
    "__version__",
    "distributed",
    "linear_recurrence",
    "linear_recurrence_reference",
    "linear_recurrence_step",
    "nn",
    "onnx",
    "packed_linear_recurrence",
    "reset_where",
    "tasks",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"lrscan.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lrscan' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


class _AfterTorch:
    """Import hook: registers lrscan's operators as soon as torch has been imported.

    It finds torch through the other finders, and removes itself afterwards.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def then_register(module: Any) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                import_module("lrscan.core.torch_library")

            loader.exec_module = then_register
        return spec


if "torch" in sys.modules:
    import_module("lrscan.core.torch_library")
else:
    sys.meta_path.insert(0, _AfterTorch())
