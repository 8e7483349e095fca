"""What ranks tell each other: values of equal shape, what they are about to do, and who is missing.

Before a rank takes part in an exchange it leaves a note of it in the store of its group, which
costs some microseconds. Nobody reads the notes until an exchange fails; then they tell which rank
did not come, and where the others were.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.core.checks import said

_exchanges: weakref.WeakKeyDictionary[dist.ProcessGroup, int] = weakref.WeakKeyDictionary()


class RankError(RuntimeError):
    """An exchange failed because of other ranks: ``ranks`` are those that did not take part."""

    def __init__(self, message: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(ranks)


class Peers:
    """The ranks of a group in the order in which a recurrence passes them.

    Args:
        group:  a process group; None: that of all processes
        turned: the recurrence begins with the last rank

    ``position`` is the place of this process in that order, of ``size``.
    """

    def __init__(self, group: dist.ProcessGroup | None, turned: bool = False) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError("no process group: call torch.distributed.init_process_group first")
        if group is not None and not isinstance(group, dist.ProcessGroup):
            raise TypeError(f"group is a process group that this process is in, not {said(group)}")
        found = dist.group.WORLD if group is None else group
        assert found is not None  # there is one once it is initialised
        self.group = found
        self.rank, self.size, self.turned = found.rank(), found.size(), turned
        self.position = self.size - 1 - self.rank if turned else self.rank
        # gloo moves the memory of the host.
        self.device = None if "nccl" in dist.get_backend(found) else torch.device("cpu")

    def gather(self, tensor: Tensor, operation: str) -> Callable[[], Tensor]:
        """Begin to collect a tensor of the same shape and dtype from every rank.

        Returns:
            a function that waits for (size, *shape), in the order of time; it raises RankError
            where a rank is dead or late
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
        """Leave word of the next exchange, and its number."""
        number = _exchanges.get(self.group, 0) + 1
        _exchanges[self.group] = number
        try:
            self.group.get_group_store().set(self._key(self.rank), f"{number} {operation}")
        except RuntimeError as error:
            raise self._failure(number, operation, error) from error
        return number

    def _failure(self, number: int, operation: str, error: RuntimeError) -> RankError:
        """The error that names who did not come to an exchange."""
        missing = {}
        try:
            store = self.group.get_group_store()
            for rank in range(self.size):
                told = store.get(self._key(rank)).decode() if store.check([self._key(rank)]) else ""
                reached, _, last = told.partition(" ")
                if int(reached or 0) < number:
                    missing[rank] = last
            where = "; ".join(
                f"rank {rank} of {self.size} did not come to it, its last one was "
                + (f"{last!r}" if last else "none")
                for rank, last in missing.items()
            )
            where = where or "every rank had come to it, and then one broke off or was slow"
        except RuntimeError:
            where = "the store of the group is gone too: look at the process that holds it, rank 0"
        return RankError(
            f"rank {self.rank}: exchange {number}, {operation!r}, failed: {where} ({error})",
            list(missing),
        )


def gathered(tensor: Tensor, peers: Peers, operation: str) -> Tensor:
    """(size, *shape): the tensor of every rank, in the order of time, with gradients."""
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
