"""How near the operator comes to the speed of memory, in every layout, beside its rivals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lrscan import arguments, ops, provenance, records, sweep, workspace
from lrscan.bench.registry import experiment, inputs
from lrscan.bench.rivals import rivals
from lrscan.bench.timing import time_all
from lrscan.records import Records

_SEQUENCES = 64  # that a packed time axis is made of


def shapes(elements: int) -> list[tuple[str, tuple[int, int]]]:
    """(layout, shape) of about so many elements: "TC" has time first, "CT" last."""
    return [
        *(("TC", (elements // features, features)) for features in (1, 4, 32, 64, 128, 256, 1024)),
        ("TC", (64, elements // 64)),
        ("CT", (4096, elements // 4096)),
        ("CT", (3001, elements // 3001 + 3)),
    ]


@experiment("reproduce/02_kernel_speedup")
def throughput(*, device: str, seed: int, elements: int, runs: int, compare: bool) -> Records:
    """Time of the operator in every layout, forward and backward, beside that of moving the bytes.

    float32, outputs allocated beforehand. The reference reads and writes the same bytes: forward
    ``torch.add``; backward a loop that reads three tensors and writes two. With ``compare``, the
    rivals that are installed are measured too, on the same numbers.
    """
    where = provenance.resolve_device(device)
    parameters = {"elements": elements, "runs": runs, "compare": compare}
    rows = []
    for layout, shape in shapes(elements):
        dim = layout.index("T")
        a, x, dh, *outputs = _tensors(shape, dim, where, seed)
        for direction, candidates in (
            ("forward", _forward(a, x, dim, outputs[0], compare)),
            ("backward", _backward(a, x, dh, dim, outputs)),
        ):
            timings = time_all(candidates, where, runs)
            reference = timings.pop("reference")
            for algorithm, (q1, median, q3) in timings.items():
                identity = {"algorithm": algorithm, "direction": direction, "dtype": "float32"}
                identity |= {"layout": layout, "T": shape[dim], "B": 1, "C": shape[1 - dim]}
                identity |= {"seed": seed, "profile": workspace.profile(), "runs": runs}
                tensors = 3 if direction == "forward" else 5
                measured = {"q1_ms": q1, "median_ms": median, "q3_ms": q3}
                measured |= {"bytes": tensors * 4 * a.numel(), "reference_ms": reference[1]}
                rows.append(identity | measured)
    return records.write("throughput", rows, provenance.collect(where, parameters, seed))


def _tensors(shape: tuple[int, int], dim: int, where: torch.device, seed: int) -> list[Tensor]:
    """a, x, dh and room for three results, all contiguous, in memory that has been touched."""
    steps, columns = shape[dim], shape[1 - dim]
    a, x, _ = inputs(steps, columns, torch.float32, where, seed)
    dh = inputs(steps, columns, torch.float32, where, seed + 1)[1]
    given = [t.movedim(0, dim).contiguous() for t in (a, x, dh)]
    return given + [torch.zeros_like(given[0]) for _ in range(3)]


def _algorithms(device: torch.device) -> tuple[str, ...]:
    return arguments.ALGORITHMS[device.type]


def _forward(
    a: Tensor, x: Tensor, dim: int, out: Tensor, compare: bool
) -> Mapping[str, Callable[[], object]]:
    """What is timed forward, after all of it was found to give the same h."""
    expected = ops.linear_recurrence(a, x, dim=dim, algorithm="serial")
    candidates: dict[str, Callable[[], object]] = {}
    for name in _algorithms(x.device):
        candidates[name] = _sweep(a, x, dim, name, out)
        out.fill_(torch.nan)
        candidates[name]()
        _same(name, out, expected)
    if x.device.type == "cpu" and dim == 0:
        cu = torch.linspace(0, len(x), _SEQUENCES + 1).long()
        candidates["packed"] = _sweep(a, x, dim, "auto", out, cu)
        out.fill_(torch.nan)
        candidates["packed"]()
        resets = torch.zeros(len(x), 1, dtype=torch.bool)
        resets[cu[:-1]] = True
        _same("packed", out, ops.linear_recurrence(ops.reset_where(a, resets), x))
    for name, call in rivals(a, x, dim).items() if compare else ():
        _same(name, call(), expected)
        candidates[name] = call
    candidates["reference"] = lambda: torch.add(a, x, out=out)
    return candidates


def _sweep(a, x, dim, name, out, cu=None) -> Callable[[], object]:
    return lambda: sweep.forward(a, x, None, dim, False, name, cu, out=out)


def _backward(
    a: Tensor, h: Tensor, dh: Tensor, dim: int, outputs: list[Tensor]
) -> Mapping[str, Callable[[], object]]:
    """What is timed backward; any numbers do for h."""
    da, dx, _ = outputs
    first, candidates = None, {}
    for name in _algorithms(h.device):

        def call(name=name):
            sweep.backward(a, h, None, dh, dim, False, name, None, (da, dx, None))

        call()
        found = torch.stack([da, dx])
        first = found if first is None else first
        _same(name, found, first)
        candidates[name] = call
    candidates["reference"] = _stream_of_five(a, h, dh, da, dx)
    return candidates


def _stream_of_five(*tensors: Tensor) -> Callable[[], object]:
    """A loop that reads three tensors and writes two, as the backward sweep must."""
    if tensors[0].device.type == "cuda":
        a, h, dh, da, dx = tensors
        # Bytes read plus written: two copies and a half of one tensor.
        half = a.flatten()[: a.numel() // 2]
        return lambda: (
            da.copy_(a), dx.copy_(h), da.flatten()[: len(half)].copy_(dh.flatten()[: len(half)])
        )  # fmt: skip
    from numba import njit, prange

    @njit(parallel=True, error_model="numpy")
    def stream(a, h, dh, da, dx):
        for i in prange(a.size):
            dx[i] = a[i] + dh[i]
            da[i] = h[i] * dh[i]

    arrays = [t.flatten().numpy() for t in tensors]
    return lambda: stream(*arrays)


def _same(name: str, got: Tensor, expected: Tensor) -> None:
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-4):
        raise RuntimeError(f"{name} is not the recurrence at shape {tuple(expected.shape)}")


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
        ("forward", "auto"): lambda: ops.linear_recurrence(a, x),
        ("forward", "reference"): lambda: torch.mul(a, x),
        ("recorded", "auto"): lambda: ops.linear_recurrence(*leaves),
        ("recorded", "reference"): lambda: torch.mul(*leaves),
        ("training", "auto"): training(ops.linear_recurrence),
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
