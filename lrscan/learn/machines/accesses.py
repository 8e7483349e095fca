"""Memory accesses of threads, and the races and bank conflicts among them."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import Any, NamedTuple

from lrscan.learn.machines import banks

WARP = 32


class Access(NamedTuple):
    """One read or write by one thread.

    Attributes:
        block:  the number of the block
        thread: the number of the thread in its block
        epoch:  how many barriers the thread had passed
        array:  the name of the array; shared ones are called "shared 0", "shared 1", ...
        index:  the element of the array
        kind:   "read" or "write"
        line:   the line in the source of the kernel
        place:  the instruction, and how often the thread had run it in this epoch; the accesses
                that a warp makes together have the same place
    """

    block: int
    thread: int
    epoch: int
    array: str
    index: Any
    kind: str
    line: int
    place: tuple[int, int]


class Race(NamedTuple):
    """Two accesses by different threads to one place, one a write, with no barrier between."""

    first: Access
    second: Access

    def __str__(self) -> str:
        one, two = self.first, self.second
        return (
            f"thread {one.thread} {one.kind}s {one.array}[{one.index}] (line {one.line}) and "
            f"thread {two.thread} {two.kind}s it (line {two.line}), with no barrier in between"
        )


class Log:
    """All accesses of the launches that were watched.

    Attributes:
        accesses: in the order in which they happened
        stranded: threads that waited at a barrier that others never reached, as (block, thread)
        barriers: the largest number of barriers that a thread passed
    """

    def __init__(self) -> None:
        self.accesses: list[Access] = []
        self.stranded: list[tuple[int, int]] = []
        self.barriers = 0
        self._counts: dict[tuple, int] = defaultdict(int)

    def note(self, array: str, index: Any, kind: str) -> None:
        """Record an access by the thread that is running now, at its current line."""
        thread: Any = threading.current_thread()
        if not hasattr(thread, "epoch"):
            return  # not a CUDA thread: the host accesses the array
        frame = sys._getframe(2)
        key = (thread.launch, thread.block, thread.thread_id, thread.epoch, frame.f_lasti, array)
        self._counts[key] += 1
        place = (frame.f_lasti, self._counts[key])
        line = frame.f_lineno - frame.f_code.co_firstlineno + 1
        self.accesses.append(
            Access(thread.block, thread.thread_id, thread.epoch, array, index, kind, line, place)
        )

    def races(self) -> list[Race]:
        """Return races within a block, at most one per place and stretch between barriers."""
        seen: dict[tuple, list[Access]] = defaultdict(list)
        for access in self.accesses:
            seen[access.block, access.epoch, access.array, access.index].append(access)
        found = []
        for group in seen.values():
            for write in (a for a in group if a.kind == "write"):
                other = next((a for a in group if a.thread != write.thread), None)
                if other:
                    found.append(Race(write, other))
                    break
        return sorted(found, key=lambda race: race.first.epoch)

    def conflicts(self) -> list[tuple[Access, int]]:
        """Return (access of one lane, turns) for every access of a warp to shared memory.

        Consecutive elements, of four bytes each, are in consecutive banks.
        """
        together: dict[tuple, list[Access]] = defaultdict(list)
        for a in self.accesses:
            if a.array.startswith("shared"):
                key = (a.block, a.thread // WARP, a.epoch, a.array, a.kind, a.place)
                together[key].append(a)
        return [(group[0], banks.ways([a.index for a in group])) for group in together.values()]
