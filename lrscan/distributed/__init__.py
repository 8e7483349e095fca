"""Sequences split along time over the processes of a torch.distributed group.

In a file ``split.py``:

    import torch
    import torch.distributed as dist
    from lrscan import distributed

    dist.init_process_group("gloo")                     # "nccl" on GPUs
    a = torch.rand(1000 + dist.get_rank(), 32, requires_grad=True)  # this rank's steps
    x = torch.randn(1000 + dist.get_rank(), 32, requires_grad=True)
    h = distributed.linear_recurrence(a, x)             # rank 0 holds the first steps
    h.square().sum().backward()                         # gradients cross the borders too
    print(dist.get_rank(), h.shape, a.grad.norm())
    dist.destroy_process_group()

It is started by ``torchrun --standalone --nproc-per-node 2 split.py``. The models of
:mod:`lrscan.nn` take chunks of time in the same way inside :func:`sequence_parallel`.
DistributedDataParallel takes the mean over all its ranks, but the gradients of the chunks of one
sequence add up: a model in it needs :func:`summed`, and the loss stays as it is. What a split costs
is in :mod:`lrscan.distributed.cost`.
"""

from lrscan.distributed import cost
from lrscan.distributed.exchange import RankError
from lrscan.distributed.mean import summed
from lrscan.distributed.operator import linear_recurrence
from lrscan.distributed.parallel import sequence_parallel

__all__ = ["RankError", "cost", "linear_recurrence", "sequence_parallel", "summed"]
