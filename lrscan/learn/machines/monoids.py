"""Scans over other operations; a scan only requires that its operation is associative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def scan(combine: Callable[[Any, Any], Any], values: Sequence) -> list:
    """Return the inclusive scan, in log2(n) rounds (Hillis and Steele 1986).

    Args:
        combine: an associative operation; the earlier operand comes first
        values:  one value per step
    """
    values, distance = list(values), 1
    while distance < len(values):
        later = [combine(*two) for two in zip(values, values[distance:], strict=False)]
        values = values[:distance] + later
        distance *= 2
    return values


def fraction_after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compose two maps ``v -> (p v + q) / (r v + s)``, each given as ((p, q), (r, s)).

    Only the ratios of the entries matter, so the product is scaled to keep them near one.
    """
    product = second @ first
    return product / abs(product).max()


def apply_fraction(matrix: np.ndarray, v: float) -> float:
    """Return ``(p v + q) / (r v + s)``."""
    (p, q), (r, s) = matrix
    return (p * v + q) / (r * v + s)
