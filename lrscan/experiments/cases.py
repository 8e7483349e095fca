"""The shapes whose throughput is measured: hard ones for a CPU, and those of a GPU's targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# (B, C) of many columns, from 1,024 to two millions, in each of these layouts.
_MANY = ((4, 256), (8, 1024), (64, 1024), (64, 32_768))
_MANY_LAYOUTS = ("TBC", "BTC", "BCT")
# (layout, columns) of few.
_THIN = (("TC", 1), ("TC", 4), ("TC", 32), ("CT", 4), ("CT", 32))
# The operator's rivals, where they are measured on a GPU: each in the layouts that suit it.
_TIME_LAST = ("accelerated-scan warp", "accelerated-scan triton", "torchlpc")
_EITHER = ("jax associative_scan", "torch associative_scan")


class Case(NamedTuple):
    """Tensors to measure with.

    layout   their axes from the outermost to the contiguous one, letters of T, B and C
    against  the rivals to measure beside it
    """

    layout: str
    T: int
    C: int
    B: int = 1
    dtype: str = "float32"
    against: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(getattr(self, axis) for axis in self.layout)

    @property
    def dim(self) -> int:
        """The axis of time."""
        return self.layout.index("T")

    @property
    def identity(self) -> dict[str, object]:
        """Its columns of a record."""
        return {name: getattr(self, name) for name in ("dtype", "layout", "T", "B", "C")}


def cpu_cases(elements: int, compare: bool) -> list[Case]:
    """Ten shapes of about so many elements, with ``compare`` all of them beside the rivals."""
    shapes = [
        *(("TC", elements // features, features) for features in (1, 4, 32, 64, 128, 256, 1024)),
        ("TC", 64, elements // 64),
        ("CT", elements // 4096, 4096),
        ("CT", elements // 3001 + 3, 3001),
    ]
    against = ("torchlpc", *_EITHER) if compare else ()
    return [Case(*shape, against=against) for shape in shapes]


def gpu_cases(elements: int, compare: bool) -> list[Case]:
    """Many columns and few, in ``elements`` and four times as many, and some shapes of fame.

    What is compared with rivals comes last, for some of them take long to compile.
    """
    cases = [*_many(elements, "float32"), *_named(), *_thin(elements, "float32")]
    cases += [*_many(elements, "bfloat16"), *_thin(elements, "bfloat16")]
    against = {
        Case("TBC", elements // 1024, 256, 4): _EITHER,
        Case("BCT", elements // 1024, 256, 4): (*_TIME_LAST, *_EITHER),
        Case("BCT", 65_536, 1536, 8): _TIME_LAST,
    }
    if not compare:
        return cases
    kept = [case for case in cases if case not in against]
    return kept + [case._replace(against=rivals) for case, rivals in against.items()]


def _many(elements: int, dtype: str) -> Iterator[Case]:
    for B, C in _MANY:
        for layout in _MANY_LAYOUTS:
            yield Case(layout, elements // (B * C), C, B, dtype)


def _thin(elements: int, dtype: str) -> Iterator[Case]:
    for size in (elements, 4 * elements):
        for layout, columns in _THIN:
            yield Case(layout, size // columns, columns, dtype=dtype)


def _named() -> Iterator[Case]:
    yield Case("BCT", 65_536, 1536, 8)
    for layout in ("CT", "TC"):
        yield Case(layout, 2**19, 64)
    yield Case("TC", 2**20, 1)
