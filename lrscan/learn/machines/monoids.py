"""Scans over other operations: all that a scan asks of one is that it is associative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def scan(combine: Callable[[Any, Any], Any], values: Sequence) -> list:
    """Inclusive scan in log2(n) rounds (Hillis and Steele 1986).

    Args:
        combine: an associative operation; the earlier operand comes first
        values:  one for each step
    """
    values, distance = list(values), 1
    while distance < len(values):
        later = [combine(*two) for two in zip(values, values[distance:], strict=False)]
        values = values[:distance] + later
        distance *= 2
    return values


def fraction_after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Composition of maps ``v -> (p v + q) / (r v + s)``, each a matrix ((p, q), (r, s)).

    Only ratios matter, so the product is scaled to keep its entries near one.
    """
    product = second @ first
    return product / abs(product).max()


def apply_fraction(matrix: np.ndarray, v: float) -> float:
    """``(p v + q) / (r v + s)``."""
    (p, q), (r, s) = matrix
    return (p * v + q) / (r * v + s)
