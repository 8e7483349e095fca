"""Names of the functions that the operator loads when it first needs them.

The operator is on a lower layer than these modules, so it cannot import them::

    BACKENDS      by device type: ``prepare`` of each backend, see lrscan.core.sweep
    DTENSOR_RULE  the recurrence of DTensors, used if an argument is one
    OPERATORS     the modules with the operators of torch's dispatcher, see
                  lrscan.core.torch_library

Nothing else in this package is loaded by name. A name is "module:function". This module imports
neither torch nor anything else of this package, because :mod:`lrscan.core.torch_library` may be
imported at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Backend(NamedTuple):
    """A backend of the operator.

    Attributes:
        prepare: name of its entry point
        takes_sequences: whether its kernels know where packed sequences begin
    """

    prepare: str
    takes_sequences: bool


BACKENDS = {
    "cpu": Backend("lrscan.cpu.dispatch:prepare", takes_sequences=True),
    "cuda": Backend("lrscan.cuda.dispatch:prepare", takes_sequences=False),
}
DTENSOR_RULE = "lrscan.distributed.dtensor:recurrence"
OPERATORS = {
    "recurrence": "lrscan.core.torch_operators",
    "cells": "lrscan.nn.fused_operators",
}


def found(name: str) -> Any:
    """Import and return the function named "module:function"."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
