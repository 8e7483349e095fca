"""Models of ``lrscan.nn`` on sequences whose steps are split over ranks.

Inside :func:`sequence_parallel` the axis of time of the layers is a :class:`Split`. The layers call
it for scans and for earlier values (:mod:`lrscan.core.time_axis`), which cross the borders between
chunks.
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
    """Let models of ``lrscan.nn`` take chunks of time as inputs, within a block.

    Use it as::

        with sequence_parallel(group):
            output, state = model(chunk, state)

    Rank 0 of the group holds the first steps. Chunks may differ in length. ``output`` belongs to
    the rank's own steps. The input state is read on the first rank only. The returned state is the
    one after the last step of the last chunk, and is the same on every rank.

    Every rank makes the same calls. Every rank also calls backward with a loss of its own, or with
    zero times an output if it has none. The loss of the model is the sum over ranks, and so is the
    gradient of a parameter. DistributedDataParallel averages gradients over all its ranks instead.
    Wrap such a model with :func:`summed` and leave the loss as it is.

    Dropout on every rank draws from that rank's generator.

    The block affects only the thread that enters it. A function that is passed to
    torch.utils.checkpoint must enter the block itself, because backward calls that function again
    later, possibly on another thread.

    Args:
        group: the ranks over which time is split; None for all processes

    Raises:
        RuntimeError: there is no process group. A model raises it too if it cannot be split over
            time, or if it is in a DistributedDataParallel over these ranks without ``summed``
        ValueError: from a model, as :func:`lrscan.distributed.linear_recurrence`
        RankError: from a model, as :func:`lrscan.distributed.linear_recurrence`

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from lrscan import distributed, nn
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model, chunk = nn.GILR(3, 4), torch.randn(6, 2, 3)
        >>> with distributed.sequence_parallel():
        ...     output, state = model(chunk)
        >>> torch.allclose(output, model(chunk)[0], atol=1e-5)
        True
        >>> dist.destroy_process_group()
    """
    with along(Split(Peers(group))):
        yield


class Split(TimeAxis):
    """One batch whose chunks are on the ranks of a group, one chunk per rank."""

    whole = False
    split = True

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    def turned(self) -> Split:
        """Return the axis of the chunks in the opposite order."""
        return Split(Peers(self.peers.group, not self.peers.turned))

    def scan(self, a: Tensor, u: Tensor, start: Tensor, algorithm: str) -> tuple[Tensor, Tensor]:
        c, end = recurrence(a, u, start, self.peers, 0, False, algorithm, True)
        assert end is not None  # because want_end is True
        return c, end

    def history(
        self, take: Callable[[Callable[[Tensor], Tensor]], Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the k values before this rank's steps, and the last k values of all chunks."""
        recent = take(lambda steps: steps[-len(past) :]).to(past.dtype)
        return _history_of(self.peers, recent, past)


@outside_the_compiler
def _history_of(peers: Peers, recent: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :meth:`Split.history` does, from the last (at most k) values of this chunk."""
    k = len(start)
    gradient = torch.is_grad_enabled() and (recent.requires_grad or start.requires_grad)
    columns = tuple(start.shape)
    header = Header("history", start.dtype, 0, peers.turned, True, columns, len(recent), gradient)
    headers = agree(peers, header, start.device)()
    empty = start.new_zeros(k - len(recent), *columns[1:])
    if torch.is_grad_enabled() and any(own.gradient for own in headers):
        # Backward is an exchange too. All ranks must take part in it, or none.
        start = start if start.requires_grad else start.detach().requires_grad_()
    parts = gathered(torch.cat([start, recent, empty]), peers, "exchange of history")
    before = held = parts[0, :k]
    for position, own in enumerate(headers):
        if position == peers.position:
            before = held
        held = torch.cat([held, parts[position, k : k + own.steps]])[-k:]
    return before, held
