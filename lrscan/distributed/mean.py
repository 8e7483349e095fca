"""Sum of gradients over chunks of time in DistributedDataParallel, which averages over ranks."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lrscan.core.torch_internals import data_parallel_at_work
from lrscan.distributed.exchange import Peers

# For each model, the number of chunks of one sequence over which its gradients are summed.
_summed: weakref.WeakKeyDictionary[DistributedDataParallel, int] = weakref.WeakKeyDictionary()


def summed(
    model: DistributedDataParallel,
    group: dist.ProcessGroup | None = None,
    hook: Callable | None = None,
    state: Any = None,
) -> DistributedDataParallel:
    """Make a model sum its gradients over the chunks of time that ``group`` splits.

    Use it as::

        model = distributed.summed(DistributedDataParallel(net), group)

    DistributedDataParallel averages gradients over all its ranks, but the gradients of the chunks
    of one sequence must be added. With this function they are added, and the mean over the
    minibatch remains. The loss stays as it is. Do not multiply it.

    Args:
        model: a DistributedDataParallel over the ranks of the group, and in a mesh over others
            too; before its first backward
        group: the group that is passed to :func:`sequence_parallel`; None for all processes
        hook: a communication hook of torch that replaces the model's own reduction. Do not
            register another one
        state: the state of the hook

    Returns:
        ``model``

    Raises:
        TypeError: the model is not a DistributedDataParallel
        RuntimeError: the model already has a communication hook, or there is no process group

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.nn.parallel import DistributedDataParallel
        >>> from lrscan import distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model = distributed.summed(DistributedDataParallel(torch.nn.Linear(3, 1)))
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> model.module.weight.grad
        tensor([[2., 2., 2.]])
        >>> dist.destroy_process_group()
    """
    if not isinstance(model, DistributedDataParallel):
        raise TypeError(f"model must be a DistributedDataParallel, not {type(model).__name__}")
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    size = Peers(group).size
    reduce = hook or allreduce_hook
    given = state if hook else model.process_group

    # torch refuses annotations that are strings, as they are in this file. So there are none.
    def summed_hook(_, bucket):  # type: ignore[no-untyped-def]
        bucket.buffer().mul_(size)
        return reduce(given, bucket)

    model.register_comm_hook(None, summed_hook)
    _summed[model] = size
    return model


def check_summed(peers: Peers) -> None:
    """Raise RuntimeError if a running DistributedDataParallel averages over these ranks."""
    model = data_parallel_at_work()
    if model is None or peers.size == 1 or not torch.is_grad_enabled():
        return
    if _summed.get(model) == peers.size:
        return
    over = dist.get_process_group_ranks(model.process_group)
    if set(dist.get_process_group_ranks(peers.group)) <= set(over):
        raise RuntimeError(
            f"DistributedDataParallel averages gradients over all its {len(over)} ranks, but the "
            f"gradients of the {peers.size} chunks of one sequence must be added; wrap the model "
            "as lrscan.distributed.summed(DistributedDataParallel(net), group), with the group "
            "that splits time, and leave the loss as it is"
        )
