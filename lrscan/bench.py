"""Measurements, each a function from parameters to records. They need the core packages only.

A measurement compares the results first and times them then, all in one run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import pandas
import torch
from torch import Tensor

from lrscan import arguments, ops, provenance, records, sweep, workspace
from lrscan.records import Records
from lrscan.reference import linear_recurrence_reference, oracle, rounding_bound

EXPERIMENTS: dict[str, Callable[..., Records]] = {}

# A sample of a CPU timing lasts at least so long, so that the clock does not matter.
_SHORTEST_SAMPLE_S = 5e-3
# Written between two GPU samples, so that no input is left in the cache.
_FLUSH_BYTES = 256 * 2**20


def experiment(notebook: str) -> Callable[[Callable[..., Records]], Callable[..., Records]]:
    """Enter a function into EXPERIMENTS, as what ``notebook`` measures."""

    def enter(function: Callable[..., Records]) -> Callable[..., Records]:
        function.name = function.__name__
        function.notebook = notebook
        function.summary = function.__doc__.partition("\n")[0].rstrip(".")
        EXPERIMENTS[function.name] = function
        return function

    return enter


def inputs(
    steps: int, columns: int, dtype: torch.dtype, device: torch.device, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(a, x, h0) of shapes (T, C), (T, C), (C,): coefficients of either sign, magnitude under 1.

    Drawn on the CPU, so that every device sees the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    a = torch.rand(steps, columns, generator=generator, dtype=torch.float64) * 2 - 1
    if dtype.is_complex:
        angle = torch.rand(steps, columns, generator=generator, dtype=torch.float64)
        a = torch.polar(a.abs(), 2 * math.pi * angle)
    x = torch.randn(steps, columns, generator=generator, dtype=wide)
    h0 = torch.randn(columns, generator=generator, dtype=wide)
    return a.to(device, dtype), x.to(device, dtype), h0.to(device, dtype)


@experiment("reproduce/01_correctness")
def correctness(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    dtypes: Iterable[str],
) -> Records:
    """Errors of every algorithm against the float64 loop, beside the bound that rounding allows.

    Both are relative to the largest exact value. For the gradients the worst of da, dx and dh0 is
    reported: the one that comes closest to its bound.
    """
    where = provenance.resolve_device(device)
    parameters = {"lengths": list(lengths), "features": list(features), "dtypes": list(dtypes)}
    rows = []
    for name, steps, columns in product(dtypes, lengths, features):
        dtype = getattr(torch, name)
        if dtype not in arguments.DTYPES[where.type]:
            continue
        a, x, h0 = inputs(steps, columns, dtype, where, seed)
        dh = inputs(steps, columns, dtype, where, seed + 1)[1]
        exact = oracle(a.cpu(), x.cpu(), h0.cpu(), dh.cpu())
        for algorithm in arguments.ALGORITHMS[where.type]:
            tensors = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
            h = ops.linear_recurrence(*tensors, algorithm=algorithm)
            got = [h.detach(), *torch.autograd.grad(h, tensors, dh)]
            errors = [_worst(one, *pair) for one, pair in zip(got, exact, strict=True)]
            identity = {"algorithm": algorithm, "dtype": name, "layout": "TC"}
            identity |= {"T": steps, "B": 1, "C": columns, "seed": seed}
            identity |= {"profile": workspace.profile()}
            for direction, group in (("forward", errors[:1]), ("backward", errors[1:])):
                error, bound = max(group, key=lambda pair: pair[0] / pair[1])
                rows.append(identity | {"direction": direction, "error": error, "bound": bound})
    return records.write("correctness", rows, provenance.collect(where, parameters, seed))


def _worst(got: Tensor, exact: Tensor, bound: Tensor) -> tuple[float, float]:
    """(error, bound) at the element that comes closest to its bound, over the largest value."""
    error = (got.cpu() - exact).abs()
    at = (error / bound).flatten().argmax()
    scale = exact.abs().max()
    return (error.flatten()[at] / scale).item(), (bound.flatten()[at] / scale).item()


@experiment("reproduce/02_kernel_speedup")
def kernel_speedup(
    *, device: str, seed: int, lengths: Iterable[int], features: Iterable[int], runs: int
) -> Records:
    """Time of every algorithm of the operator alone, over length and features (Table 1).

    Minibatch 1, float32, shape (T, m), forward, outputs allocated beforehand. The reference is
    ``torch.add`` on tensors of the same bytes.
    """
    where = provenance.resolve_device(device)
    parameters = {"lengths": list(lengths), "features": list(features), "runs": runs}
    algorithms = [name for name in arguments.ALGORITHMS[where.type] if name != "auto"]
    rows = []
    for steps, columns in product(lengths, features):
        a, x, h0 = inputs(steps, columns, torch.float32, where, seed)
        out = torch.empty_like(x)
        candidates = {name: _sweep_into(a, x, out, name) for name in algorithms}
        _agree(candidates, out, a, x)
        candidates["add"] = lambda a=a, x=x, out=out: torch.add(a, x, out=out)
        timings = time_all(candidates, where, runs)
        reference = timings.pop("add")
        for algorithm, (q1, median, q3) in timings.items():
            rows.append(
                {
                    "algorithm": algorithm,
                    "direction": "forward",
                    "dtype": "float32",
                    "layout": "TC",
                    "T": steps,
                    "B": 1,
                    "C": columns,
                    "seed": seed,
                    "profile": workspace.profile(),
                    "runs": runs,
                    "q1_ms": q1,
                    "median_ms": median,
                    "q3_ms": q3,
                    "bytes": 3 * a.element_size() * a.numel(),
                    "reference_ms": reference[1],
                }
            )
    return records.write("kernel_speedup", rows, provenance.collect(where, parameters, seed))


PARALLEL = ("blocked",)


def speedups(measured: Records) -> pandas.DataFrame:
    """Serial over parallel median time, for every pair that was measured, by T and C.

    Columns: baseline, algorithm, T, C, speedup.
    """
    times = measured.table.pivot(index=["T", "C"], columns="algorithm", values="median_ms")
    pairs = [
        (baseline, algorithm)
        for baseline in times.columns.difference(PARALLEL)
        for algorithm in times.columns.intersection(PARALLEL)
    ]
    tables = []
    for baseline, algorithm in pairs:
        ratio = (times[baseline] / times[algorithm]).rename("speedup").reset_index()
        tables.append(ratio.assign(baseline=baseline, algorithm=algorithm))
    return pandas.concat(tables, ignore_index=True)


def _sweep_into(a: Tensor, x: Tensor, out: Tensor, algorithm: str) -> Callable[[], None]:
    return lambda: sweep.forward(a, x, None, 0, False, algorithm, out=out)


def _agree(candidates: Mapping[str, Callable], out: Tensor, a: Tensor, x: Tensor) -> None:
    """Raise unless every candidate writes the recurrence to ``out``.

    The first one is held against the float64 loop, over the first steps only where T is long; the
    others against the first.
    """
    few = min(len(x), 4096)
    exact, bound = linear_recurrence_reference(a[:few], x[:few]), rounding_bound(a[:few], x[:few])
    first = None
    for name, candidate in candidates.items():
        out.fill_(math.nan)
        candidate()
        if not ((out[:few] - exact).abs() <= bound).all():
            raise RuntimeError(f"{name} is not the recurrence at shape {tuple(out.shape)}")
        first = out.clone() if first is None else first
        torch.testing.assert_close(out, first, rtol=1e-4, atol=1e-4)


def time_all(
    candidates: Mapping[str, Callable[[], Any]], device: torch.device, runs: int
) -> dict[str, tuple[float, float, float]]:
    """Quartiles in milliseconds of each candidate, sampled in turn so that all share the noise.

    On the CPU a sample is as many calls as fill five milliseconds, after one that is not
    timed. On a GPU it is one call
    replayed as a CUDA graph, between two events, with the cache flushed before.
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
    calls, seconds = 1, 0.0
    while seconds < _SHORTEST_SAMPLE_S:
        calls *= 2
        seconds = _seconds(call, calls)

    def take() -> float:
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
    with torch.cuda.graph(graph):
        call()
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def take() -> float:
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return take
