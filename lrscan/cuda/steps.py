"""Shared parts of all CUDA kernels: their arguments, the functions of an algebra, one time step.

A kernel takes three named tuples of integers, ``(rows, extents, sizing)``:

- ``rows`` is a :class:`lrscan.core.sweep.Rows` of :class:`Row`: the location of each operand, or
  zeros if there is no such operand.
- ``extents`` is an :class:`Extents`: the numbers of steps and columns.
- ``sizing`` is a tuple of the algorithm's own: how it divides steps and columns.

Columns are numbered with the inner axis fastest.

A step ``t`` is a step of the sweep, and "first" and "last" refer to the order of the sweep. The
state is called ``h`` and the input ``x``. A backward sweep runs against time. There the state is g,
the input is dh, and each step writes dx = g. With T = 4, the rows of a backward sweep
(:mod:`lrscan.core.sweep`) hold at step t::

    t         0      1      2      3      4
    x       dh[3]  dh[2]  dh[1]  dh[0]
    a         -     a[3]   a[2]   a[1]   a[0]    no coefficient leads into step 0; a[0] is for dh0
    before   h[2]   h[1]   h[0]    -             the state before the last step is h0
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numba import cuda, types

from lrscan.core.algebra import SCALAR, Algebra, alike
from lrscan.core.dtypes import described
from lrscan.core.machine_types import numba_type, numpy_dtype
from lrscan.core.sweep import Rows
from lrscan.cuda.memory import SIMULATED, load, nonzero, store


class Row(NamedTuple):
    """Location of an operand, in bytes.

    Attributes:
        address: address of step 0 in column 0
        time: stride from a step to the next
        outer, middle, inner: strides from a column to the next along the three column axes
    """

    address: int
    time: int
    outer: int
    middle: int
    inner: int


class Extents(NamedTuple):
    """Number of steps, and number of columns along each of the three column axes."""

    steps: int
    outer: int
    middle: int
    inner: int


class Place(NamedTuple):
    """Index of a column along each of the three column axes."""

    outer: int
    middle: int
    inner: int


# How many integers the first two arguments of a kernel have together.
NUMBERS = len(Rows._fields) * len(Row._fields) + len(Extents._fields)


def arguments(numbers: Sequence[int], sizing: Callable[..., Any]) -> tuple[Rows, Extents, Any]:
    """Return a kernel's arguments, given the concatenated integers of all three."""
    each = len(Row._fields)
    rows = (Row(*numbers[each * i : each * (i + 1)]) for i in range(len(Rows._fields)))
    extents = Extents(*numbers[NUMBERS - len(Extents._fields) : NUMBERS])
    return Rows(*rows), extents, sizing(*numbers[NUMBERS:])


def signature(sizing: type[tuple]) -> types.Type:
    """Return Numba's signature of a kernel whose third argument is a ``sizing``."""

    def named(cls: type[tuple], each: types.Type) -> types.Type:
        return types.NamedUniTuple(each, len(cls._fields), cls)  # type: ignore[attr-defined]

    row = named(Row, types.int64)
    return types.void(named(Rows, row), named(Extents, types.int64), named(sizing, types.int64))


def inlined(function: Callable) -> Callable:
    """Return a function that kernels can call. The simulator runs it unchanged.

    On a GPU, LLVM inlines it. Numba's own inlining would take twice as long to compile.
    """
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


# All kernels share one compiled copy of each function of an algebra.
_shared = functools.cache(inlined)
compose = _shared(SCALAR.compose)  # for the kernels that learners write


class Variant(NamedTuple):
    """Everything that distinguishes the compiled kernels of one algorithm from each other.

    Attributes:
        backward: whether the sweep computes gradients
        a, x, start: kinds of the coefficients, the inputs and the state before the first step
        want_dx, want_da: whether the sweep writes dx and da
        algebra: the algebra of coefficients and states
    """

    backward: bool
    a: str
    x: str
    start: str
    want_dx: bool = True
    want_da: bool = True
    algebra: Algebra = SCALAR

    @property
    def state(self) -> str:
        """Kind in which states, and the offsets of maps, are computed."""
        return described(self.x).state

    @property
    def coefficient(self) -> str:
        """Kind in which coefficients, also those of maps, are computed."""
        return described(self.a).state

    @property
    def number_type(self) -> types.Type:
        """Numba's type of the numbers in coefficients and states."""
        return numba_type(described(self.state).number)

    @property
    def map_numbers(self) -> int:
        """Size of a map in numbers: those of its coefficient and those of its offset."""
        return self.algebra.coefficient_numbers + self.algebra.state_numbers

    def value(self, number: Any) -> Any:
        """Return a number of the algebra, or a tuple of numbers, in the precision of states."""
        precise = numpy_dtype(described(self.state).number).type
        return tuple(map(precise, number)) if isinstance(number, tuple) else precise(number)

    def named(self, algorithm: str, *more: object) -> str:
        """Return the name of an algorithm's kernel for this variant."""
        direction = "backward" if self.backward else "forward"
        wanted = "-dx" * self.want_dx + "-da" * self.want_da if self.backward else ""
        algebra = () if self.algebra is SCALAR else (self.algebra.name,)
        kinds = (self.a, self.x, self.start)
        return "-".join(map(str, (algorithm, *more, *algebra, *kinds, direction))) + wanted


