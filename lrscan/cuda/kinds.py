"""The kinds of :mod:`lrscan.core.dtypes` as Numba and NumPy know them."""

from __future__ import annotations

import numpy as np
from numba import types

from lrscan.core.dtypes import KINDS

# The types of states.
STATES = {state: getattr(types, state) for state in {kind.state for kind in KINDS.values()}}


def state_of(kind: str) -> np.dtype:
    """The NumPy dtype in which elements of a kind are computed."""
    return np.dtype(KINDS[kind].state)
