"""Gates and scan of a cell in one pass over memory, for float32 with adjacent columns.

::

    GILR        g, v = sigmoid(p0), tanh(p1)                    c[t] = g * c[t-1] + (1 - g) * v
    GILR-LSTM   f, i, o, z = sigmoid(p0, p1, p2), tanh(p3)      c[t] = f * c[t-1] + i * z
                                                                h[t] = o * c[t]

Backward evaluates the gates again from p. A row is one step: all (b, strip) pairs, where a strip is
16 columns. A thread takes a stretch of the row and goes through time step after step::

    row t     b=0: strip 0 1 2 3   b=1: strip 0 1 2 3
    thread 0             |-|
    thread 1                 |----------------|
    thread 2                                    |---|

For packed sequences b is 1. A thread then takes one sequence after another, or a stretch of one if
there are more threads than sequences. The result does not depend on the number of threads. The
hidden size must be a multiple of 16.

Bytes moved per element of c::

                forward                     backward
    GILR        12: two gates, c            24: gates and their gradients, c, dh
    GILR-LSTM   24: four gates, c, h        40: gates and their gradients, c, dh
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrscan.cpu import threads
from lrscan.cpu.activations import make_sigmoids, tanh
from lrscan.cpu.compile import inlined, kernel
from lrscan.cpu.dispatch import ELEMENTS_PER_THREAD
from lrscan.cpu.memory import fetch_add, int64_at, load, reader, store
from lrscan.cpu.structures import int64s_of, offset_of
from lrscan.cpu.vector import constant

LANES = 16
GATES = {"gilr": 2, "gilr-lstm": 4}
_BYTES = 4 * LANES


class _Task(NamedTuple):
    """Argument of a kernel, which gets its address (:mod:`lrscan.cpu.structures`).

    Attributes:
        pre, start, c, h: addresses of the tensors of :func:`forward`; backward, h is dh
        dpre: address of the gradient at pre
        flow: address of the gradient at c: at the last c on entry, at the start on return
        cu_seqlens: address of the rows where sequences begin, with the end of the last
        batch: extent of b
        across: number of strips of one b
        stretches: number of stretches that a row is cut into
        parts: number of stretches of all sequences
        taken: number of parts that threads have taken so far
    """

    pre: int
    start: int
    c: int
    h: int
    dpre: int
    flow: int
    cu_seqlens: int
    batch: int
    across: int
    stretches: int
    parts: int
    taken: int


_read_task, _TAKEN = reader(_Task), offset_of(_Task, "taken")


@inlined
def _read(address):
    return load("float32", LANES, "unit", address, 0)


@inlined
def _write(address, value):
    store("float32", "unit", address, 0, value)


def _make_cell(name):
    """Return (forward, backward), functions for one strip in one step.

    All cells have the same arguments, whether they need them or not::

        pre, c, h, dh, dpre  addresses of the strip in this step; pre and dpre: in the first gate
        gate                 bytes from one gate to the next
        before               vector: c one step earlier
        flowing              vector: the gradient at c from the step after; backward returns that
                             for the step before
    """
    sigmoids, one = make_sigmoids(LANES), constant("float32", LANES, 1)

    @inlined
    def gilr(pre, gate, before, c, h):
        g, rest = sigmoids(_read(pre))
        _write(c, g * before + rest * tanh(_read(pre + gate)))

    @inlined
    def gilr_back(pre, gate, before, c, dh, flowing, dpre):
        g, rest = sigmoids(_read(pre))
        v = tanh(_read(pre + gate))
        total = _read(dh) + flowing
        _write(dpre, total * (before - v) * (g * rest))
        _write(dpre + gate, total * rest * (one() - v * v))
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
        f, not_f = sigmoids(_read(pre))
        i, not_i = sigmoids(_read(pre + gate))
        o, not_o = sigmoids(_read(pre + 2 * gate))
        z = tanh(_read(pre + 3 * gate))
        arriving = _read(dh)
        total = arriving * o + flowing
        _write(dpre, total * before * (f * not_f))
        _write(dpre + gate, total * z * (i * not_i))
        _write(dpre + 2 * gate, arriving * _read(c) * (o * not_o))
        _write(dpre + 3 * gate, total * i * (one() - z * z))
        return total * f

    return (gilr, gilr_back) if name == "gilr" else (lstm, lstm_back)


@functools.cache
def _kernel(name: str, backward: bool) -> int:
    forward_strip, backward_strip = _make_cell(name)
    gates = GATES[name]

    @kernel(f"{name} {backward}", f"of the cell {name}, {'backward' if backward else 'forward'}")
    def run(address):
        task = _read_task(address)
        across = task.across
        gate = across * _BYTES
        step_bytes = task.batch * gate  # of tensors of (T, B, n)
        strips = task.batch * across
        while True:
            part = fetch_add(address + _TAKEN, 1)
            if part >= task.parts:
                break
            sequence, stretch = part // task.stretches, part % task.stretches
            begin = int64_at(task.cu_seqlens, sequence)
            end = int64_at(task.cu_seqlens, sequence + 1)
            own_start, own_flow = (
                task.start + sequence * step_bytes,
                task.flow + sequence * step_bytes,
            )
            # Tensors have the shape (T, B, n), and those of the gates (T, B, G n).
            first = strips * stretch // task.stretches
            stop = strips * (stretch + 1) // task.stretches
            for k in range(end - begin):
                t = end - 1 - k if backward else begin + k
                previous = task.c + (t - 1) * step_bytes if t > begin else own_start
                b, j = first // across, first % across
                for strip in range(first, stop):
                    offset = strip * _BYTES
                    own = t * step_bytes + offset
                    gates_at = (t * task.batch + b) * gates * gate + j * _BYTES
                    pre, c, h = task.pre + gates_at, task.c + own, task.h + own
                    before = _read(previous + offset)
                    if backward:
                        flowing = _read(own_flow + offset)
                        dpre = task.dpre + gates_at
                        flowing = backward_strip(pre, gate, before, c, h, flowing, dpre)
                        _write(own_flow + offset, flowing)
                    else:
                        forward_strip(pre, gate, before, c, h)
                    j += 1
                    if j == across:
                        b, j = b + 1, 0

    return run


def _run(
    name: str,
    backward: bool,
    tensors: dict[str, Tensor],
    c: Tensor,
    cu_seqlens: Tensor | None,
) -> None:
    rows, batch, n = c.shape
    begins = np.array([0, rows]) if cu_seqlens is None else cu_seqlens.contiguous().numpy()
    sequences, strips = len(begins) - 1, max(batch * n // LANES, 1)
    enough = max(2 * c.numel() // ELEMENTS_PER_THREAD, 1)  # an element takes longer than in a scan
    most = min(torch.get_num_threads(), enough)
    stretches = min(-(-most // sequences), strips)
    parts = sequences * stretches
    addresses = dict(dpre=0, flow=0) | {name: t.data_ptr() for name, t in tensors.items()}
    task = _Task(
        **addresses,
        cu_seqlens=begins.ctypes.data,
        batch=batch,
        across=n // LANES,
        stretches=stretches,
        parts=parts,
        taken=0,
    )
    memory = np.array(int64s_of(task), np.int64)
    threads.run(_kernel(name, backward), memory.ctypes.data, min(parts, most))


def forward(
    name: str, pre: Tensor, start: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (c, h) of a cell. For a GILR, h is c.

    Args:
        name: a key of GATES
        pre:        (T, B, gates * n)   pre-activations, contiguous float32
        start:      (B, n)              float32; (N, n) with ``cu_seqlens``
        cu_seqlens: (N + 1,)            int64 on the CPU: the rows of ``pre`` where N packed
            sequences begin, and the end of the last; then B is 1
    """
    c = pre.new_empty(*pre.shape[:2], start.shape[-1])
    h = c if name == "gilr" else torch.empty_like(c)
    tensors = dict(pre=pre, start=start.contiguous(), c=c, h=h)
    _run(name, False, tensors, c, cu_seqlens)
    return c, h


def backward(
    name: str,
    pre: Tensor,
    start: Tensor,
    c: Tensor,
    dh: Tensor,
    dend: Tensor | None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients at ``pre`` and ``start``.

    ``dend`` is the gradient at the last c of each sequence, or None. Other arguments are as in
    :func:`forward`.
    """
    dpre = torch.empty_like(pre)
    flow = start.new_zeros(start.shape) if dend is None else dend.clone().contiguous()
    tensors = dict(pre=pre, start=start.contiguous(), c=c, h=dh.contiguous(), dpre=dpre, flow=flow)
    _run(name, True, tensors, c, cu_seqlens)
    return dpre, flow
