"""What the kernel of :mod:`lrscan.cpu.scan` is told: the structures that it is called with.

The memory that a kernel is called with the address of begins with a :class:`Task`. Behind it lies
room for what threads tell each other, and for the states of each:

    Task | done: one number a group | carries: two a column | room of thread 0 | of thread 1 | ...

:func:`places` alone says where each of these begins.
"""

from __future__ import annotations

from typing import NamedTuple

from lrscan.core.sweep import Rows
from lrscan.cpu.structures import NUMBER_BYTES, length

# Carries and rooms begin with a line of the cache.
LINE = 64


class Call(NamedTuple):
    """What is new in every call.

    first       address of each tensor's first column at the first step; 0 where there is none
    sequences   how many lie end to end in time
    cu_seqlens  address of the steps at which they begin, with the end of the last
    """

    first: Rows
    sequences: int
    cu_seqlens: int


class Strides(NamedTuple):
    """Of each tensor, in bytes.

    time            over time; for start and dstart over sequences
    outer2, outer1  over the two outer axes of columns
    column          over the inner one
    """

    time: Rows
    outer2: Rows
    outer1: Rows
    column: Rows


class Places(NamedTuple):
    """Where things lie, in bytes: from the beginning of the task, but ``product``, ``end`` and
    ``states``, which are within a thread's room.

    done     for each group, how many of its carries are there
    carries  two for each column of each group
    rooms    those of all threads, of ``room`` bytes each
    product  the coefficients of the maps of a tile
    end      their offsets
    states   of a group
    """

    done: int
    carries: int
    rooms: int
    room: int
    product: int
    end: int
    states: int


class Task(NamedTuple):
    """A sweep, and how it is divided.

    call, strides  of its tensors
    steps          in time
    n2, n1, n0     extents of the column axes, from the outermost
    width          columns a group; the last group of the inner axis takes what is left too, and
                   none is narrower than a strip
    chunk          steps of a tile
    threads        that take part
    places         where the rest lies
    taken          counts the tiles that some thread has taken
    arrived        counts the threads that have come
    """

    call: Call
    strides: Strides
    steps: int
    n2: int
    n1: int
    n0: int
    width: int
    chunk: int
    threads: int
    places: Places
    taken: int
    arrived: int


def groups_of(sizes: tuple[int, ...], width: int) -> int:
    """How many groups of ``width`` columns the column axes are cut into."""
    n2, n1, n0 = sizes
    return n2 * n1 * max(n0 // width, 1)


def places(sizes: tuple[int, ...], width: int, strip: int, coefficient: int, state: int) -> Places:
    """Where everything lies, for coefficients and states of so many bytes."""
    n2, n1, n0 = sizes
    done = NUMBER_BYTES * length(Task)
    carries = _lines(done + NUMBER_BYTES * groups_of(sizes, width))
    rooms = _lines(carries + 2 * state * n2 * n1 * (n0 + strip))
    # A group has fewer than two times ``width`` columns, or one strip. The room of the product is
    # used for states as well, when the product has been passed on.
    end = 2 * width * max(coefficient, state)
    states = end + 2 * width * state
    return Places(done, carries, rooms, states + 2 * width * state, 0, end, states)


def task_bytes(places: Places, threads: int) -> int:
    """Bytes of a task and of all that lies behind it, of which a line is for alignment."""
    return places.rooms + threads * places.room + LINE


def _lines(size: int) -> int:
    return -(-size // LINE) * LINE
