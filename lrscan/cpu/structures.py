"""Structures of int64s: what a kernel is called with the address of.

A structure is a class of NamedTuple. Its fields are int64s, or structures themselves; in memory all
int64s follow each other, in the order of the fields:

    class Pair(NamedTuple):          class Both(NamedTuple):          Both in memory
        left: int                        first: Pair                  first.left
        right: int                       last: int                    first.right
                                                                      last

So the fields alone say where an int64 lies, to the host, which writes it, and to the kernel, which
reads it (:func:`lrscan.cpu.memory.reader`).
"""

from __future__ import annotations

import functools
from typing import Any, get_type_hints

INT64_BYTES = 8


@functools.cache
def parts(structure: type) -> dict[str, type | None]:
    """The structure that each field is, by name; None where it is an int64."""
    hints = get_type_hints(structure)
    return {name: hint if hasattr(hint, "_fields") else None for name, hint in hints.items()}


def length(structure: type) -> int:
    """How many int64s a structure is."""
    return sum(length(own) if own else 1 for own in parts(structure).values())


def offset_of(structure: type, field: str) -> int:
    """Where a field lies, in bytes from the beginning of the structure."""
    before = 0
    for name, own in parts(structure).items():
        if name == field:
            return before
        before += INT64_BYTES * (length(own) if own else 1)
    raise AttributeError(field)


def int64s_of(value: tuple[Any, ...]) -> list[int]:
    """The int64s of a structure, in the order in which they lie in memory."""
    found: list[int] = []
    for part in value:
        if isinstance(part, tuple):
            found += int64s_of(part)
        else:
            found.append(part)
    return found
