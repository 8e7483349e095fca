"""Measurements, as records: what the notebooks draw, and `lrscan bench` takes without Jupyter."""

from lrscan.bench.kernels import correctness, kernel_speedup
from lrscan.bench.learning import long_memory, problem_2b, problem_2b_search, search_records
from lrscan.bench.longer import peak_memory
from lrscan.bench.models import lstm_throughput, step_time, throughputs, training_speedup
from lrscan.bench.pieces import Paused
from lrscan.bench.rates import call_cost, throughput
from lrscan.bench.ratios import PARALLEL, shares, speedups
from lrscan.bench.registry import EXPERIMENTS, experiment, inputs
from lrscan.bench.scale import fitted, modelled, outlook, scaling
from lrscan.bench.timing import time_all
from lrscan.bench.trained import chosen, convergence, curves, outcomes, ranked, sooner, span

__all__ = [
    "EXPERIMENTS",
    "PARALLEL",
    "Paused",
    "call_cost",
    "chosen",
    "convergence",
    "correctness",
    "curves",
    "experiment",
    "fitted",
    "inputs",
    "kernel_speedup",
    "long_memory",
    "lstm_throughput",
    "modelled",
    "outcomes",
    "outlook",
    "peak_memory",
    "problem_2b",
    "problem_2b_search",
    "ranked",
    "scaling",
    "search_records",
    "shares",
    "sooner",
    "span",
    "speedups",
    "step_time",
    "throughput",
    "throughputs",
    "time_all",
    "training_speedup",
]
