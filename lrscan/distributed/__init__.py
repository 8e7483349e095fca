"""Sequences whose steps are split over the processes of a torch.distributed group.

Each process, or rank, holds a chunk of consecutive steps. In a file ``split.py``::

    import torch
    import torch.distributed as dist
    from lrscan import distributed

    dist.init_process_group("gloo")  # "nccl" on GPUs
    a = torch.rand(1000 + dist.get_rank(), 32, requires_grad=True)  # this rank's steps
    x = torch.randn(1000 + dist.get_rank(), 32, requires_grad=True)
    h = distributed.linear_recurrence(a, x)  # rank 0 holds the first steps
    h.square().sum().backward()  # gradients cross the borders too
    print(dist.get_rank(), h.shape, a.grad.norm())
    dist.destroy_process_group()

Start it with ``torchrun --standalone --nproc-per-node 2 split.py``.

Inside :func:`sequence_parallel` the models of :mod:`lrscan.nn` take chunks of time in the same way.
DistributedDataParallel averages gradients over all its ranks, but the gradients of the chunks of
one sequence must be added. Wrap such a model with :func:`summed` and leave the loss as it is.
:mod:`lrscan.distributed.cost` predicts how long a split recurrence takes.
"""

from lrscan.distributed import cost
from lrscan.distributed.exchange import RankError
from lrscan.distributed.mean import summed
from lrscan.distributed.operator import linear_recurrence
from lrscan.distributed.parallel import sequence_parallel

__all__ = ["RankError", "cost", "linear_recurrence", "sequence_parallel", "summed"]
