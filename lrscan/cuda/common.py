"""What all CUDA kernels share: their arguments, and one time step.

Every kernel begins with the same arguments: a pointer for each row of :mod:`lrscan.sweep`, then

    strides  for each row: (offset, time, outer, middle, inner), in elements
    has      for START and DSTART: 1 if they are there, 0 if their pointers stand for nothing
    extents  (steps, n2, n1, n0)

Pointers are indexed by elements, as flat arrays are in the simulator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numba import cuda, types

from lrscan import algebra
from lrscan.sweep import ROWS

A, X, START, OUT, BEFORE, DA, DSTART = range(len(ROWS))

STATES = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.complex64: types.complex64,
    torch.complex128: types.complex128,
}

step = cuda.jit(device=True, inline="always")(algebra.step)
compose = cuda.jit(device=True, inline="always")(algebra.compose)
coefficient_gradient = cuda.jit(device=True, inline="always")(algebra.coefficient_gradient)


class Variant(NamedTuple):
    """What distinguishes one compiled kernel from another of the same algorithm.

    backward  whether it sweeps for the gradients
    dtype     of all operands
    want_dx   whether dx is written
    want_da   whether da is written
    """

    backward: bool
    dtype: torch.dtype
    want_dx: bool
    want_da: bool

    @property
    def state(self):
        return STATES[self.dtype]


@cuda.jit(device=True, inline="always")
def base_of(strides, row, column, extents):
    """Index of a row's first step in a column; columns are counted with the inner axis fastest."""
    n1, n0 = extents[2], extents[3]
    inner, rest = column % n0, column // n0
    own = strides[row]
    return own[0] + (rest // n1) * own[2] + (rest % n1) * own[3] + inner * own[4]


@cuda.jit(device=True, inline="always")
def bases_of(strides, column, extents):
    """:func:`base_of` for all rows."""
    return (
        base_of(strides, 0, column, extents),
        base_of(strides, 1, column, extents),
        base_of(strides, 2, column, extents),
        base_of(strides, 3, column, extents),
        base_of(strides, 4, column, extents),
        base_of(strides, 5, column, extents),
        base_of(strides, 6, column, extents),
    )


def make_steps(variant: Variant):
    """(coefficient, write, advance): what of a time step knows forward from backward.

    coefficient(a, i)  the coefficient at index i, conjugated backward
    write(...)         stores what step t yields: h, or dx, da and at the last step dh0
    advance(...)       the whole of step t, from reading to writing; returns the new state
    """
    backward, state = variant.backward, variant.state
    want_dx, want_da = variant.want_dx, variant.want_da

    @cuda.jit(device=True, inline="always")
    def coefficient(a, i):
        if backward:
            return a[i].conjugate()
        return a[i]

    @cuda.jit(device=True, inline="always")
    def write(a, start, out, before, da, dstart, at, strides, has, t, steps, h):
        if want_dx:
            out[at[OUT] + t * strides[OUT][1]] = h
        if backward:
            last = t == steps - 1
            if want_da:
                previous = state(0)
                if not last:
                    previous = before[at[BEFORE] + t * strides[BEFORE][1]]
                elif has[0]:
                    previous = start[at[START]]
                da[at[DA] + t * strides[DA][1]] = coefficient_gradient(previous, h)
            if last and has[1]:
                first_a = a[at[A] + steps * strides[A][1]]
                dstart[at[DSTART]] = coefficient_gradient(first_a, h)

    @cuda.jit(device=True, inline="always")
    def advance(a, x, start, out, before, da, dstart, at, strides, has, t, steps, h):
        impulse = x[at[X] + t * strides[X][1]]
        if backward and t == 0:  # nothing comes after the last step in forward time
            h = impulse
        else:
            h = step(coefficient(a, at[A] + t * strides[A][1]), impulse, h)
        write(a, start, out, before, da, dstart, at, strides, has, t, steps, h)
        return h

    return coefficient, write, advance
