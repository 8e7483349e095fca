"""What the kernel of :mod:`lrscan.cpu.scan` is told: the structures that it is called with.

The memory that a kernel is called with the address of begins with a :class:`Task`. Behind it lies
room for what threads tell each other, and for the states of each:

    Task | done: one int64 per group | carries: two per slot | room of thread 0 | of thread 1 | ...

A slot is a column of a strip (:func:`lrscan.cpu.steps.slots_of`). Carries and rooms begin with a
line of the cache: their places count from the address of the task, rounded up to one.

:func:`places` alone says where each of these begins.
"""

from __future__ import annotations

from typing import NamedTuple

from lrscan.core.sweep import Rows
from lrscan.cpu.memory import LINE
from lrscan.cpu.structures import INT64_BYTES, length


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
    """Of each tensor, in bytes; zeros where there is none.

    time            over time; for start and dstart over sequences, zero if there is one sequence
    outer2, outer1  over the two outer axes of columns
    inner           over the inner one
    """

    time: Rows
    outer2: Rows
    outer1: Rows
    inner: Rows


class Places(NamedTuple):
    """Where things lie, in bytes: from the beginning of the task, as said above, but ``P``, ``R``
    and ``states``, which are within a thread's room.

    done     for each group, how many of its carries are there
    carries  two for each slot of each group
    rooms    those of all threads, of ``room`` bytes each
    P, R     the maps of a tile, one for each slot
    states   of a group
    """

    done: int
    carries: int
    rooms: int
    room: int
    P: int
    R: int
    states: int


class Task(NamedTuple):
    """A sweep, and how it is divided.

    call, strides  of its tensors
    steps          in time
    n2, n1, n0     extents of the column axes, from the outermost
    width          columns per group, a multiple of a strip unless there is one group across; the
                   last group across takes what is left too, and none is narrower than a strip
    chunk          steps of a tile
    across         groups that the inner axis of columns is cut into
    groups         in all columns
    chunks         that time is cut into
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
    across: int
    groups: int
    chunks: int
    threads: int
    places: Places
    taken: int
    arrived: int


def places(
    sizes: tuple[int, ...],
    width: int,
    strip: int,
    coefficient_bytes: int,
    state_bytes: int,
) -> Places:
    """Where everything lies, for coefficients and states of so many bytes."""
    n2, n1, n0 = sizes
    done = INT64_BYTES * length(Task)
    carries = _lines(done + INT64_BYTES * n2 * n1 * (n0 // width))
    rooms = _lines(carries + 2 * state_bytes * n2 * n1 * (n0 + strip))
    # A group has fewer than two times ``width`` columns, or one strip. The room of P is used for
    # states as well, when P has been passed on.
    R = 2 * width * max(coefficient_bytes, state_bytes)
    states = R + 2 * width * state_bytes
    room = _lines(states + 2 * width * state_bytes)
    return Places(done, carries, rooms, room, P=0, R=R, states=states)


def task_bytes(places: Places, threads: int) -> int:
    """Bytes of a task and of all that lies behind it, of which a line is for alignment."""
    return places.rooms + threads * places.room + LINE


def _lines(size: int) -> int:
    return -(-size // LINE) * LINE
