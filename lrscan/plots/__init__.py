"""Figures from records. Nothing is computed here: every number comes from a table."""

from lrscan.plots.learning import growth, learning_curves, search
from lrscan.plots.models import lstm_throughput, step_time, training_speedup
from lrscan.plots.operator import correctness, kernel_speedup, throughput

__all__ = [
    "correctness",
    "growth",
    "kernel_speedup",
    "learning_curves",
    "lstm_throughput",
    "search",
    "step_time",
    "throughput",
    "training_speedup",
]
