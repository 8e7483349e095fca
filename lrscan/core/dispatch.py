"""What the operator finds by name when it first needs it, as it stands below what it finds.

    BACKENDS      by the type of a device: ``prepare`` of each backend, see :mod:`lrscan.core.sweep`
    DTENSOR_RULE  the recurrence of DTensors, where there is one among the arguments
    OPERATORS     the modules whose functions are operators of torch's dispatcher, see
                  :mod:`lrscan.core.torch_library`

Nothing else of this package is loaded by name. A name is "module:function". Nothing of this package
or of torch is imported here: :mod:`lrscan.core.torch_library` may be imported at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Backend(NamedTuple):
    """A backend of the operator.

    prepare          its door, by name
    takes_sequences  its kernels know where sequences that lie end to end begin
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
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
