"""Timing of candidates against each other, in turn, on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

# A sample of a CPU timing lasts at least so long, so that the clock does not matter.
_SHORTEST_SAMPLE_S = 5e-3
# What the calls before left in the caches does not matter to a sample that lasts so long.
_LONG_S = 0.1
# Written between two GPU samples, so that no input is left in the cache.
_FLUSH_BYTES = 256 * 2**20


def time_all(
    candidates: Mapping[str, Callable[[], Any]], device: torch.device, runs: int
) -> dict[str, tuple[float, float, float]]:
    """Quartiles in milliseconds of each candidate, sampled in turn so that all share the noise.

    On the CPU a sample is as many calls as fill five milliseconds, after one that is not
    timed. On a GPU it is one call replayed as a CUDA graph, between two events, with the cache
    flushed before; the call itself where it cannot be captured.
    """
    sample = _gpu_sampler if device.type == "cuda" else _cpu_sampler
    samplers = {name: sample(candidate) for name, candidate in candidates.items()}
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(runs):
        for name, take in samplers.items():
            samples[name].append(take())
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        name: tuple(torch.tensor(taken, dtype=torch.float64).quantile(quartiles).tolist())
        for name, taken in samples.items()
    }


def _cpu_sampler(call: Callable[[], Any]) -> Callable[[], float]:
    call()
    calls, seconds = 1, _seconds(call, 1)
    while seconds < _SHORTEST_SAMPLE_S:
        calls *= 2
        seconds = _seconds(call, calls)

    def take() -> float:
        if seconds < _LONG_S:
            call()  # not to pay for what the candidate before left to be written back
        return _seconds(call, calls) / calls * 1e3

    return take


def _seconds(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def _gpu_sampler(call: Callable[[], Any]) -> Callable[[], float]:
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
        once: Callable[[], Any] = graph.replay
    except RuntimeError:  # a library call that a graph cannot hold
        torch.cuda.synchronize()
        once = call
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def take() -> float:
        flush.zero_()
        start.record()
        once()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return take
