"""Figures from records. Nothing is computed here: every number comes from a table."""

from lrscan.plots.learning import growth, learning_curves, search
from lrscan.plots.models import lstm_throughput, step_time, training_speedup
from lrscan.plots.operator import call_cost, correctness, kernel_speedup, throughput
from lrscan.plots.scale import outlook, peak_memory, scaling

__all__ = [
    "call_cost",
    "correctness",
    "growth",
    "kernel_speedup",
    "learning_curves",
    "lstm_throughput",
    "outlook",
    "peak_memory",
    "scaling",
    "search",
    "step_time",
    "throughput",
    "training_speedup",
]
