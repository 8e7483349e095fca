"""How near the operator comes to the speed of memory, in every layout, beside its rivals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrscan.bench import agreement, rivals
from lrscan.bench.cases import Case, cpu_cases, gpu_cases
from lrscan.bench.pieces import in_pieces
from lrscan.bench.registry import experiment, inputs
from lrscan.bench.timing import time_all
from lrscan.core import api, checks, sweep
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.records import Records

_SEQUENCES = 64  # that a packed time axis is made of
# Steps that are held against the float64 loop.
_CHECKED_STEPS = 256
# One thread per column needs a third of a microsecond per step or more: left out beyond so many.
SERIAL_STEPS = 2**14


@experiment("reproduce/02_kernel_speedup")
def throughput(
    *,
    device: str,
    seed: int,
    elements: int,
    runs: int,
    compare: bool,
    rivals_later: bool = False,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of the operator in every layout, forward and backward, beside that of moving the bytes.

    Outputs are allocated beforehand, and compared before anything is timed. The reference reads and
    writes the same bytes: on a CPU ``torch.add`` forward, and backward a loop that reads three
    tensors and writes two; on a GPU a copy on the device. With ``compare`` other implementations
    are measured too, on the same numbers, forward. What was not available is in the provenance.
    With ``rivals_later`` the cases that have rivals are left for a call that resumes. ``resume``
    and ``until`` as for :func:`lrscan.bench.pieces.in_pieces`, a piece for each case.
    """
    where = provenance.resolve_device(device)
    parameters = {"elements": elements, "runs": runs, "compare": compare}
    cases = (gpu_cases if where.type == "cuda" else cpu_cases)(elements, compare)
    return in_pieces(
        "throughput",
        [case.identity for case in cases],
        lambda number: _measure(cases[number], where, seed, runs),
        provenance.collect(where, parameters, seed),
        resume=resume,
        until=until,
        later=[case.identity for case in cases if case.against and rivals_later],
    )


