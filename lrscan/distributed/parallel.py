"""Models on sequences that are split over ranks: what of a layer has to cross the borders.

The layers of ``lrscan.nn`` call :func:`scan` and :func:`history`, which are local outside
:func:`sequence_parallel`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.distributed.agreement import Header, agree
from lrscan.distributed.exchange import Peers, gathered
from lrscan.distributed.operator import recurrence
from lrscan.ops import linear_recurrence, linear_recurrence_step

_peers: ContextVar[Peers | None] = ContextVar("lrscan.distributed.peers", default=None)


@contextmanager
def sequence_parallel(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Models of ``lrscan.nn`` that are called in it take their inputs as pieces of time.

        with sequence_parallel(group):
            output, state = model(piece, state)

    Rank 0 of the group holds the first steps. ``output`` belongs to the rank's own steps;
    the state that is given is read on the rank that comes first, and the state that is returned,
    the one after the last step of all, is the same on every rank. Pieces may differ in length.
    Every rank makes the same calls, and calls backward with a loss of its own (zero times an
    output, where it has none): the loss of the model is the sum over ranks, and so is the
    gradient of a parameter. Dropout draws on every rank from that rank's generator.

    Args:
        group: the ranks among which time is split; None: all processes. With
               DistributedDataParallel, which takes the mean over all its ranks, multiply the loss
               by the size of this group.

    Raises:
        RuntimeError: there is no process group; or, from a model, it cannot be split over time
        ValueError, RankError: as :func:`lrscan.distributed.linear_recurrence`, from a model
    """
    token = _peers.set(Peers(group))
    try:
        yield
    finally:
        _peers.reset(token)


def splits() -> bool:
    """Whether a sequence is a piece of one that is split over ranks."""
    return _peers.get() is not None


@contextmanager
def turned(yes: bool) -> Iterator[None]:
    """In it pieces are in the opposite order, if ``yes``: each was turned round by itself."""
    peers = _peers.get()
    if peers is None or not yes:
        yield
        return
    token = _peers.set(Peers(peers.group, not peers.turned))
    try:
        yield
    finally:
        _peers.reset(token)


def scan(a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
    """c[t] = a[t] * c[t-1] + u[t] along the first axis, and c after the last step of all."""
    peers = _peers.get()
    if peers is not None:
        return recurrence(a, u, start, peers, 0, False, algorithm, True)
    if len(u) == 1:  # needs no scan
        c = linear_recurrence_step(a[0], u[0], start).unsqueeze(0)
    else:
        c = linear_recurrence(a, u, start, algorithm=algorithm)
    # A copy: a view would keep every step of c alive.
    return c, c[-1].clone() if len(c) else start


def history(recent: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """What came before this rank's steps, and what the last steps of all leave.

    Args:
        recent: (up to k, ...), the last values of this rank's piece
        start:  (k, ...), the values before the first step of all

    Returns:
        (k, ...) and (k, ...), the oldest first
    """
    peers, k = _peers.get(), len(start)
    if peers is None:
        return start, torch.cat([start, recent])[-k:]
    gradient = torch.is_grad_enabled() and (recent.requires_grad or start.requires_grad)
    columns = tuple(start.shape)
    header = Header(
        "history", start.dtype, 0, peers.turned, True, columns, len(recent), gradient
    )  # fmt: skip
    headers = agree(peers, header, start.device)()
    empty = start.new_zeros(k - len(recent), *columns[1:])
    if torch.is_grad_enabled() and any(own.gradient for own in headers):
        # Backward is an exchange: all ranks take part in it or none.
        start = start if start.requires_grad else start.detach().requires_grad_()
    parts = gathered(torch.cat([start, recent, empty]), peers, "exchange of history")
    before = held = parts[0, :k]
    for position, own in enumerate(headers):
        if position == peers.position:
            before = held
        held = torch.cat([held, parts[position, k : k + own.steps]])[-k:]
    return before, held
