"""Shapes whose throughput is measured: hard ones for a CPU, and those of a GPU's targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# (B, C) with many columns, from 1,024 to two million, in each of these layouts.
_MANY = ((4, 256), (8, 1024), (64, 1024), (64, 32_768))
_MANY_LAYOUTS = ("TBC", "BTC", "BCT")
# (layout, columns) with few columns.
_THIN = (("TC", 1), ("TC", 4), ("TC", 32), ("CT", 4), ("CT", 32))
# Rivals that are measured on a GPU, each in the layouts that suit it.
_TIME_LAST = ("accelerated-scan warp", "accelerated-scan triton", "torchlpc")
_EITHER = ("jax associative_scan", "torch associative_scan")


class Case(NamedTuple):
    """Layout and sizes of the tensors of one measurement.

    Attributes:
        layout:  the axes from the outermost to the contiguous one, as letters T, B and C
        T:       steps
        C:       channels
        B:       sequences
        dtype:   its name
        against: the rivals to measure on the same tensors
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
        """The columns of a record that identify the case."""
        return {name: getattr(self, name) for name in ("dtype", "layout", "T", "B", "C")}


def cpu_cases(elements: int, compare: bool) -> list[Case]:
    """Return ten shapes of about ``elements`` elements each.

    Args:
        elements: of a tensor
        compare:  measure the rivals as well, at every shape
    """
    shapes = [
        *(("TC", elements // features, features) for features in (1, 4, 32, 64, 128, 256, 1024)),
        ("TC", 64, elements // 64),
        ("CT", elements // 4096, 4096),
        ("CT", elements // 3001 + 3, 3001),
    ]
    against = ("torchlpc", *_EITHER) if compare else ()
    return [Case(*shape, against=against) for shape in shapes]


def gpu_cases(elements: int, compare: bool) -> list[Case]:
    """Return shapes of many columns and of few, and some well-known ones.

    The shapes that are compared with rivals come last, because some rivals take long to compile.

    Args:
        elements: of a tensor; shapes with few columns also have four times as many
        compare:  measure the rivals as well, at some shapes
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
