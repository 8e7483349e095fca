"""Exchanges among ranks, and errors that name the rank that is missing.

In an exchange every rank receives a tensor of the same shape from every rank. Before a rank takes
part in one, it writes a note to the store of its group, which costs a few microseconds. Nobody
reads the notes until an exchange fails. Then they show which ranks did not take part, and what
those ranks did last.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.core.checks import said

# The number of exchanges that this process has begun in each group.
_exchanges: weakref.WeakKeyDictionary[dist.ProcessGroup, int] = weakref.WeakKeyDictionary()


class RankError(RuntimeError):
    """Error of an exchange that failed because of another rank.

    Attributes:
        ranks: the ranks that did not take part or that refused their arguments, as far as known

    Example:
        >>> from lrscan import distributed
        >>> error = distributed.RankError("rank 2 did not take part", [2])
        >>> error.ranks
        (2,)
    """

    def __init__(self, message: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(ranks)


class Peers:
    """Ranks of a group, in the order in which a recurrence passes them.

    Args:
        group: a process group; None for that of all processes
        turned: True if the recurrence begins with the last rank

    Attributes:
        rank: the rank of this process in the group
        size: the number of ranks
        position: the position of this process in the order of the recurrence, from 0
        device: the device of the tensors that are sent; None if they stay where they are
    """

    def __init__(self, group: dist.ProcessGroup | None, turned: bool = False) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError("no process group: call torch.distributed.init_process_group first")
        if group is not None and not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"group must be a process group that this process is in, not {said(group)}"
            )
        found = dist.group.WORLD if group is None else group
        assert found is not None  # it exists after init_process_group
        self.group = found
        self.rank, self.size, self.turned = found.rank(), found.size(), turned
        self.position = self.size - 1 - self.rank if turned else self.rank
        # gloo sends from the memory of the host.
        self.device = None if "nccl" in dist.get_backend(found) else torch.device("cpu")

    def gather(self, tensor: Tensor, operation: str) -> Callable[[], Tensor]:
        """Begin to collect a tensor of the same shape and dtype from every rank.

        Returns:
            A function that waits for the tensors and returns them as one, (size, ...), in the
            order of time. It raises RankError if a rank is dead or late.
        """
        if tensor.numel() == 0:
            return lambda: tensor.new_empty(self.size, *tensor.shape)
        own = tensor.detach().to(self.device or tensor.device).contiguous()
        own = torch.view_as_real(own) if own.is_complex() else own
        found = own.new_empty(self.size, *own.shape)
        number = self._note(operation)
        try:
            work = dist.all_gather(list(found.unbind()), own, group=self.group, async_op=True)
        except RuntimeError as error:
            raise self._failure(number, operation, error) from error

        def wait() -> Tensor:
            try:
                work.wait()
            except RuntimeError as error:
                raise self._failure(number, operation, error) from error
            whole = torch.view_as_complex(found) if tensor.is_complex() else found
            return (whole.flip(0) if self.turned else whole).to(tensor.device)

        return wait

    def _key(self, rank: int) -> str:
        return f"lrscan.distributed/{rank}"

    def _note(self, operation: str) -> int:
        """Write the note of the next exchange to the store, and return its number."""
        number = _exchanges.get(self.group, 0) + 1
        _exchanges[self.group] = number
        try:
            self.group.get_group_store().set(self._key(self.rank), f"{number} {operation}")
        except RuntimeError as error:
            raise self._failure(number, operation, error) from error
        return number

    def _failure(self, number: int, operation: str, error: RuntimeError) -> RankError:
        """Return the error that names the ranks that did not take part in an exchange."""
        missing = {}
        try:
            store = self.group.get_group_store()
            for rank in range(self.size):
                key = self._key(rank)
                note = store.get(key).decode() if store.check([key]) else ""
                reached, _, last = note.partition(" ")
                if int(reached or 0) < number:
                    missing[rank] = last
            where = "; ".join(
                f"rank {rank} of {self.size} did not take part, "
                + (f"its last exchange was {last!r}" if last else "nor in any exchange before")
                for rank, last in missing.items()
            )
            where = where or "every rank began it, but one of them then failed or was too slow"
        except RuntimeError:
            where = "the store of the group is gone too; check the process that holds it, rank 0"
        return RankError(
            f"rank {self.rank}: exchange {number}, {operation!r}, failed: {where} ({error})",
            list(missing),
        )


def gathered(tensor: Tensor, peers: Peers, operation: str) -> Tensor:
    """Return the tensors of all ranks as one, (size, ...), in the order of time, with gradients."""
    return _Gather.apply(tensor, peers, operation)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, peers: Peers, operation: str) -> Tensor:
        ctx.peers, ctx.operation = peers, operation
        return peers.gather(tensor, operation)()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        parts = ctx.peers.gather(grad, f"backward of {ctx.operation}")()
        return parts.sum(0)[ctx.peers.position], None, None
