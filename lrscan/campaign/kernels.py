"""List of the CUDA kernels that a campaign launches, made without a GPU by the launch planner."""

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
    """Return all kernels, by name, that the phases launch on a GPU with ``processors`` SMs."""
    with noted(processors) as found:
        every = smoke.for_cuda()
        # If a case fails, smaller cases of other layouts are tried, and they need these kernels.
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
    """Yield (shape, dim, dtype, algorithms) of every sweep in the timings and the trainings."""
    every = list(ALGORITHMS["cuda"])
    given = parameters("reproduce/02_kernel_speedup")
    for shape in in_order(given["lengths"], given["features"]):
        yield shape, 0, "float32", every
    for case in gpu_cases(given["elements"], given["compare"]):
        yield case.shape, case.dim, case.dtype, every
    yield (4, 3), 0, "float32", ["auto"]  # the cost of a call
    given = parameters("reproduce/03_training_speedup")
    for steps, width in product(given["lengths"], given["widths"]):
        yield (steps, given["events"] // steps, width), 0, "float32", every
    given = parameters("reproduce/04_lstm_throughput")
    for steps, batch in product(given["lengths"], given["minibatches"]):
        yield (steps, batch, given["hidden"]), 0, "float32", ["auto"]
    for name in ("reproduce/05_problem_2b", "reproduce/06_one_million_steps"):
        given = parameters(name)
        for steps, batch in product([*given["lengths"], 128], (1, 2, 4, given["batch"], 256)):
            yield (steps, batch, given["hidden"]), 0, "float32", ["auto"]
