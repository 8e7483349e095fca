"""Bounds on the speed of a scan: memory, arithmetic, idle lanes, and launches.

Source: Williams, Waterman and Patterson 2009, for the two roofs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Roofs(NamedTuple):
    """The two limits of a device: the speed of its memory and of its arithmetic units."""

    name: str
    bytes_per_s: float
    flops_per_s: Mapping[str, float]  # by dtype


class ElementCost(NamedTuple):
    """The cost of one element: flops, and values read from or written to memory."""

    flops: int
    crossings: int  # reads and writes of one value


ALGORITHMS = {
    "serial": ElementCost(2, 3),
    "blocked (three launches)": ElementCost(5, 5),
    "single pass": ElementCost(5, 3),
}
SIZES = {"float64": 8, "float32": 4, "bfloat16": 2}
# The datasheet of the H100 SXM (NVIDIA 2023). Half precision is computed in float32 here.
H100 = Roofs(
    "H100 SXM, datasheet",
    3.35e12,
    {"float64": 34e12, "float32": 67e12, "bfloat16": 67e12},
)


def attainable(roofs: Roofs, cost: ElementCost, dtype: str) -> tuple[float, float]:
    """Return the flops per byte and the attainable flops per second, the lower of the roofs."""
    intensity = cost.flops / (cost.crossings * SIZES[dtype])
    return intensity, min(roofs.flops_per_s[dtype], intensity * roofs.bytes_per_s)


def faster(steps: int, columns: int, lanes: int, launch: float, *, idle: bool = True) -> str:
    """Return the faster of "serial" and "blocked" by a count of operations and launches.

    Every lane does one flop per unit of time. The serial kernel has one lane per column, so with
    few columns the other lanes are idle.

    Args:
        steps:   the length of the sequence
        columns: the number of independent recurrences
        lanes:   the number of lanes of the device
        launch:  the time of one launch; the blocked scan has three
        idle:    False for a wrong model, in which all lanes always share the work
    """
    serial = 2 * steps * columns / (min(columns, lanes) if idle else lanes) + launch
    blocked = 5 * steps * columns / lanes + 3 * launch
    return "serial" if serial <= blocked else "blocked"
