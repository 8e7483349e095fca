"""Models on sequences that are split over ranks: what of a layer has to cross the borders.

Inside :func:`sequence_parallel` the axis of time of the layers of ``lrscan.nn`` is :class:`Split`,
which the layers ask for a scan and for what came before (:mod:`lrscan.core.time_axis`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.core.time_axis import TimeAxis, along
from lrscan.core.torch_internals import outside_the_compiler
from lrscan.distributed.agreement import Header, agree
from lrscan.distributed.exchange import Peers, gathered
from lrscan.distributed.operator import recurrence


@contextmanager
def sequence_parallel(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Models of ``lrscan.nn`` that are called in it take their inputs as chunks of time.

        with sequence_parallel(group):
            output, state = model(chunk, state)

    Rank 0 of the group holds the first steps. ``output`` belongs to the rank's own steps;
    the state that is given is read on the rank that comes first, and the state that is returned,
    the one after the last step of all, is the same on every rank. Chunks may differ in length.
    Every rank makes the same calls, and calls backward with a loss of its own (zero times an
    output, where it has none): the loss of the model is the sum over ranks, and so is the
    gradient of a parameter. Dropout draws on every rank from that rank's generator.

    It holds for the thread that enters it. A function that is given to torch.utils.checkpoint
    enters it itself: backward calls that function again, later and maybe on another thread.

    Args:
        group: the ranks among which time is split; None: all processes

    DistributedDataParallel takes the mean over all its ranks, but the gradients of the chunks of
    one sequence add up: a model in it needs :func:`summed`, and the loss stays as it is.

    Raises:
        RuntimeError: there is no process group; or, from a model, it cannot be split over time,
                      or it is in a DistributedDataParallel over these ranks without ``summed``
        ValueError, RankError: as :func:`lrscan.distributed.linear_recurrence`, from a model
    """
    with along(Split(Peers(group))):
        yield


class Split(TimeAxis):
    """The chunks of one batch on the ranks of a group, of which one chunk is here."""

    whole = False
    split = True

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    def turned(self) -> Split:
        """The chunks lie in the opposite order."""
        return Split(Peers(self.peers.group, not self.peers.turned))

    def scan(self, a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
        c, end = recurrence(a, u, start, self.peers, 0, False, algorithm, True)
        assert end is not None  # it was wanted
        return c, end

    def history(
        self, take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What came before this rank's steps, and what the last steps of all leave."""
        recent = take(lambda steps: steps[-len(past) :]).to(past.dtype)
        return _history_of(self.peers, recent, past)


@outside_the_compiler
def _history_of(peers: Peers, recent: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """:meth:`Split.history` from ``recent``, up to k last values of this rank's chunk."""
    k = len(start)
    gradient = torch.is_grad_enabled() and (recent.requires_grad or start.requires_grad)
    columns = tuple(start.shape)
    header = Header("history", start.dtype, 0, peers.turned, True, columns, len(recent), gradient)
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
