"""Roofline and crossover: checks of ``attainable`` and ``faster``."""

from __future__ import annotations

from lrscan.learn.exercises.check import Mistake, compared
from lrscan.learn.machines import roofline


def _attainable(flops: float, moved: float, bandwidth: float, peak: float) -> float:
    return min(peak, flops / moved * bandwidth)


attainable = compared(
    "this is the roofline",
    _attainable,
    [(2, 12, 3350e9, 67e12), (5, 20, 240e9, 2.8e12), (1000, 4, 100e9, 1e12)],
    {
        "memory forgotten": Mistake(
            lambda flops, moved, bandwidth, peak: peak,
            "A scan does only a few operations per number that it reads, and memory cannot deliver "
            "numbers fast enough for the peak.",
        ),
        "peak forgotten": Mistake(
            lambda flops, moved, bandwidth, peak: flops / moved * bandwidth,
            "With enough flops per byte the arithmetic units are the limit. Take the smaller of "
            "the two limits.",
        ),
        "intensity upside down": Mistake(
            lambda flops, moved, bandwidth, peak: min(peak, moved / flops * bandwidth),
            "The bandwidth is in bytes per second. Multiply it by flops per byte to get flops per "
            "second.",
        ),
    },
)

_SIZES = [
    (16, 4, 4096, 500),
    (65536, 4, 4096, 500),
    (65536, 4096, 4096, 500),
    (65536, 1500, 4096, 500),
    (65536, 2000, 4096, 500),
    (256, 32, 4096, 500),
    (1024, 32, 4096, 500),
]

faster = compared(
    "your model says where the serial kernel wins",
    roofline.faster,
    _SIZES,
    {
        "idle lanes forgotten": Mistake(
            lambda *sizes: roofline.faster(*sizes, idle=False),
            "The serial kernel has one lane per column. With fewer columns than lanes, the other "
            "lanes have nothing to do.",
        ),
        "launches forgotten": Mistake(
            lambda steps, columns, lanes, launch: roofline.faster(steps, columns, lanes, 0),
            "Every launch costs time, and the blocked scan has three. For short sequences this "
            "decides.",
        ),
    },
)
