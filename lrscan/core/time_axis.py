"""The axis of time of a thread's layers, as an object that knows what lies along it.

A product with a weight and a cell take every step by itself. A recurrence and a shift in time do
not: they ask :func:`current`, which is one of

    TimeAxis       one batch of equal length, whole: this, unless something else was entered
    Sequences      sequences of unequal length that lie end to end (:mod:`lrscan.nn.sequences`)
    Split          a batch whose chunks lie on different ranks (:mod:`lrscan.distributed.parallel`)

The others are subclasses. They override what differs, and are entered by :func:`along`.
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
    """One batch of sequences of equal length, all of it here. A step is (B, ...).

    whole       it may be cut into chunks, one after the other
    split       a chunk of it is here, and the others on other ranks
    cu_seqlens  cumulative lengths, int64 on the CPU, if sequences lie end to end; else None
    """

    whole: ClassVar[bool] = True
    split: ClassVar[bool] = False
    cu_seqlens: Tensor | None = None

    def batch(self, size: int) -> int:
        """How many sequences there are in steps of ``size`` rows."""
        return size

    def turned(self) -> TimeAxis:
        """The axis of the same steps after each sequence was turned round where it lies."""
        return self

    def ends(self, steps: Tensor) -> Tensor:
        """(B, ...): the last step of each sequence, a copy: a view would keep every step alive."""
        return steps[-1].clone()

    def scan(self, a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
        """c[t] = a[t] * c[t-1] + u[t] along the first axis, and c after the last step of all."""
        if not torch.jit.is_tracing() and u.shape[0] == 1:  # needs no scan
            c = linear_recurrence_step(a[0], u[0], start).unsqueeze(0)
        else:  # for every number of steps alike: a trace holds no branch
            c = linear_recurrence(a, u, start, algorithm=algorithm)
        # A copy, as in ``ends``, and the start where there are no steps.
        return c, torch.cat([start.unsqueeze(0), c[-1:]])[-1]

    def lagged(self, past: Tensor, steps: Tensor) -> Callable[[int], Tensor]:
        """A function of a lag of up to k: each step's value that long before, (T, B, ...).

        Args:
            past:  (k, B, ...), the values before the first step, the oldest first
            steps: (T, B, ...)
        """
        k, joined = len(past), torch.cat([past, steps])
        # A trace knows the shape, and takes what len gives for a constant.
        return lambda lag: joined[k - lag :][: steps.shape[0]]

    def history(
        self, take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What came before these steps, and the last k values of each sequence, both (k, B, ...).

        Args:
            take: gives (number, B, ...) values for a function that picks steps
            past: (k, B, ...), the values before the first step of all, the oldest first
        """
        k = len(past)
        recent = take(lambda steps: steps[-k:]).to(past.dtype)
        return past, torch.cat([past, recent])[-k:]


WHOLE = TimeAxis()
# By thread, where it is not WHOLE. The compiler watches whether the dictionary is empty, and need
# not know of threads while it is.
_entered: dict[int, TimeAxis] = {}


def current() -> TimeAxis:
    """The axis of time of this thread's layers."""
    return _of_this_thread() if _entered else WHOLE


@outside_the_compiler
def _of_this_thread() -> TimeAxis:
    return _entered.get(threading.get_ident(), WHOLE)


@contextmanager
def along(axis: TimeAxis) -> Iterator[None]:
    """In it this is the axis of time of this thread's layers."""
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
    """In it the steps were turned round, if ``yes``."""
    axis = current()
    opposite = axis.turned() if yes else axis
    if opposite is axis:  # for the compiler too, which must not see the dictionary change
        yield
        return
    with along(opposite):
        yield
