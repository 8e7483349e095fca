"""Training on problem 2b: one loop, resumable, with a record of every iteration."""

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