class Compiled(NamedTuple):
    """Constants and functions of an algebra for kernels; see :class:`lrscan.core.algebra.Algebra`.

    Attributes:
        one, zero: coefficient and offset of the identity map, in the precision of states
        zero_a: a coefficient of zeros. It carries no state on to the next step.
        nan_a: a coefficient of NaNs, used as a mark for "no coefficient"
        step, compose: as in the algebra
        remembered: function ``(a, h)`` that returns the state from which a step with coefficient
            ``a`` starts. That is h. In a guarded algebra it is zero if all numbers of ``a`` are
            zero.
        directed: function ``(a)`` that returns the coefficient for the direction of the sweep:
            ``a`` forward, its adjoint backward
        coefficient_gradient, state_gradient: as in the algebra
    """

    one: Any
    zero: Any
    zero_a: Any
    nan_a: Any
    step: Callable
    compose: Callable
    remembered: Callable
    directed: Callable
    coefficient_gradient: Callable
    state_gradient: Callable


@functools.cache
def compiled(variant: Variant) -> Compiled:
    """Return the constants and functions of a variant's algebra for kernels."""
    algebra = variant.algebra
    zero, guarded = variant.value(algebra.zero), algebra.guarded
    numbers = algebra.coefficient_numbers

    @inlined
    def remembered(a, h):
        if guarded and not nonzero(a):
            return zero
        return h

    @inlined
    def unchanged(a):
        return a

    return Compiled(
        one=variant.value(algebra.one),
        zero=zero,
        zero_a=variant.value(alike(0, numbers)),
        nan_a=variant.value(alike(math.nan, numbers)),
        step=_shared(algebra.step),
        compose=_shared(algebra.compose),
        remembered=remembered,
        directed=_shared(algebra.adjoint) if variant.backward else unchanged,
        coefficient_gradient=_shared(algebra.coefficient_gradient or _no_gradient),
        state_gradient=_shared(algebra.state_gradient or _no_gradient),
    )


def _no_gradient(first, second):
    raise NotImplementedError


@cuda.jit(device=True)
def barrier():
    """Wait for all threads of the block."""
    cuda.syncthreads()


@inlined
def place_of(column, extents):
    """Return the place of a column, given its number."""
    rest = column // extents.inner
    return Place(rest // extents.middle, rest % extents.middle, column % extents.inner)


@inlined
def column_count(extents):
    """Return the number of columns."""
    return extents.outer * extents.middle * extents.inner


@inlined
def address_of(row, place):
    """Return the address of a row's step 0 in the column at ``place``."""
    return (
        row.address + place.outer * row.outer + place.middle * row.middle + place.inner * row.inner
    )


@inlined
def addresses_of(rows, place):
    """Return :func:`address_of` for all rows."""
    return Rows(
        address_of(rows.a, place),
        address_of(rows.x, place),
        address_of(rows.start, place),
        address_of(rows.out, place),
        address_of(rows.before, place),
        address_of(rows.da, place),
        address_of(rows.dstart, place),
    )


class Steps(NamedTuple):
    """Functions for one column, one step at a time. ``at`` has the addresses of its step 0.

    Attributes:
        initial_state: ``(rows, at)`` returns h0, or zero if there is none. Backward it returns
            zero.
        read_coefficient: ``(rows, at, t)`` returns a, or its adjoint in a backward sweep. It
            returns zero if no coefficient leads into step t.
        read_input: ``(rows, at, t)`` returns x, or dh in a backward sweep
        advance: ``(rows, at, t, steps, h)`` does all of step t of ``steps`` from the state h, and
            returns the new h. It reads the operands and writes h. Backward it writes dx, da, and at
            the last step dh0.
    """

    initial_state: Callable
    read_coefficient: Callable
    read_input: Callable
    advance: Callable


@functools.cache
def make_steps(variant: Variant) -> Steps:
    """Return the functions for the steps of a variant's sweep."""
    backward, want_dx, want_da = variant.backward, variant.want_dx, variant.want_da
    kind_a, kind_x, kind_start = variant.a, variant.x, variant.start
    algebra = compiled(variant)
    zero, zero_a = algebra.zero, algebra.zero_a
    step, remembered, directed = algebra.step, algebra.remembered, algebra.directed
    coefficient_gradient, state_gradient = algebra.coefficient_gradient, algebra.state_gradient

    @inlined
    def initial_state(rows, at):
        h = zero
        if not backward and rows.start.address != 0:
            h = load(kind_start, at.start)
        return h

    @inlined
    def read_coefficient(rows, at, t):
        a = zero_a
        if not backward or t > 0:
            a = load(kind_a, at.a + t * rows.a.time)
        return directed(a)

    @inlined
    def read_input(rows, at, t):
        return load(kind_x, at.x + t * rows.x.time)

    @inlined
    def write(rows, at, t, steps, h):
        if want_dx:
            store(kind_x, at.out + t * rows.out.time, h)
        if backward:
            last = t == steps - 1
            if want_da:
                before = zero
                if not last:
                    before = load(kind_x, at.before + t * rows.before.time)
                elif rows.start.address != 0:
                    before = load(kind_start, at.start)
                store(kind_a, at.da + t * rows.da.time, coefficient_gradient(before, h))
            if last and rows.dstart.address != 0:
                a = load(kind_a, at.a + steps * rows.a.time)
                store(kind_start, at.dstart, state_gradient(a, remembered(a, h)))

    @inlined
    def advance(rows, at, t, steps, h):
        a = read_coefficient(rows, at, t)
        h = step(a, read_input(rows, at, t), remembered(a, h))
        write(rows, at, t, steps, h)
        return h

    return Steps(initial_state, read_coefficient, read_input, advance)
