"""Sequences split along time over the processes of a torch.distributed group."""

from lrscan.distributed.exchange import RankError
from lrscan.distributed.operator import linear_recurrence
from lrscan.distributed.parallel import sequence_parallel

__all__ = ["RankError", "linear_recurrence", "sequence_parallel"]
