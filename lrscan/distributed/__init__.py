"""Sequences split along time over the processes of a torch.distributed group."""

from lrscan.distributed.exchange import RankError
from lrscan.distributed.operator import linear_recurrence

__all__ = ["RankError", "linear_recurrence"]
