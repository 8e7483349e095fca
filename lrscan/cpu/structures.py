"""Structures of int64s, by which the host passes arguments to a kernel.

The kernel gets the address of one. A structure is a NamedTuple class. Its fields are int64s, or
other structures. In memory, all int64s follow each other in the order of the fields::

    class Pair(NamedTuple):          class Both(NamedTuple):          Both in memory
        left: int                        first: Pair                  first.left
        right: int                       last: int                    first.right
                                                                      last

So the fields alone determine the place of an int64, both for the host, which writes it, and for the
kernel, which reads it (:func:`lrscan.cpu.memory.reader`).
"""

from __future__ import annotations

import functools
from typing import Any, get_type_hints

INT64_BYTES = 8


@functools.cache
def parts(structure: type) -> dict[str, type | None]:
    """Return, by field name, the structure of each field, or None if it is an int64."""
    hints = get_type_hints(structure)
    return {name: hint if hasattr(hint, "_fields") else None for name, hint in hints.items()}


def length(structure: type) -> int:
    """Return the number of int64s in a structure."""
    return sum(length(own) if own else 1 for own in parts(structure).values())


def offset_of(structure: type, field: str) -> int:
    """Return the offset of a field in bytes from the beginning of the structure."""
    before = 0
    for name, own in parts(structure).items():
        if name == field:
            return before
        before += INT64_BYTES * (length(own) if own else 1)
    raise AttributeError(field)


def int64s_of(value: tuple[Any, ...]) -> list[int]:
    """Return the int64s of a structure in their order in memory."""
    found: list[int] = []
    for part in value:
        if isinstance(part, tuple):
            found += int64s_of(part)
        else:
            found.append(part)
    return found
