"""Measurements, as records: what the notebooks draw, and `lrscan bench` takes without Jupyter."""

from lrscan.bench.kernels import correctness, kernel_speedup
from lrscan.bench.models import lstm_throughput, step_time, throughputs, training_speedup
from lrscan.bench.pieces import Paused
from lrscan.bench.rates import call_cost, throughput
from lrscan.bench.ratios import PARALLEL, speedups
from lrscan.bench.registry import EXPERIMENTS, experiment, inputs
from lrscan.bench.timing import time_all

__all__ = [
    "EXPERIMENTS",
    "PARALLEL",
    "Paused",
    "call_cost",
    "correctness",
    "experiment",
    "inputs",
    "kernel_speedup",
    "lstm_throughput",
    "speedups",
    "step_time",
    "throughput",
    "throughputs",
    "time_all",
    "training_speedup",
]
