"""Measurements, as records: what the notebooks draw, and `lrscan bench` takes without Jupyter."""

from lrscan.bench.kernels import PARALLEL, correctness, kernel_speedup, speedups
from lrscan.bench.rates import call_cost, throughput
from lrscan.bench.registry import EXPERIMENTS, experiment, inputs
from lrscan.bench.timing import time_all

__all__ = [
    "EXPERIMENTS",
    "PARALLEL",
    "call_cost",
    "correctness",
    "experiment",
    "inputs",
    "kernel_speedup",
    "speedups",
    "throughput",
    "time_all",
]
