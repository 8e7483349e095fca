"""DistributedDataParallel takes the mean over ranks, but gradients of chunks of time add up."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lrscan.core.torch_internals import data_parallel_at_work
from lrscan.distributed.exchange import Peers

# Over how many chunks of one sequence the gradients of each are summed.
_summed: weakref.WeakKeyDictionary[DistributedDataParallel, int] = weakref.WeakKeyDictionary()


def summed(
    model: DistributedDataParallel,
    group: dist.ProcessGroup | None = None,
    hook: Callable | None = None,
    state: Any = None,
) -> DistributedDataParallel:
    """The model, whose gradients are now the sum over the chunks of time that ``group`` splits.

        model = distributed.summed(DistributedDataParallel(net), group)

    DistributedDataParallel takes the mean over all its ranks, but the gradients of the chunks of
    one sequence add up. With this they do, and over the minibatch remains the mean. The loss stays
    as it is: do not multiply it.

    Args:
        model: over the ranks of the group, and of others in a mesh; before its first backward
        group: that of :func:`sequence_parallel`; None: all processes
        hook, state: a communication hook of torch that is to be used in place of its own;
               register none beside it

    Raises:
        TypeError: the model is no DistributedDataParallel
        RuntimeError: it has a communication hook already, or there is no process group
    """
    if not isinstance(model, DistributedDataParallel):
        raise TypeError(f"summed takes a DistributedDataParallel, not {type(model).__name__}")
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    size = Peers(group).size
    reduce = hook or allreduce_hook
    given = state if hook else model.process_group

    # torch wants annotations that are types, or none.
    def summed_hook(_, bucket):  # type: ignore[no-untyped-def]
        bucket.buffer().mul_(size)
        return reduce(given, bucket)

    model.register_comm_hook(None, summed_hook)
    _summed[model] = size
    return model


def check_summed(peers: Peers) -> None:
    """Raise unless a DistributedDataParallel that is at work sums over these ranks."""
    model = data_parallel_at_work()
    if model is None or peers.size == 1 or not torch.is_grad_enabled():
        return
    if _summed.get(model) == peers.size:
        return
    over = dist.get_process_group_ranks(model.process_group)
    if set(dist.get_process_group_ranks(peers.group)) <= set(over):
        raise RuntimeError(
            f"DistributedDataParallel takes the mean over all its {len(over)} ranks, but the "
            f"gradients of the {peers.size} chunks of one sequence add up: wrap the model as "
            "lrscan.distributed.summed(DistributedDataParallel(net), group), with the group of "
            "the chunks, and leave the loss as it is"
        )
