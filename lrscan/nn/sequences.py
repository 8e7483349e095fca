"""Sequences of unequal length that lie end to end along the axis of time.

For instance::

    steps     a0 a1 a2  b0 b1  c0       inputs (6, 1, m), states (3, w) for lengths 3, 2, 1
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lrscan.core.api import packed_linear_recurrence
from lrscan.core.time_axis import TimeAxis


class Sequences(TimeAxis):
    """Where N sequences of at least one step begin and end.

    Args:
        lengths: (N) int64, on the CPU
    """

    whole = False
    cu_seqlens: Tensor

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self.number = torch.arange(len(lengths)).repeat_interleave(lengths)  # by step
        self.time = torch.arange(len(self.number)) - self.cu_seqlens[self.number]

    def batch(self, size: int) -> int:
        return len(self.lengths)

    def ends(self, steps: Tensor) -> Tensor:
        return steps[(self.cu_seqlens[1:] - 1).to(steps.device)].squeeze(1)

    def scan(self, a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
        c = packed_linear_recurrence(a, u, self.cu_seqlens, start.unsqueeze(1), algorithm=algorithm)
        return c, self.ends(c)

    def lagged(self, past: Tensor, steps: Tensor) -> Callable[[int], Tensor]:
        k = len(past)
        joined = torch.cat([past.flatten(0, 1).unsqueeze(1), steps])
        return lambda lag: joined[self.before(k, lag).to(joined.device)]

    def history(
        self, take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, rows = self.latest(len(past))
        index = steps.clamp(min=0).flatten().to(past.device)
        recent = take(lambda t: t[index]).to(past.dtype).reshape(past.shape)
        index = rows.clamp(min=0).to(past.device)
        older = past[index, torch.arange(len(self.lengths), device=past.device)]
        return past, torch.where((steps >= 0).unsqueeze(-1).to(past.device), recent, older)

    def by_time(self) -> tuple[Tensor, Tensor, list[int]]:
        """The order of the steps by time, and back, and how many sequences have each time.

        The sequences are given the longest first.
        """
        order = torch.argsort(self.time, stable=True)
        return order, torch.argsort(order), self.time.bincount().tolist()

    def before(self, past: int, lag: int) -> Tensor:
        """For each step the row of that ``lag`` before it in :meth:`lagged`'s joined rows."""
        n = len(self.lengths)
        step = torch.arange(len(self.time)) - lag + past * n
        return torch.where(self.time >= lag, step, (past - lag + self.time) * n + self.number)

    def latest(self, past: int) -> tuple[Tensor, Tensor]:
        """Of each sequence's last ``past`` values, (past, N): the steps and the rows of the past.

        One of the two is negative, that which is not meant.
        """
        time = torch.arange(past).unsqueeze(1) - past + self.lengths
        return torch.where(time >= 0, self.cu_seqlens[:-1] + time, -1), torch.where(
            time < 0, time + past, -1
        )
