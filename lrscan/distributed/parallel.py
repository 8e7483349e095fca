"""Models on sequences that are split over ranks: what of a layer has to cross the borders.

The layers of ``lrscan.nn`` call :func:`scan` and :func:`history`, which are local outside
:func:`sequence_parallel`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.core.api import linear_recurrence, linear_recurrence_step
from lrscan.distributed.agreement import Header, agree
from lrscan.distributed.exchange import Peers, gathered
from lrscan.distributed.operator import recurrence

# By thread. The compiler watches whether it is empty, and need not know of threads while it is.
_peers: dict[int, Peers] = {}


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

    It holds for the thread that enters it. A function that is given to torch.utils.checkpoint
    enters it itself: backward calls that function again, later and maybe on another thread.

    Args:
        group: the ranks among which time is split; None: all processes

    DistributedDataParallel takes the mean over all its ranks, but the gradients of the pieces of
    one sequence add up: a model in it needs :func:`summed`, and the loss stays as it is.

    Raises:
        RuntimeError: there is no process group; or, from a model, it cannot be split over time,
                      or it is in a DistributedDataParallel over these ranks without ``summed``
        ValueError, RankError: as :func:`lrscan.distributed.linear_recurrence`, from a model
    """
    with among(Peers(group)):
        yield


@contextmanager
def among(peers: Peers | None) -> Iterator[None]:
    """In it this thread's sequences are split over these ranks; None: they are whole."""
    before = _here()
    _place(peers)
    try:
        yield
    finally:
        _place(before)


def _place(peers: Peers | None) -> None:
    if peers is None:
        _peers.pop(threading.get_ident(), None)
    else:
        _peers[threading.get_ident()] = peers


def _here() -> Peers | None:
    """The ranks that this thread's sequences are split over."""
    return _of_this_thread() if _peers else None


@torch._disable_dynamo
def _of_this_thread() -> Peers | None:
    return _peers.get(threading.get_ident())


def splits() -> bool:
    """Whether a sequence is a piece of one that is split over ranks."""
    return _here() is not None


@contextmanager
def turned(yes: bool) -> Iterator[None]:
    """In it pieces are in the opposite order, if ``yes``: each was turned round by itself."""
    peers = _here()
    if peers is None or not yes:
        yield
        return
    with among(Peers(peers.group, not peers.turned)):
        yield


def scan(a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
    """c[t] = a[t] * c[t-1] + u[t] along the first axis, and c after the last step of all."""
    peers = _here()
    if peers is not None:
        c, end = recurrence(a, u, start, peers, 0, False, algorithm, True)
        assert end is not None  # it was wanted
        return c, end
    if not torch.jit.is_tracing() and u.shape[0] == 1:  # needs no scan
        c = linear_recurrence_step(a[0], u[0], start).unsqueeze(0)
    else:  # for every number of steps alike: a trace holds no branch
        c = linear_recurrence(a, u, start, algorithm=algorithm)
    # A copy: a view would keep every step of c alive.
    return c, torch.cat([start.unsqueeze(0), c[-1:]])[-1]


def history(recent: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """What came before this rank's steps, and what the last steps of all leave.

    Args:
        recent: (up to k, ...), the last values of this rank's piece
        start:  (k, ...), the values before the first step of all

    Returns:
        (k, ...) and (k, ...), the oldest first
    """
    peers = _here()
    if peers is None:
        return start, torch.cat([start, recent])[-start.shape[0] :]
    return _history_of(peers, recent, start)


@torch._disable_dynamo
def _history_of(peers: Peers, recent: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    k = len(start)
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
