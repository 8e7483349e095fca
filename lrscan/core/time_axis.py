"""The axis of time for the layers of a thread, as an object that knows how steps lie along it.

A product with a weight matrix handles every step by itself, and so does a cell. A recurrence and a
shift in time do not. They use :func:`current`, which returns one of::

    TimeAxis       one whole batch of equal length: the default
    Sequences      packed sequences of unequal length (lrscan.nn.sequences)
    Split          a batch whose chunks are on different ranks (lrscan.distributed.parallel)

The last two are subclasses of the first. They override what differs. :func:`along` sets the axis.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from lrscan.core.api import linear_recurrence, linear_recurrence_step
from lrscan.core.torch_internals import outside_the_compiler


class TimeAxis:
    """One batch of sequences of equal length, all on this rank. A step is (B, ...).

    Attributes:
        whole: whether it may be cut into consecutive chunks
        split: whether this rank has one chunk, and other ranks have the others
        cu_seqlens: cumulative lengths of packed sequences, int64 on the CPU; else None
    """

    whole: ClassVar[bool] = True
    split: ClassVar[bool] = False
    cu_seqlens: Tensor | None = None

    def batch(self, size: int) -> int:
        """Return the number of sequences, for steps of ``size`` rows."""
        return size

    def turned(self) -> TimeAxis:
        """Return the axis of the same steps after each sequence is reversed in its own place."""
        return self

    def ends(self, steps: Tensor) -> Tensor:
        """Return the last step of each sequence, (B, ...).

        It is a copy, because a view would keep every step in memory.
        """
        return steps[-1].clone()

    def scan(self, a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
        """Return c[t] = a[t] * c[t-1] + u[t] along the first axis, and c after the last step."""
        if not torch.jit.is_tracing() and u.shape[0] == 1:  # no scan is needed
            c = linear_recurrence_step(a[0], u[0], start).unsqueeze(0)
        else:  # a trace has no branches, and must serve any number of steps
            c = linear_recurrence(a, u, start, algorithm=algorithm)
        # A copy, as in ``ends``, and the start where there are no steps.
        return c, torch.cat([start.unsqueeze(0), c[-1:]])[-1]

    def lagged(self, past: Tensor, steps: Tensor) -> Callable[[int], Tensor]:
        """Return a function of a lag that gives, for each step, the value that many steps earlier.

        The lag is at most k. The function returns (T, B, ...).

        Args:
            past:  (k, B, ...)   the values before the first step, oldest first
            steps: (T, B, ...)   the values of the steps
        """
        k, joined = len(past), torch.cat([past, steps])
        # A trace follows the shape. It would record the result of len() as a constant.
        return lambda lag: joined[k - lag :][: steps.shape[0]]

    def history(
        self, take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the values before these steps, and the last k values of each sequence.

        Both are (k, B, ...).

        Args:
            take: a function that takes a function which selects steps, and returns the values of
                those steps, (number, B, ...)
            past: (k, B, ...), the values before the first step, oldest first
        """
        k = len(past)
        recent = take(lambda steps: steps[-k:]).to(past.dtype)
        return past, torch.cat([past, recent])[-k:]


WHOLE = TimeAxis()
# The axis of each thread, if it is not WHOLE. torch's compiler guards on whether the dictionary is
# empty. While it is, the compiler need not know about threads.
_entered: dict[int, TimeAxis] = {}


def current() -> TimeAxis:
    """Return the axis of time of this thread's layers."""
    return _of_this_thread() if _entered else WHOLE


@outside_the_compiler
def _of_this_thread() -> TimeAxis:
    return _entered.get(threading.get_ident(), WHOLE)


@contextmanager
def along(axis: TimeAxis) -> Iterator[None]:
    """Set the axis of time of this thread's layers within a block."""
    before = current()
    _place(axis)
    try:
        yield
    finally:
        _place(before)


def _place(axis: TimeAxis) -> None:
    if axis is WHOLE:
        _entered.pop(threading.get_ident(), None)
    else:
        _entered[threading.get_ident()] = axis


@contextmanager
def turned(yes: bool) -> Iterator[None]:
    """Set the axis to that of reversed steps within a block, if ``yes``."""
    axis = current()
    opposite = axis.turned() if yes else axis
    if opposite is axis:  # the compiler must not see the dictionary change
        yield
        return
    with along(opposite):
        yield
