"""The calls that a case of the throughput times, each compared with the others before that."""

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

_SEQUENCES = 64  # that a packed time axis is made of
# Steps that are compared with the float64 loop.
_CHECKED_STEPS = 256
# One thread per column needs a third of a microsecond per step or more: it is left out beyond this.
SERIAL_STEPS = 2**14


def tensors(case: Case, where: torch.device, seed: int) -> list[Tensor]:
    """a, x, dh and room for two results, all contiguous, in memory that has been touched.

    A CPU is given the numbers of :func:`lrscan.experiments.inputs.draw_inputs`; a GPU draws its
    own, for gigabytes of them take minutes on the host.
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
    """(algorithms to measure, why the others are not)"""
    every = checks.ALGORITHMS[where.type]
    if where.type != "cuda" or case.T <= SERIAL_STEPS:
        return list(every), {}
    why = f"a step after the other, it is not measured beyond {SERIAL_STEPS:,} steps"
    return (
        [name for name in every if not name.startswith("serial")],
        {name: why for name in every if name.startswith("serial")},
    )


def forward(
    case: Case, names: Sequence[str], a: Tensor, x: Tensor, out: Tensor
) -> tuple[dict[str, Call], dict[str, str]]:
    """(calls to time forward, why some rivals are not among them), once their results agree."""
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
    """A call of the operator that writes to ``out``."""
    return lambda: sweep.forward(a, x, None, dim, False, algorithm, cu_seqlens, out=out)


def _packed(a: Tensor, x: Tensor, out: Tensor) -> Call:
    """Many sequences end to end, after it was checked that they are separate."""
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
    """The calls to time backward, once their results agree; any numbers do for h."""
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
    """A copy on the device that reads and writes ``size`` bytes together.

    A kernel makes it. Of ``Tensor.copy_`` the driver makes copies that, replayed in a CUDA graph,
    reach only two thirds of the speed at some sizes (640 MiB on an H200: 2.8 TB/s of 4.3).
    """
    numbers = torch.randn(size // 8, device=where)
    target = torch.empty_like(numbers)
    return lambda: torch.mul(numbers, 1, out=target)


def _stream_of_five(*operands: Tensor) -> Call:
    """A loop that reads three tensors and writes two, as the backward sweep must."""
    from numba import njit, prange

    @njit(parallel=True, error_model="numpy")
    def stream(a, h, dh, da, dx):  # type: ignore[no-untyped-def]
        for i in prange(a.size):
            dx[i] = a[i] + dh[i]
            da[i] = h[i] * dh[i]

    arrays = [t.flatten().numpy() for t in operands]
    return lambda: stream(*arrays)
