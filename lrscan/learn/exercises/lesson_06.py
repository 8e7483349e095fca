"""The backward scan: checks of ``gradients`` and ``my_scan``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrscan.core.reference import oracle
from lrscan.learn.exercises.check import Check, Mistake, NotYet, compared
from lrscan.learn.exercises.launches import Array, inputs, stopped
from lrscan.learn.exercises.lesson_05 import run_tiles
from lrscan.learn.machines import simulator


def scan_loop(a: Array, x: Array, h0: Any) -> Array:
    """Compute the recurrence in NumPy, for use in the exercises."""
    h, states = h0, []
    for a_t, x_t in zip(a, x, strict=True):
        h = a_t * h + x_t
        states.append(h)
    return np.array(states)


def _gradients(
    a: Array,
    h: Array,
    h0: float,
    dh: Array,
    scan: Callable,
    *,
    shifted: bool = True,
    reverse: bool = True,
    before: bool = True,
    start: bool = True,
) -> tuple[Array, Array, Any]:
    later = np.append(a[1:], 0) if shifted else a
    g = scan(later[::-1], dh[::-1], 0.0)[::-1] if reverse else scan(later, dh, 0.0)
    previous = np.append(h0 if start else 0.0, h[:-1]) if before else h
    return previous * g, g, a[0] * g[0]


def _gradient_cases() -> list[tuple]:
    cases = []
    for steps in (1, 2, 7):
        a, x = (v.astype(float) for v in inputs(steps, 40 + steps))
        a[a == 0] = 3  # a zero would hide mistakes
        dh = np.arange(1.0, steps + 1)
        cases.append((a, scan_loop(a, x, 2.0), 2.0, dh, scan_loop))
    return cases


gradients = compared(
    "one more scan gives da, dx and dh0",
    _gradients,
    _gradient_cases(),
    {
        "coefficient not shifted": Mistake(
            lambda *inputs: _gradients(*inputs, shifted=False),
            "The coefficient between h[t] and h[t+1] is a[t+1]. So a[t+1] multiplies the gradient "
            "that comes back from step t + 1, not a[t].",
        ),
        "not reversed": Mistake(
            lambda *inputs: _gradients(*inputs, reverse=False),
            "Gradients start from the end: g[T-1] = dh[T-1] is known first. Reverse the inputs of "
            "the scan, and reverse its result back.",
        ),
        "h[t] for h[t-1]": Mistake(
            lambda *inputs: _gradients(*inputs, before=False),
            "a[t] multiplies the state before step t, so da[t] = h[t-1] * g[t].",
        ),
        "forgotten start": Mistake(
            lambda *inputs: _gradients(*inputs, start=False),
            "The state before the first step is h0, so da[0] = h0 * g[0].",
        ),
    },
)

# Shapes and time axes as in the package's tests: one tile, several tiles, a short last tile.
LAYOUTS = [((1, 1), 0), ((2, 3), 0), ((70, 2), 0), ((2, 33, 2), 1)]


def _examine_whole_kernel(kernel: Callable, gradients: Callable) -> None:
    def scan(a: Array, x: Array, h0: float) -> Array:
        a, x = (np.ascontiguousarray(values, dtype=np.float32) for values in (a, x))
        return run_tiles(kernel, a, x, np.float32(h0))

    generator = torch.Generator().manual_seed(0)
    for (shape, dim), reverse in itertools.product(LAYOUTS, (False, True)):
        a, x, dh = (torch.randn(shape, generator=generator) for _ in range(3))
        a *= 0.4
        h0 = torch.randn([n for d, n in enumerate(shape) if d != dim], generator=generator)
        way = "reversed in time" if reverse else "forward in time"
        case = f"shape {shape} with time on axis {dim}, {way}"
        try:
            with simulator.watching():  # one thread at a time, which is also faster
                results = _every_column(scan, gradients, (a, x, dh), h0, dim, reverse)
        except Exception as error:
            raise stopped(error, f"For {case} your code fails") from None
        exact = oracle(a, x, h0, dh, dim=dim, reverse=reverse)
        for name, got, (value, bound) in zip(exact._fields, results, exact, strict=True):
            if not ((got - value).abs() <= bound).all():
                worst = ((got - value).abs() / bound.clamp_min(1e-300)).max().item()
                words = (
                    f"The error of {name} for {case} is {worst:.3g} times the bound on rounding."
                )
                raise NotYet("beyond rounding", words)


def _every_column(
    scan: Callable,
    gradients: Callable,
    tensors: tuple[Tensor, ...],
    h0: Tensor,
    dim: int,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (h, da, dx, dh0) in the layout of the inputs, computed column by column."""
    flipped = [t.movedim(dim, 0).flip(0) if reverse else t.movedim(dim, 0) for t in tensors]
    a, x, dh = (t.reshape(len(t), -1).numpy() for t in flipped)
    h, da, dx = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    dh0 = np.empty_like(x[0])
    for c, start in enumerate(h0.flatten().numpy()):
        h[:, c] = scan(a[:, c], x[:, c], start)
        da[:, c], dx[:, c], dh0[c] = gradients(a[:, c], h[:, c], start, dh[:, c], scan)

    def back(values: Array) -> Tensor:
        tensor = torch.from_numpy(values).reshape(flipped[0].shape)
        return (tensor.flip(0) if reverse else tensor).movedim(0, dim)

    return back(h), back(da), back(dx), torch.from_numpy(dh0).reshape(h0.shape)


my_scan = Check(
    "your kernel passes the package's test: h, da, dx and dh0 are right up to rounding",
    _examine_whole_kernel,
    {},
)
