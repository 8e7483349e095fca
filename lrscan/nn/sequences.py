"""Sequences of unequal length that lie end to end along the axis of time: what of a layer minds.

A product with a weight and a cell take every step by itself. A recurrence and a shift in time do
not: the layers call :func:`scan`, :func:`lagged` and :func:`here` for them, which know of one
batch of equal length outside :func:`end_to_end`.

    steps     a0 a1 a2  b0 b1  c0       inputs (6, 1, m), states (3, w) for lengths 3, 2, 1
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lrscan.core.api import packed_linear_recurrence
from lrscan.distributed import parallel


class Sequences:
    """Where N sequences of at least one step begin and end.

    Args:
        lengths: (N) int64, on the CPU
    """

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.cu = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self.number = torch.arange(len(lengths)).repeat_interleave(lengths)  # by step
        self.time = torch.arange(len(self.number)) - self.cu[self.number]

    def __len__(self) -> int:
        return len(self.lengths)

    def ends(self, steps: Tensor) -> Tensor:
        """(N, ...): the last step of each sequence, of (all steps, 1, ...)."""
        return steps[(self.cu[1:] - 1).to(steps.device)].squeeze(1)

    def by_time(self) -> tuple[Tensor, Tensor, list[int]]:
        """The order of the steps by time, and back, and how many sequences have each time.

        The sequences are given the longest first.
        """
        order = torch.argsort(self.time, stable=True)
        return order, torch.argsort(order), self.time.bincount().tolist()

    def before(self, past: int, lag: int) -> Tensor:
        """For each step the row of that ``lag`` before it in :func:`lagged`'s joined rows."""
        n = len(self)
        step = torch.arange(len(self.time)) - lag + past * n
        return torch.where(self.time >= lag, step, (past - lag + self.time) * n + self.number)

    def latest(self, past: int) -> tuple[Tensor, Tensor]:
        """Of each sequence's last ``past`` values, (past, N): the steps and the rows of the past.

        One of the two is negative, that which is not meant.
        """
        time = torch.arange(past).unsqueeze(1) - past + self.lengths
        return torch.where(time >= 0, self.cu[:-1] + time, -1), torch.where(
            time < 0, time + past, -1
        )


# By thread, as in :mod:`lrscan.distributed.parallel`.
_sequences: dict[int, Sequences] = {}


@contextmanager
def end_to_end(sequences: Sequences | None) -> Iterator[None]:
    """In it the axis of time of this thread's layers holds these; None: one batch."""
    before = here()
    _place(sequences)
    try:
        yield
    finally:
        _place(before)


def _place(sequences: Sequences | None) -> None:
    if sequences is None:
        _sequences.pop(threading.get_ident(), None)
    else:
        _sequences[threading.get_ident()] = sequences


def here() -> Sequences | None:
    """The sequences that lie end to end; None: one batch of equal length."""
    return _of_this_thread() if _sequences else None


def _of_this_thread() -> Sequences | None:
    return _sequences.get(threading.get_ident())


def scan(a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
    """:func:`lrscan.distributed.parallel.scan`, of each sequence by itself."""
    sequences = here()
    if sequences is None:
        return parallel.scan(a, u, start, algorithm)
    c = packed_linear_recurrence(a, u, sequences.cu, start.unsqueeze(1), algorithm=algorithm)
    return c, sequences.ends(c)


def lagged(past: Tensor, steps: Tensor) -> Callable[[int], Tensor]:
    """A function of a lag of up to k: each step's value that long before, (T, B, ...).

    Args:
        past:  (k, B, ...), the values before the first step, the oldest first
        steps: (T, B, ...)
    """
    sequences, k = here(), len(past)
    if sequences is None:
        joined = torch.cat([past, steps])
        # A trace knows the shape, and takes what len gives for a constant.
        return lambda lag: joined[k - lag :][: steps.shape[0]]
    joined = torch.cat([past.flatten(0, 1).unsqueeze(1), steps])
    return lambda lag: joined[sequences.before(k, lag).to(joined.device)]


def history(
    take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
) -> tuple[Tensor, Tensor]:
    """What came before these steps, and the last k values of each sequence, both (k, B, ...).

    Args:
        take: gives (number, B, ...) values for a function that picks steps
        past: (k, B, ...), the values before the first step, the oldest first
    """
    sequences, k = here(), len(past)
    if sequences is None:
        return parallel.history(take(lambda t: t[-k:]).to(past.dtype), past)
    steps, rows = sequences.latest(k)
    index = steps.clamp(min=0).flatten().to(past.device)
    recent = take(lambda t: t[index]).to(past.dtype).reshape(past.shape)
    index = rows.clamp(min=0).to(past.device)
    older = past[index, torch.arange(len(sequences), device=past.device)]
    return past, torch.where((steps >= 0).unsqueeze(-1).to(past.device), recent, older)
