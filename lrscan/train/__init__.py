"""Training on problem 2b: a loop that can be resumed and keeps a row of every iteration.

The status of a run is one of these strings::

    LEARNED       it met the criterion that ends it, or the strict one within its iterations
    NOT_LEARNED   it did not, and reached its limit of iterations
    DIVERGED      a loss or a gradient was not finite
    PAUSED        its time ran out; it continues from its checkpoint
"""

from lrscan.train.loop import DIVERGED, LEARNED, NOT_LEARNED, PAUSED, Run, evaluate, train
from lrscan.train.settings import Classifier, Settings

__all__ = [
    "DIVERGED",
    "LEARNED",
    "NOT_LEARNED",
    "PAUSED",
    "Classifier",
    "Run",
    "Settings",
    "evaluate",
    "train",
]
