"""Arguments of the kernel in :mod:`lrscan.cpu.scan`: the structures in its memory.

A kernel gets the address of memory that begins with a :class:`Task`. After it come the memory that
threads share, and the scratch memory ("room") of each thread::

    Task | done: one int64 per group | carries: two per slot | room of thread 0 | of thread 1 | ...

A slot is a column of a strip (:func:`lrscan.cpu.steps.slots_of`). Carries and rooms begin at a
cache line. Their offsets count from the address of the task, rounded up to a cache line.

Only :func:`places` computes where each of these begins.
"""

from __future__ import annotations

from typing import NamedTuple

from lrscan.core.sweep import Rows
from lrscan.cpu.memory import LINE
from lrscan.cpu.structures import INT64_BYTES, length


class Call(NamedTuple):
    """The part of a task that changes with every call.

    Attributes:
        first: address of each tensor's first column at the first step; 0 without a tensor
        sequences: number of packed sequences
        cu_seqlens: address of the steps at which they begin, with the end of the last
    """

    first: Rows
    sequences: int
    cu_seqlens: int


class Strides(NamedTuple):
    """Strides of each tensor in bytes; zero without a tensor.

    Attributes:
        time: over time; for start and dstart over sequences, zero if there is only one
        outer2, outer1: over the two outer axes of columns
        inner: over the inner axis of columns
    """

    time: Rows
    outer2: Rows
    outer1: Rows
    inner: Rows


class Places(NamedTuple):
    """Offsets in the memory of a kernel, in bytes.

    They count from the beginning of the task, as described above. ``P``, ``R`` and ``states`` count
    from the beginning of a thread's room.

    Attributes:
        done: for each group, the number of carries that it has finished
        carries: two carries for each slot of each group
        rooms: the rooms of all threads
        room: bytes per room
        P, R: the maps of a tile, one for each slot
        states: the states of a group
    """

    done: int
    carries: int
    rooms: int
    room: int
    P: int
    R: int
    states: int


class Task(NamedTuple):
    """A sweep, and its division into tiles.

    Attributes:
        call: addresses, which change with every call
        strides: strides of the tensors
        steps: number of time steps
        n2, n1, n0: extents of the column axes, outermost first
        width: columns per group; a multiple of a strip, unless there is one group across. The last
            group across also takes the remaining columns. No group is narrower than a strip
        chunk: steps per tile
        across: number of groups that the inner axis of columns is cut into
        groups: number of groups in all columns
        chunks: number of chunks that time is cut into
        threads: number of threads that take part
        places: offsets of everything after the task
        taken: number of tiles that threads have taken so far
        arrived: number of threads that have started
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
    """Return the offsets for coefficients and states of these sizes in bytes."""
    n2, n1, n0 = sizes
    done = INT64_BYTES * length(Task)
    carries = _lines(done + INT64_BYTES * n2 * n1 * (n0 // width))
    rooms = _lines(carries + 2 * state_bytes * n2 * n1 * (n0 + strip))
    # A group has fewer than two times ``width`` columns, or one strip. The memory of P is reused
    # for states once the carry has been passed on.
    R = 2 * width * max(coefficient_bytes, state_bytes)
    states = R + 2 * width * state_bytes
    room = _lines(states + 2 * width * state_bytes)
    return Places(done, carries, rooms, room, P=0, R=R, states=states)


def task_bytes(places: Places, threads: int) -> int:
    """Return the bytes of a task and everything after it; one cache line is for alignment."""
    return places.rooms + threads * places.room + LINE


def _lines(size: int) -> int:
    return -(-size // LINE) * LINE
