"""The operator alone: its errors, and its time over length and features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product

import torch
from torch import Tensor

from lrscan import arguments, ops, provenance, records, sweep, workspace
from lrscan.bench.registry import experiment, inputs
from lrscan.bench.timing import time_all
from lrscan.records import Records
from lrscan.reference import linear_recurrence_reference, oracle, rounding_bound


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
