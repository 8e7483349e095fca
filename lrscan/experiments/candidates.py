"""Calls to time for a case of the throughput experiment, checked against each other first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrscan.core import api, checks, sweep
from lrscan.experiments import agreement, rivals
from lrscan.experiments.cases import Case
from lrscan.experiments.inputs import draw_inputs

Call = Callable[[], object]

_SEQUENCES = 64  # on a packed time axis
# Steps that are compared with the float64 loop.
_CHECKED_STEPS = 256
# One thread per column needs at least a third of a microsecond per step: longer sequences would
# take minutes.
SERIAL_STEPS = 2**14


def tensors(case: Case, where: torch.device, seed: int) -> list[Tensor]:
    """Return a, x, dh and buffers for two results, all contiguous, in memory that was touched.

    On a CPU the numbers are those of :func:`lrscan.experiments.inputs.draw_inputs`. A GPU draws its
    own, because drawing gigabytes on the host takes minutes.
    """
    dtype = getattr(torch, case.dtype)
    if where.type == "cuda":
        generator = torch.Generator(where).manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "device": where, "dtype": dtype}
        a = torch.rand(case.shape, **options).mul_(2).sub_(1)
        given = [a, *(torch.randn(case.shape, **options) for _ in range(2))]
    else:
        a, x, _ = draw_inputs(case.T, case.B * case.C, dtype, where, seed)
        dh = draw_inputs(case.T, case.B * case.C, dtype, where, seed + 1)[1]
        given = [t.movedim(0, case.dim).contiguous().view(case.shape) for t in (a, x, dh)]
    return given + [torch.zeros_like(given[0]) for _ in range(2)]


def algorithms(case: Case, where: torch.device) -> tuple[list[str], dict[str, str]]:
    """Return the algorithms to measure, and for each of the others the reason why not."""
    every = checks.ALGORITHMS[where.type]
    if where.type != "cuda" or case.T <= SERIAL_STEPS:
        return list(every), {}
    why = f"one step after the other: not measured beyond {SERIAL_STEPS:,} steps"
    return (
        [name for name in every if not name.startswith("serial")],
        {name: why for name in every if name.startswith("serial")},
    )


def forward(
    case: Case, names: Sequence[str], a: Tensor, x: Tensor, out: Tensor
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the calls to time forward, and for each missing rival the reason.

    Results are compared first; a rival whose result differs is missing.
    """
    dim = case.dim
    calls = {name: sweep_into(a, x, dim, name, out) for name in names}
    expected = agreement.check(calls, out, a, x, dim, _CHECKED_STEPS)
    if x.device.type == "cpu":
        if dim == 0:
            calls["packed"] = _packed(a, x, out)
        calls["reference"] = lambda: torch.add(a, x, out=out)
    others, reasons = rivals.prepare(case.against, a, x, dim)
    for name, call in others.items():
        try:
            agreement.same(name, call(), expected)
            calls[name] = call
        except Exception as error:
            reasons[name] = rivals.reason(error)
    return calls, reasons


def sweep_into(
    a: Tensor, x: Tensor, dim: int, algorithm: str, out: Tensor, cu_seqlens: Tensor | None = None
) -> Call:
    """Return a call of the operator that writes to ``out``."""
    return lambda: sweep.forward(a, x, None, dim, False, algorithm, cu_seqlens, out=out)


def _packed(a: Tensor, x: Tensor, out: Tensor) -> Call:
    """Return a call on many sequences end to end, after checking that they stay separate."""
    cu_seqlens = torch.linspace(0, len(x), _SEQUENCES + 1).long()
    call = sweep_into(a, x, 0, "auto", out, cu_seqlens)
    out.fill_(torch.nan)
    call()
    resets = torch.zeros(len(x), 1, dtype=torch.bool)
    resets[cu_seqlens[:-1]] = True
    agreement.same("packed", out, api.linear_recurrence(api.reset_where(a, resets), x))
    return call


def backward(
    case: Case, names: Sequence[str], a: Tensor, h: Tensor, dh: Tensor, outputs: Sequence[Tensor]
) -> dict[str, Call]:
    """Return the calls to time backward, after comparing their results.

    Args:
        case:    the tensors' layout and sizes
        names:   algorithms
        a:       coefficients
        h:       states; arbitrary numbers will do
        dh:      gradients of the states
        outputs: buffers for da and dx
    """
    da, dx = outputs
    calls: dict[str, Call] = {}
    first: tuple[Tensor, Tensor] | None = None
    for name in names:

        def call(name: str = name) -> None:
            sweep.backward(a, h, None, dh, case.dim, False, name, None, (da, dx, None))

        for result in (da, dx):
            result.fill_(torch.nan)
        call()
        first = first or (da.clone(), dx.clone())
        for result, expected in zip((da, dx), first, strict=True):
            agreement.same(name, result, expected)
        calls[name] = call
    if h.device.type == "cpu":
        calls["reference"] = _stream_of_five(a, h, dh, da, dx)
    return calls


def copy_on_device(size: int, where: torch.device) -> Call:
    """Return a call that copies on the device, and reads and writes ``size`` bytes in total.

    A kernel makes the copy. The driver's own copies, which ``Tensor.copy_`` uses, reach only two
    thirds of the speed at some sizes when a CUDA graph replays them (640 MiB on an H200: 2.8 TB/s
    instead of 4.3).
    """
    numbers = torch.randn(size // 8, device=where)
    target = torch.empty_like(numbers)
    return lambda: torch.mul(numbers, 1, out=target)


def _stream_of_five(*operands: Tensor) -> Call:
    """Return a call that reads three tensors and writes two, as the backward sweep must."""
    from numba import njit, prange

    @njit(parallel=True, error_model="numpy")
    def stream(a, h, dh, da, dx):  # type: ignore[no-untyped-def]
        for i in prange(a.size):
            dx[i] = a[i] + dh[i]
            da[i] = h[i] * dh[i]

    arrays = [t.flatten().numpy() for t in operands]
    return lambda: stream(*arrays)
