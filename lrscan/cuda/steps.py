"""What all CUDA kernels share: their arguments, the functions of an algebra, and one time step.

A kernel takes ``(rows, extents, sizing)``, named tuples of integers:

    rows     :class:`lrscan.core.sweep.Rows` of :class:`Row`: where each operand lies; zeros where
             one is missing
    extents  :class:`Extents`: how many steps and columns there are
    sizing   a tuple of the algorithm, which says into what they are divided

Columns are counted with the inner axis fastest.

A step ``t`` is one of the sweep, "first" and "last" mean first and last in its order. Its state
is ``h``, its input ``x``. Backward, where that order is against time, its state is g, its input dh,
and what it writes for a step is dx = g. With T = 4, the rows hold at step t (of
:mod:`lrscan.core.sweep`):

    t         0      1      2      3      4
    x       dh[3]  dh[2]  dh[1]  dh[0]
    a         -     a[3]   a[2]   a[1]   a[0]    no coefficient leads into step 0; a[0] is for dh0
    before   h[2]   h[1]   h[0]    -             before the last step there is h0
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
    """Where an operand lies: the address of its step 0, and strides, all in bytes.

    time                  from a step to the next
    outer, middle, inner  from a column to the next along each of the three column axes
    """

    address: int
    time: int
    outer: int
    middle: int
    inner: int


class Extents(NamedTuple):
    """Steps, and columns along each of the three column axes."""

    steps: int
    outer: int
    middle: int
    inner: int


class Place(NamedTuple):
    """The index of a column along each of the three column axes."""

    outer: int
    middle: int
    inner: int


# How many numbers the first two arguments of a kernel are.
NUMBERS = len(Rows._fields) * len(Row._fields) + len(Extents._fields)


def arguments(numbers: Sequence[int], sizing: Callable[..., Any]) -> tuple[Rows, Extents, Any]:
    """A kernel's arguments from their numbers, one after the other."""
    each = len(Row._fields)
    rows = (Row(*numbers[each * i : each * (i + 1)]) for i in range(len(Rows._fields)))
    extents = Extents(*numbers[NUMBERS - len(Extents._fields) : NUMBERS])
    return Rows(*rows), extents, sizing(*numbers[NUMBERS:])


def signature(sizing: type[tuple]) -> types.Type:
    """Numba's signature of a kernel whose third argument is of this named tuple."""

    def named(cls: type[tuple], each: types.Type) -> types.Type:
        return types.NamedUniTuple(each, len(cls._fields), cls)  # type: ignore[attr-defined]

    row = named(Row, types.int64)
    return types.void(named(Rows, row), named(Extents, types.int64), named(sizing, types.int64))


def inlined(function: Callable) -> Callable:
    """A function for kernels to call. LLVM inlines it; Numba's own inlining takes twice as long.

    The simulator runs it as it is.
    """
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


# The functions of an algebra are compiled once for all kernels.
_shared = functools.cache(inlined)
compose = _shared(SCALAR.compose)  # for kernels that learners write


class Variant(NamedTuple):
    """What distinguishes one compiled kernel from another of the same algorithm.

    backward       whether it sweeps for the gradients
    a, x, start    kinds of the coefficients, the inputs and the state before the first step
    want_dx, _da   whether dx and da are written
    algebra        what its steps compute
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
        """The kind that states are computed in, and the offsets of maps."""
        return described(self.x).state

    @property
    def coefficient(self) -> str:
        """The kind that coefficients are computed in, and those of maps."""
        return described(self.a).state

    @property
    def number_type(self) -> types.Type:
        """Numba's type of the numbers that all of these are made of."""
        return numba_type(described(self.state).number)

    @property
    def map_numbers(self) -> int:
        """Numbers of a map: those of its coefficient and of its offset."""
        return self.algebra.coefficient_numbers + self.algebra.state_numbers

    def value(self, number: Any) -> Any:
        """A number of the algebra, or a tuple of them, in the precision of states."""
        precise = numpy_dtype(described(self.state).number).type
        return tuple(map(precise, number)) if isinstance(number, tuple) else precise(number)

    def named(self, algorithm: str, *more: object) -> str:
        """The name of its kernel of an algorithm."""
        direction = "backward" if self.backward else "forward"
        wanted = "-dx" * self.want_dx + "-da" * self.want_da if self.backward else ""
        algebra = () if self.algebra is SCALAR else (self.algebra.name,)
        kinds = (self.a, self.x, self.start)
        return "-".join(map(str, (algorithm, *more, *algebra, *kinds, direction))) + wanted


class Compiled(NamedTuple):
    """An algebra as kernels call it; see :class:`lrscan.core.algebra.Algebra`.

    one, zero   the identity map, in the precision of states
    zero_a      a coefficient of zeros, which leads from no state to another
    nan_a       one of NaNs, which stands for no coefficient at all
    remembered  (a, h) -> the state that a step with coefficient ``a`` starts from: h, or zero where
                every number of ``a`` is zero, if the algebra is guarded
    directed    a -> the coefficient of the sweep's direction: ``a``, backward its adjoint
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
    """The functions of a variant's algebra, for kernels to call."""
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
    """The place of a column."""
    rest = column // extents.inner
    return Place(rest // extents.middle, rest % extents.middle, column % extents.inner)


@inlined
def column_count(extents):
    """How many columns there are."""
    return extents.outer * extents.middle * extents.inner


@inlined
def address_of(row, place):
    """Address of a row's step 0 in a column."""
    return (
        row.address + place.outer * row.outer + place.middle * row.middle + place.inner * row.inner
    )


@inlined
def addresses_of(rows, place):
    """:func:`address_of` for all rows."""
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
    """One column, one step at a time. ``at`` are the addresses of its step 0.

    initial_state(rows, at)            h0, or zero; backward zero
    read_coefficient(rows, at, t)      a, backward its adjoint; zero where none leads into step t
    read_input(rows, at, t)            x, backward dh
    advance(rows, at, t, steps, h)     the whole of step t of so many, from the state h: reads,
                                       writes h, or dx, da and at the last step dh0; returns h
    """

    initial_state: Callable
    read_coefficient: Callable
    read_input: Callable
    advance: Callable


@functools.cache
def make_steps(variant: Variant) -> Steps:
    """The steps of a variant's sweep."""
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
