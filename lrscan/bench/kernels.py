"""The operator alone: its errors, and its time over length and features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lrscan.bench import agreement
from lrscan.bench.pieces import in_pieces
from lrscan.bench.registry import experiment, inputs
from lrscan.bench.timing import time_all
from lrscan.core import api, checks, sweep
from lrscan.core.reference import oracle
from lrscan.evidence import paper, provenance, records, workspace
from lrscan.evidence.records import Records

# Steps that are held against the float64 loop.
_CHECKED_STEPS = 4096
# Steps that a state lasts in the columns where coefficients are near one.
_MEMORY = 1024


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

    Coefficients have either sign. In every other column, the first one among them, they are so near
    one that a state lasts some thousand steps: what a carry brings from far away is seen there. In
    the others a state is forgotten within tens of steps.

    Error and bound are relative to the largest exact value. For the gradients the worst of da, dx
    and dh0 is reported: the one that comes closest to its bound. An error that is no number is
    infinite.
    """
    where = provenance.resolve_device(device)
    parameters = {"lengths": list(lengths), "features": list(features), "dtypes": list(dtypes)}
    rows = []
    for name, steps, columns in product(dtypes, lengths, features):
        dtype = getattr(torch, name)
        if dtype not in checks.DTYPES[where.type]:
            continue
        a, x, h0 = inputs(steps, columns, dtype, where, seed)
        a[:, ::2] = lasting(a[:, ::2])
        dh = inputs(steps, columns, dtype, where, seed + 1)[1]
        exact = oracle(a.cpu(), x.cpu(), h0.cpu(), dh.cpu())
        for algorithm in checks.ALGORITHMS[where.type]:
            tensors = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
            h = api.linear_recurrence(*tensors, algorithm=algorithm)
            got = [h.detach(), *torch.autograd.grad(h, tensors, dh)]
            errors = [_worst(one, *pair) for one, pair in zip(got, exact, strict=True)]
            identity = {"algorithm": algorithm, "dtype": name, "layout": "TC"}
            identity |= {"T": steps, "B": 1, "C": columns, "seed": seed}
            identity |= {"profile": workspace.profile()}
            for direction, group in (("forward", errors[:1]), ("backward", errors[1:])):
                error, bound = max(group, key=lambda pair: pair[0] / pair[1])
                rows.append(identity | {"direction": direction, "error": error, "bound": bound})
    return records.write("correctness", rows, provenance.collect(where, parameters, seed))


def lasting(a: Tensor) -> Tensor:
    """Coefficients of magnitude u as ones of magnitude u ** (1 / _MEMORY), with sign and angle."""
    wide = a.to(torch.promote_types(a.dtype, torch.float64))
    return (torch.sgn(wide) * wide.abs() ** (1 / _MEMORY)).to(a.dtype)


def _worst(got: Tensor, exact: Tensor, bound: Tensor) -> tuple[float, float]:
    """(error, bound) at the element that comes closest to its bound, over the largest value."""
    error = (got.cpu() - exact).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    at = (error / bound).nan_to_num(nan=0, posinf=math.inf).flatten().argmax()
    scale = exact.abs().max()
    return (error.flatten()[at] / scale).item(), (bound.flatten()[at] / scale).item()


@experiment("reproduce/02_kernel_speedup")
def kernel_speedup(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of every algorithm of the operator alone, over length and features (Table 1).

    Minibatch 1, float32, shape (T, m), forward, outputs allocated beforehand. The reference is
    ``torch.add`` on tensors of the same bytes. The shapes of the paper's table are measured first,
    the longest of them first. ``resume`` and ``until`` as for
    :func:`lrscan.bench.pieces.in_pieces`, a piece for each shape.
    """
    where = provenance.resolve_device(device)
    parameters = {"lengths": list(lengths), "features": list(features), "runs": runs}
    shapes = in_order(lengths, features)
    return in_pieces(
        "kernel_speedup",
        [{"T": steps, "C": columns} for steps, columns in shapes],
        lambda number: (_time_algorithms(*shapes[number], where, seed, runs), {}),
        provenance.collect(where, parameters, seed),
        resume=resume,
        until=until,
    )


def in_order(lengths: Iterable[int], features: Iterable[int]) -> list[tuple[int, int]]:
    """(T, C) of every shape: those of the paper's Table 1 first, among these the longest first."""
    theirs = paper.table("table1_kernel_speedup")[["sequence_length", "features"]]
    known = set(theirs.itertuples(index=False, name=None))
    return sorted(product(lengths, features), key=lambda shape: (shape not in known, -shape[0]))


def _time_algorithms(
    steps: int, columns: int, where: torch.device, seed: int, runs: int
) -> list[dict[str, Any]]:
    """A row an algorithm."""
    a, x, _ = inputs(steps, columns, torch.float32, where, seed)
    out = torch.empty_like(x)
    candidates: dict[str, Callable] = {
        name: _sweep_into(a, x, out, name) for name in checks.ALGORITHMS[where.type]
    }
    agreement.check(candidates, out, a, x, 0, _CHECKED_STEPS)
    candidates["add"] = lambda: torch.add(a, x, out=out)
    timings = time_all(candidates, where, runs)
    reference = timings.pop("add")
    identity = {"direction": "forward", "dtype": "float32", "layout": "TC"}
    identity |= {"T": steps, "B": 1, "C": columns, "seed": seed}
    identity |= {"profile": workspace.profile(), "runs": runs}
    moved = {"bytes": 3 * a.element_size() * a.numel(), "reference_ms": reference[1]}
    return [
        {"algorithm": algorithm, "q1_ms": q1, "median_ms": median, "q3_ms": q3} | identity | moved
        for algorithm, (q1, median, q3) in timings.items()
    ]


def _sweep_into(a: Tensor, x: Tensor, out: Tensor, algorithm: str) -> Callable[[], None]:
    return lambda: sweep.forward(a, x, None, 0, False, algorithm, out=out)