def _measure(
    case: Case, where: torch.device, seed: int, runs: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(rows, what was not available and why)"""
    a, x, dh, *outputs = _tensors(case, where, seed)
    algorithms, missing = _algorithms(case, where)
    forward, reasons = _forward(case, algorithms, a, x, outputs[0])
    clocks = {name: rival.clock for name, rival in rivals.RIVALS.items()}
    rows = []
    for direction, tensors, make in (
        ("forward", 3, lambda: forward),
        ("backward", 5, lambda: _backward(case, algorithms, a, x, dh, outputs)),
    ):
        size = tensors * x.element_size() * x.numel()
        candidates = make()
        if where.type == "cuda":
            candidates["reference"] = _copy(size, where)
        timings = time_all(candidates, where, runs, clocks)
        reference = timings.pop("reference")
        for algorithm, (q1, median, q3) in timings.items():
            identity = {"algorithm": algorithm, "direction": direction} | case.identity
            identity |= {"seed": seed, "profile": workspace.profile(), "runs": runs}
            measured = {"q1_ms": q1, "median_ms": median, "q3_ms": q3}
            rows.append(identity | measured | {"bytes": size, "reference_ms": reference[1]})
        candidates.clear()  # frees what the rivals hold
    if where.type == "cuda":
        torch.cuda.empty_cache()
    told = f"{case.dtype} {case.layout} {tuple(case.shape)}"
    return rows, missing | {f"{name}, {told}": why for name, why in reasons.items()}


def _tensors(case: Case, where: torch.device, seed: int) -> list[Tensor]:
    """a, x, dh and room for two results, all contiguous, in memory that has been touched.

    A CPU is given the numbers of :func:`lrscan.bench.inputs`; a GPU draws its own, for gigabytes
    of them take minutes on the host.
    """
    dtype = getattr(torch, case.dtype)
    if where.type == "cuda":
        generator = torch.Generator(where).manual_seed(seed)
        options = {"generator": generator, "device": where, "dtype": dtype}
        a = torch.rand(case.shape, **options).mul_(2).sub_(1)
        given = [a, *(torch.randn(case.shape, **options) for _ in range(2))]
    else:
        a, x, _ = inputs(case.T, case.B * case.C, dtype, where, seed)
        dh = inputs(case.T, case.B * case.C, dtype, where, seed + 1)[1]
        given = [t.movedim(0, case.dim).contiguous().view(case.shape) for t in (a, x, dh)]
    return given + [torch.zeros_like(given[0]) for _ in range(2)]


def _algorithms(case: Case, where: torch.device) -> tuple[list[str], dict[str, str]]:
    """(algorithms to measure, why the others are not)"""
    every = checks.ALGORITHMS[where.type]
    if where.type != "cuda" or case.T <= SERIAL_STEPS:
        return list(every), {}
    why = f"a step after the other, it is not measured beyond {SERIAL_STEPS:,} steps"
    return (
        [name for name in every if not name.startswith("serial")],
        {name: why for name in every if name.startswith("serial")},
    )


def _forward(
    case: Case, algorithms: list[str], a: Tensor, x: Tensor, out: Tensor
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """(what is timed forward, which rivals are not and why), after all was found to agree."""
    dim = case.dim
    candidates = {name: _sweep(a, x, dim, name, out) for name in algorithms}
    expected = agreement.check(candidates, out, a, x, dim, _CHECKED_STEPS)
    if x.device.type == "cpu":
        if dim == 0:
            candidates["packed"] = _packed(a, x, out)
        candidates["reference"] = lambda: torch.add(a, x, out=out)
    calls, reasons = rivals.prepare(case.against, a, x, dim)
    for name, call in calls.items():
        try:
            agreement.same(name, call(), expected)
            candidates[name] = call
        except Exception as error:
            reasons[name] = rivals.reason(error)
    return candidates, reasons


def _sweep(a, x, dim, name, out, cu=None) -> Callable[[], object]:
    return lambda: sweep.forward(a, x, None, dim, False, name, cu, out=out)


def _packed(a: Tensor, x: Tensor, out: Tensor) -> Callable[[], object]:
    """Many sequences end to end, after they were found to be separate."""
    cu = torch.linspace(0, len(x), _SEQUENCES + 1).long()
    call = _sweep(a, x, 0, "auto", out, cu)
    out.fill_(torch.nan)
    call()
    resets = torch.zeros(len(x), 1, dtype=torch.bool)
    resets[cu[:-1]] = True
    agreement.same("packed", out, api.linear_recurrence(api.reset_where(a, resets), x))
    return call


def _backward(
    case: Case, algorithms: list[str], a: Tensor, h: Tensor, dh: Tensor, outputs: list[Tensor]
) -> dict[str, Callable[[], object]]:
    """What is timed backward, after all was found to agree; any numbers do for h."""
    da, dx = outputs
    first, candidates = None, {}
    for name in algorithms:

        def call(name=name):
            sweep.backward(a, h, None, dh, case.dim, False, name, None, (da, dx, None))

        for result in (da, dx):
            result.fill_(torch.nan)
        call()
        first = first or (da.clone(), dx.clone())
        for result, expected in zip((da, dx), first, strict=True):
            agreement.same(name, result, expected)
        candidates[name] = call
    if h.device.type == "cpu":
        candidates["reference"] = _stream_of_five(a, h, dh, da, dx)
    return candidates


def _copy(size: int, where: torch.device) -> Callable[[], object]:
    """A copy on the device that reads and writes ``size`` bytes together.

    It is made by a kernel. Of ``Tensor.copy_`` the driver makes copies that, replayed in a CUDA
    graph, reach only two thirds of the speed at some sizes (640 MiB on an H200: 2.8 TB/s of 4.3).
    """
    numbers = torch.randn(size // 8, device=where)
    target = torch.empty_like(numbers)
    return lambda: torch.mul(numbers, 1, out=target)


def _stream_of_five(*tensors: Tensor) -> Callable[[], object]:
    """A loop that reads three tensors and writes two, as the backward sweep must."""
    from numba import njit, prange

    @njit(parallel=True, error_model="numpy")
    def stream(a, h, dh, da, dx):
        for i in prange(a.size):
            dx[i] = a[i] + dh[i]
            da[i] = h[i] * dh[i]

    arrays = [t.flatten().numpy() for t in tensors]
    return lambda: stream(*arrays)


@experiment("reproduce/02_kernel_speedup")
def call_cost(*, device: str, seed: int, runs: int) -> Records:
    """Time of a call on a tiny tensor, with and without gradients: what the host spends.

    "forward" is a call without gradients, "training" a call with them and its backward pass. The
    reference is the same of one multiplication.
    """
    where = provenance.resolve_device(device)
    a, x, _ = inputs(4, 3, torch.float32, where, seed)
    leaves = [t.clone().requires_grad_() for t in (a, x)]
    dh = torch.ones_like(x)

    def training(function):
        return lambda: torch.autograd.grad(function(*leaves), leaves, dh)

    calls = {
        ("forward", "auto"): lambda: api.linear_recurrence(a, x),
        ("forward", "reference"): lambda: torch.mul(a, x),
        ("recorded", "auto"): lambda: api.linear_recurrence(*leaves),
        ("recorded", "reference"): lambda: torch.mul(*leaves),
        ("training", "auto"): training(api.linear_recurrence),
        ("training", "reference"): training(torch.mul),
    }
    times = {key: _host_quartiles(call, runs) for key, call in calls.items()}
    rows = []
    for direction in ("forward", "recorded", "training"):
        q1, median, q3 = times[direction, "auto"]
        identity = {"algorithm": "auto", "direction": direction, "dtype": "float32"}
        identity |= {"layout": "TC", "T": 4, "B": 1, "C": 3, "seed": seed}
        identity |= {"profile": workspace.profile(), "runs": runs}
        measured = {"q1_ms": q1, "median_ms": median, "q3_ms": q3}
        rows.append(identity | measured | {"reference_ms": times[direction, "reference"][1]})
    return records.write("call_cost", rows, provenance.collect(where, {"runs": runs}, seed))


def _host_quartiles(call: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Quartiles of the milliseconds that the host spends in a call."""
    calls, samples = 200, []
    for _ in range(runs + 1):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        samples.append((time.perf_counter() - start) / calls * 1e3)
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return tuple(torch.tensor(samples[1:], dtype=torch.float64).quantile(quartiles).tolist())
