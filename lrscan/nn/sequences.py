"""Sequences of unequal length that lie end to end along the axis of time.

For the lengths 3, 2 and 1, the inputs are (6, 1, m) and the states (3, w)::

    steps     a0 a1 a2  b0 b1  c0
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lrscan.core.api import packed_linear_recurrence
from lrscan.core.time_axis import TimeAxis


class Sequences(TimeAxis):
    """Axis of time with N sequences end to end, each of at least one step.

    Args:
        lengths: (N,), int64, on the CPU
    """

    whole = False
    cu_seqlens: Tensor

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self.number = torch.arange(len(lengths)).repeat_interleave(lengths)  # per step
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
        """Return the order of the steps by time, its inverse, and the sequences per time.

        The sequences must be sorted, the longest first.
        """
        order = torch.argsort(self.time, stable=True)
        return order, torch.argsort(order), self.time.bincount().tolist()

    def before(self, past: int, lag: int) -> Tensor:
        """Return for each step the row, among the joined ones, of the step ``lag`` earlier."""
        n = len(self.lengths)
        step = torch.arange(len(self.time)) - lag + past * n
        return torch.where(self.time >= lag, step, (past - lag + self.time) * n + self.number)

    def latest(self, past: int) -> tuple[Tensor, Tensor]:
        """Return the positions of each sequence's last ``past`` values, as two (past, N) tensors.

        A value is either a step here or a row of the values before. Its position is in the first
        tensor or in the second one; the other tensor has -1 there.
        """
        time = torch.arange(past).unsqueeze(1) - past + self.lengths
        return torch.where(time >= 0, self.cu_seqlens[:-1] + time, -1), torch.where(
            time < 0, time + past, -1
        )
