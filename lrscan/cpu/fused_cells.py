"""Gates and scan of a cell in one pass over memory, for float32 with the columns side by side.

    GILR        g, v = sigmoid(p0), tanh(p1)                    c[t] = g * c[t-1] + (1 - g) * v
    GILR-LSTM   f, i, o, z = sigmoid(p0, p1, p2), tanh(p3)      c[t] = f * c[t-1] + i * z
                                                                h[t] = o * c[t]

Backward evaluates the gates again from p. A thread takes a stretch of the (b, strip) of a row, a
strip being 16 columns, and goes through time step after step:

    row t     b=0: strip 0 1 2 3   b=1: strip 0 1 2 3
    thread 0       ^------------------^
    thread 1                              ^---------^

Where sequences of unequal length lie end to end in time, with a b of 1, a thread takes one after
another, or stretches of it if there are more threads than sequences. The result does not depend on
how many threads there are. Needs a hidden size that is a multiple of 16. Bytes moved an element of
c: GILR 12 forward (two gates, c) and 24 backward (the gates and their gradients, c, dh), GILR-LSTM
24 (four gates, c, h) and 40.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from lrscan.cpu import threads
from lrscan.cpu.activations import make_sigmoids, tanh
from lrscan.cpu.compile import kernel
from lrscan.cpu.dispatch import ELEMENTS_A_THREAD
from lrscan.cpu.memory import fetch_add, load, load_acquire, store
from lrscan.cpu.steps import inlined
from lrscan.cpu.vector import fill

LANES = 16
GATES = {"gilr": 2, "gilr-lstm": 4}
_BYTES = 4 * LANES


@inlined
def _read(address):
    return load("float32", LANES, "unit", address, 0)


@inlined
def _write(address, value):
    store("float32", "unit", address, 0, value)


@inlined
def _number(address, index):
    return load_acquire(address + 8 * index)


def _make_cell(name):
    """(forward, backward) of one strip in one step."""
    sigmoids = make_sigmoids(LANES)

    @inlined
    def gilr(pre, gate, before, c, h):
        g, rest = sigmoids(_read(pre))
        _write(c, g * before + rest * tanh(_read(pre + gate)))

    @inlined
    def gilr_back(pre, gate, before, c, dh, flowing, dpre):
        one = fill("float32", LANES, 1)
        g, rest = sigmoids(_read(pre))
        v = tanh(_read(pre + gate))
        total = _read(dh) + flowing
        _write(dpre, total * (before - v) * (g * rest))
        _write(dpre + gate, total * rest * (one - v * v))
        return total * g

    @inlined
    def lstm(pre, gate, before, c, h):
        f, _ = sigmoids(_read(pre))
        i, _ = sigmoids(_read(pre + gate))
        o, _ = sigmoids(_read(pre + 2 * gate))
        state = f * before + i * tanh(_read(pre + 3 * gate))
        _write(c, state)
        _write(h, o * state)

    @inlined
    def lstm_back(pre, gate, before, c, dh, flowing, dpre):
        one = fill("float32", LANES, 1)
        f, not_f = sigmoids(_read(pre))
        i, not_i = sigmoids(_read(pre + gate))
        o, not_o = sigmoids(_read(pre + 2 * gate))
        z = tanh(_read(pre + 3 * gate))
        arriving = _read(dh)
        total = arriving * o + flowing
        _write(dpre, total * before * (f * not_f))
        _write(dpre + gate, total * z * (i * not_i))
        _write(dpre + 2 * gate, arriving * _read(c) * (o * not_o))
        _write(dpre + 3 * gate, total * i * (one - z * z))
        return total * f

    return (gilr, gilr_back) if name == "gilr" else (lstm, lstm_back)


@functools.cache
def _kernel(name: str, backward: bool) -> int:
    forward_strip, backward_strip = _make_cell(name)
    gates = GATES[name]

    @kernel(f"{name} {backward}", f"of the cell {name}, {'backward' if backward else 'forward'}")
    def run(address):
        # The addresses of forward's tensors or of backward's, and of the rows where sequences
        # begin, with the end of the last; sizes; and a counter of parts taken.
        pre, start, c, h = (
            _number(address, 0),
            _number(address, 1),
            _number(address, 2),
            _number(address, 3),
        )
        dpre, flow = _number(address, 4), _number(address, 5)
        begins, batch, across, stretches, parts = (
            _number(address, 6),
            _number(address, 7),
            _number(address, 8),
            _number(address, 9),
            _number(address, 10),
        )
        gate = across * _BYTES
        row = batch * gate
        while True:
            part = fetch_add(address + 88, 1)
            if part >= parts:
                break
            sequence, stretch = part // stretches, part % stretches
            begin, end = _number(begins, sequence), _number(begins, sequence + 1)
            own_start, own_flow = start + sequence * row, flow + sequence * row
            # A strip further on, or a step: own addresses are of (T, B, n), gates' of (T, B, G n).
            strips = batch * across
            first, stop = strips * stretch // stretches, strips * (stretch + 1) // stretches
            for k in range(end - begin):
                t = end - 1 - k if backward else begin + k
                previous = c + (t - 1) * row if t > begin else own_start
                b, j = first // across, first % across
                for strip in range(first, stop):
                    at = strip * _BYTES
                    own = t * row + at
                    gates_at = (t * batch + b) * gates * gate + j * _BYTES
                    before = _read(previous + at)
                    if backward:
                        flowing = _read(own_flow + at)
                        flowing = backward_strip(
                            pre + gates_at, gate, before, c + own, h + own, flowing, dpre + gates_at
                        )
                        _write(own_flow + at, flowing)
                    else:
                        forward_strip(pre + gates_at, gate, before, c + own, h + own)
                    j += 1
                    if j == across:
                        b, j = b + 1, 0

    return run


def _run(
    name: str, backward: bool, tensors: tuple[Tensor, ...], c: Tensor, cu: Tensor | None
) -> None:
    rows, batch, n = c.shape
    begins = np.array([0, rows], np.int64) if cu is None else cu.contiguous().numpy()
    sequences, strips = len(begins) - 1, max(batch * n // LANES, 1)
    enough = max(2 * c.numel() // ELEMENTS_A_THREAD, 1)  # an element takes longer than in a scan
    most = min(torch.get_num_threads(), enough)
    stretches = min(-(-most // sequences), strips)
    parts = sequences * stretches
    addresses = [t.data_ptr() for t in tensors] + [0] * (6 - len(tensors))
    sizes = begins.ctypes.data, batch, n // LANES, stretches, parts, 0
    block = np.array([*addresses, *sizes], np.int64)
    threads.run(_kernel(name, backward), block.ctypes.data, min(parts, most))


def forward(
    name: str, pre: Tensor, start: Tensor, cu: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(c, h) of a cell; h is c for a GILR.

    Args:
        name:  of GATES
        pre:   (T, B, gates * n), contiguous float32, the pre-activations
        start: (B, n), float32
        cu:    (N + 1) int64 on the CPU: the rows of ``pre`` where N sequences begin, which lie end
               to end, and the end of the last; then B is 1, and ``start`` (N, n)
    """
    c = pre.new_empty(*pre.shape[:2], start.shape[-1])
    h = c if name == "gilr" else torch.empty_like(c)
    _run(name, False, (pre, start.contiguous(), c, h), c, cu)
    return c, h


def backward(
    name: str,
    pre: Tensor,
    start: Tensor,
    c: Tensor,
    dh: Tensor,
    dend: Tensor | None,
    cu: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradients at ``pre`` and ``start``; ``dend`` is that at the last c of each sequence, or
    None."""
    dpre = torch.empty_like(pre)
    flow = start.new_zeros(start.shape) if dend is None else dend.clone().contiguous()
    _run(name, True, (pre, start.contiguous(), c, dh.contiguous(), dpre, flow), c, cu)
    return dpre, flow
