"""Timing of candidates against each other, in turn, on one device."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lrscan.core.torch_internals import sleep_on_the_gpu

# Shortest sample on a CPU, so that the clock's resolution does not matter.
_SHORTEST_SAMPLE_S = 5e-3
# In samples this long, what earlier calls left in the caches does not matter.
_LONG_S = 0.1
# Read between two GPU samples, so that the cache holds no inputs and nothing to write back.
_FLUSH_BYTES = 256 * 2**20
# The GPU idles this long, most of a millisecond, while the host queues a call.
_HEAD_START_CYCLES = 10**6

Quartiles = tuple[float, float, float]


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the first quartile, the median and the third quartile."""
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    first, median, third = torch.tensor(samples, dtype=torch.float64).quantile(levels).tolist()
    return first, median, third


def columns(milliseconds: Quartiles) -> dict[str, float]:
    """Return quartiles as columns of a record."""
    return dict(zip(("q1_ms", "median_ms", "q3_ms"), milliseconds, strict=True))


def time_all(
    candidates: Mapping[Any, Callable[[], Any]],
    device: torch.device,
    runs: int,
    clocks: Mapping[Any, str] | None = None,
) -> dict[Any, Quartiles]:
    """Return quartiles in milliseconds of each candidate, sampled in turn so that all share noise.

    Each round has an order of its own. Otherwise the same candidate would always pay for what the
    one before it leaves behind, in caches or as freed memory.

    On a CPU a sample is as many calls as fill five milliseconds, after one that is not timed. On a
    GPU a sample is one call, and the cache is flushed before it. There are three clocks for it::

        "graph"   replayed as a CUDA graph, between two events; if it cannot be captured, "stream"
        "stream"  queued on torch's current stream while that is busy, between two events
        "host"    from an idle device to an idle device, by the host's clock, launches included:
                  for candidates that use streams of their own

    Args:
        candidates: calls by name
        device:     to synchronise with
        runs:       samples of each candidate
        clocks:     for a GPU, the clocks of some candidates; "graph" for all others
    """
    clocks = clocks or {}
    samplers = {
        name: _sampler(candidate, device, clocks.get(name, "graph"))
        for name, candidate in candidates.items()
    }
    samples: dict[Any, list[float]] = {name: [] for name in samplers}
    for number in range(runs):
        for name in random.Random(number).sample(list(samplers), len(samplers)):
            samples[name].append(samplers[name]())
    return {name: quartiles(taken) for name, taken in samples.items()}


def _sampler(call: Callable[[], Any], device: torch.device, clock: str) -> Callable[[], float]:
    if device.type != "cuda":
        return _cpu_sampler(call)
    call()
    torch.cuda.synchronize()
    if clock == "host":
        return lambda: _host_sample(call)
    if clock == "graph":
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads of a rival's library neither end the capture nor fail because of it.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                call()
            return lambda: _event_sample(graph.replay, 0)
        except RuntimeError:  # a library call that a graph cannot hold
            torch.cuda.synchronize()
    return lambda: _event_sample(call, _HEAD_START_CYCLES)


def _cpu_sampler(call: Callable[[], Any]) -> Callable[[], float]:
    call()
    calls, seconds = 1, _seconds(call, 1)
    while seconds < _SHORTEST_SAMPLE_S:
        calls *= 2
        seconds = _seconds(call, calls)

    def take() -> float:
        if seconds < _LONG_S:
            call()  # pays for the write-back of what the previous candidate left in the cache
        return _seconds(call, calls) / calls * 1e3

    return take


def _seconds(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


@functools.cache
def _flush() -> Callable[[], object]:
    """Return a call that empties the GPU's cache by reading a buffer many times its size."""
    buffer = torch.randint(2**31, (_FLUSH_BYTES // 8,), device="cuda")
    total = torch.empty((), dtype=torch.int64, device="cuda")
    return lambda: torch.sum(buffer, 0, out=total)


def _event_sample(call: Callable[[], Any], idle_cycles: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _flush()()
    if idle_cycles:
        sleep_on_the_gpu(idle_cycles)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _host_sample(call: Callable[[], Any]) -> float:
    _flush()()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3
