"""Exercises of notebook 06: gradients by a scan, and the package's test for the whole kernel."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from lrscan import sweep
from lrscan.learn import simulator
from lrscan.learn.exercises.check import Check, Mistake, NotYet, compared
from lrscan.learn.exercises.kernels import inputs, run_tiles
from lrscan.reference import oracle


def scan_loop(a, x, h0):
    """The recurrence in NumPy, as a function for the exercises."""
    h, states = h0, []
    for a_t, x_t in zip(a, x, strict=True):
        h = a_t * h + x_t
        states.append(h)
    return np.array(states)


def _gradients(a, h, h0, dh, scan, *, shifted=True, reverse=True, before=True, start=True):
    later = np.append(a[1:], 0) if shifted else a
    g = scan(later[::-1], dh[::-1], 0.0)[::-1] if reverse else scan(later, dh, 0.0)
    previous = np.append(h0 if start else 0.0, h[:-1]) if before else h
    return previous * g, g, a[0] * g[0]


def _gradient_cases():
    cases = []
    for steps in (1, 2, 7):
        a, x = (v.astype(float) for v in inputs(steps, 40 + steps))
        a[a == 0] = 3  # a zero would hide mistakes
        dh = np.arange(1.0, steps + 1)
        cases.append((a, scan_loop(a, x, 2.0), 2.0, dh, scan_loop))
    return cases


gradients = compared(
    "da, dx and dh0 by one more scan",
    _gradients,
    _gradient_cases(),
    {
        "coefficient not shifted": Mistake(
            lambda *inputs: _gradients(*inputs, shifted=False),
            "Between h[t] and h[t+1] stands the coefficient a[t+1]: the gradient that comes back "
            "from step t + 1 is multiplied by a[t+1], not by a[t].",
        ),
        "not reversed": Mistake(
            lambda *inputs: _gradients(*inputs, reverse=False),
            "Gradients come from the end: g[T-1] = dh[T-1] is the first that is known. Turn the "
            "inputs of the scan round, and its result back.",
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

# Layouts of the package's own tests: one tile, several, a short last one, time in the middle.
LAYOUTS = [((1, 1), 0), ((2, 3), 0), ((70, 2), 0), ((2, 33, 2), 1)]


def backend(kernel: Callable, gradients: Callable) -> Callable:
    """The learner's kernel and gradients as a backend of the package (see lrscan.sweep)."""

    def scan(a, x, h0):
        a, x = (np.ascontiguousarray(values, dtype=np.float32) for values in (a, x))
        return run_tiles(kernel, a, x, x.dtype.type(h0))[0]

    def run(operands, steps, sizes, backward, algorithm):
        for column in np.ndindex(*sizes):

            def along(name, first=0, count=steps, column=column):
                return _along(operands[name], column, first, count)

            start = along("START", 0, 1)[0] if "START" in operands else np.float32(0)
            if not backward:
                along("OUT")[:] = scan(along("A"), along("X"), start)
                continue
            # The sweep comes from the end, with a one step ahead and h one step behind.
            a = along("A", 1)[::-1]
            h = np.append(along("BEFORE", 0, steps - 1)[::-1], np.float32(np.nan))
            da, dx, dh0 = gradients(a, h, start, along("X")[::-1], scan)
            along("DA")[:], along("OUT")[:] = da[::-1], dx[::-1]
            if "DSTART" in operands:
                along("DSTART", 0, 1)[:] = dh0

    return run


def _along(operand, column, first: int, count: int):
    """Steps of a column of an operand, as a view on the tensor's memory."""
    tensor, offset, time, strides = operand
    at = tensor.storage_offset() + offset + first * time
    at += sum(c * stride for c, stride in zip(column, strides, strict=True))
    size = tensor.untyped_storage().size() // tensor.element_size()
    flat = tensor.as_strided((size,), (1,), 0).numpy()
    stride = (time * flat.itemsize,)
    return np.lib.stride_tricks.as_strided(flat[at:], (count,), stride) if count else flat[:0]


def _examine_accepted(kernel: Callable, gradients: Callable) -> None:
    mine = backend(kernel, gradients)
    generator = torch.Generator().manual_seed(0)
    for (shape, dim), reverse in itertools.product(LAYOUTS, (False, True)):
        a, x, dh = (torch.randn(shape, generator=generator) for _ in range(3))
        a *= 0.4
        h0 = torch.randn([n for d, n in enumerate(shape) if d != dim], generator=generator)
        options = (dim, reverse, "mine")
        try:
            with simulator.watching():  # one thread at a time, which is also quicker
                h = sweep.forward(a, x, h0, *options, sweep=mine)
                results = (h, *sweep.backward(a, h, h0, dh, *options, sweep=mine))
        except Exception as error:
            raise NotYet(type(error).__name__, f"Shape {shape}: {error}") from None
        exact = oracle(a, x, h0, dh, dim=dim, reverse=reverse)
        for name, got, (value, bound) in zip(exact._fields, results, exact, strict=True):
            if not ((got - value).abs() <= bound).all():
                worst = ((got - value).abs() / bound.clamp_min(1e-300)).max().item()
                way = "from the end" if reverse else "forward in time"
                raise NotYet(
                    "beyond rounding",
                    f"{name} for shape {shape} with time on axis {dim}, {way}, is off by "
                    f"{worst:.3g} times what rounding allows.",
                )


accepted = Check(
    "your kernel passes the package's test: h, da, dx and dh0 within what rounding allows",
    _examine_accepted,
    {},
)
