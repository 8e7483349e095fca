"""The CUDA kernels that a campaign launches, found by asking the planner, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from lrscan.campaign import smoke
from lrscan.campaign.plan import parameters
from lrscan.campaign.warmup import H100_PROCESSORS
from lrscan.core.checks import ALGORITHMS
from lrscan.cuda.launch import Kernel, launch_both_ways, noted
from lrscan.experiments.cases import gpu_cases
from lrscan.experiments.kernel_speedup import in_order

_SMALLER = list(product(product((1, 3, 8, 33, 128), repeat=2), (0, 1)))


def needed(processors: int = H100_PROCESSORS) -> dict[str, Kernel]:
    """Every kernel that the phases launch on a device of so many multiprocessors, by name."""
    with noted(processors) as found:
        every = smoke.for_cuda()
        # Should one fail, smaller ones are tried, of other layouts.
        kinds = {case._replace(shape=(), dim=0, public=False): None for case in every}
        every += [
            kind._replace(shape=shape, dim=dim) for kind, (shape, dim) in product(kinds, _SMALLER)
        ]
        for case in every:
            smoke.launch(case)
        for shape, dim, dtype, algorithms in _measured():
            for algorithm in algorithms:
                launch_both_ways(shape, dim, getattr(torch, dtype), algorithm)
    return dict(found)


def _measured() -> Iterator[tuple[tuple[int, ...], int, str, list[str]]]:
    """(shape, dim, dtype, algorithms) of what is timed and trained."""
    every = list(ALGORITHMS["cuda"])
    of = parameters("reproduce/02_kernel_speedup")
    for shape in in_order(of["lengths"], of["features"]):
        yield shape, 0, "float32", every
    for case in gpu_cases(of["elements"], of["compare"]):
        yield case.shape, case.dim, case.dtype, every
    yield (4, 3), 0, "float32", ["auto"]  # the cost of a call
    of = parameters("reproduce/03_training_speedup")
    for steps, width in product(of["lengths"], of["widths"]):
        yield (steps, of["events"] // steps, width), 0, "float32", every
    of = parameters("reproduce/04_lstm_throughput")
    for steps, batch in product(of["lengths"], of["minibatches"]):
        yield (steps, batch, of["hidden"]), 0, "float32", ["auto"]
    for name in ("reproduce/05_problem_2b", "reproduce/06_one_million_steps"):
        of = parameters(name)
        for steps, batch in product([*of["lengths"], 128], (1, 2, 4, of["batch"], 256)):
            yield (steps, batch, of["hidden"]), 0, "float32", ["auto"]
