"""Shared parts of the CPU kernels: their recipe, a time step of a strip, the states of a group.

Columns are taken in *strips*, each of as many columns as there are lanes. If the number of a
group's columns is not a multiple of that, its last strip ends with the group and overlaps the strip
before. The columns in both are done twice, with the same result. With 10 columns and 4 lanes::

    columns   0 1 2 3 4 5 6 7 8 9
    strip 0   -------
    strip 1           -------
    strip 2               -------

States are stored strip after strip, 12 of them here. Addresses and strides are in bytes, and a
:class:`lrscan.core.sweep.Rows` has one per tensor. To run from the end, a sweep starts at the last
addresses and uses negative strides.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import NamedTuple

from numba import njit

from lrscan.core.algebra import Algebra
from lrscan.core.dtypes import described
from lrscan.core.sweep import Rows
from lrscan.cpu.compile import inlined
from lrscan.cpu.memory import load, store
from lrscan.cpu.vector import all_finite, constant, remembered


class Recipe(NamedTuple):
    """Everything that distinguishes one compiled kernel from another.

    Attributes:
        algebra: the algebra of coefficients and states
        backward: whether it computes gradients
        order: the order of the elements of a tile: "strips" or "rows" of columns
            (:mod:`lrscan.cpu.strips`), or "times" (:mod:`lrscan.cpu.lanes_over_time`)
        lanes: lanes per vector
        strip: columns processed together; as many as lanes, except in the order "times"
        a: the kind of a and da
        x: the kind of x, out and before
        start: the kind of start and dstart
        spacings: spacing of each row along the lanes, see :func:`lrscan.cpu.memory.load`. For start
            and dstart the spacing is ignored; they are always "strided"
        writes_out: whether h, or dx, is wanted
        writes_da: whether da is wanted
    """

    algebra: Algebra
    backward: bool
    order: str
    lanes: int
    strip: int
    a: str
    x: str
    start: str
    spacings: Rows
    writes_out: bool
    writes_da: bool

    @property
    def coefficient_kind(self) -> str:
        """The kind of the arithmetic on coefficients and on their products."""
        return described(self.a).state

    @property
    def state_kind(self) -> str:
        """The kind of the arithmetic on states."""
        return described(self.x).state

    @property
    def one_by_one(self) -> Recipe:
        """The recipe of single steps, for a kernel whose lanes run over time."""
        return self._replace(spacings=Rows(*["unit"] * len(Rows._fields)))

    @property
    def key(self) -> str:
        """The key of the compiled kernel in the cache."""
        return repr(self._replace(algebra=self.algebra.name))


@functools.cache
def compiled(algebra: Algebra) -> SimpleNamespace:
    """Return the functions of an algebra by name, compiled for use in kernels."""
    names = ("step", "compose", "adjoint", "coefficient_gradient", "state_gradient")
    given = {name: getattr(algebra, name) for name in names}
    return SimpleNamespace(
        **{name: own and njit(inline="always")(own) for name, own in given.items()}
    )


class Section(NamedTuple):
    """Steps of one sequence, in the columns of a group.

    Attributes:
        at: addresses of the group's first column at step 0
        over_time: strides from one step to the next
        over_columns: strides from one column to the next
        columns: number of columns
        t0, t1: the steps from t0 up to t1
        opens: whether the sequence begins with step t0
        closes: whether the sequence ends with step t1 - 1
    """

    at: Rows
    over_time: Rows
    over_columns: Rows
    columns: int
    t0: int
    t1: int
    opens: bool
    closes: bool


class Inputs(NamedTuple):
    """Addresses of a coefficient and of an input."""

    a: int
    x: int


@inlined
def moved(at, stride, n):
    """Return the address of each row ``n`` strides further."""
    return Rows(
        a=at.a + n * stride.a,
        x=at.x + n * stride.x,
        start=at.start + n * stride.start,
        out=at.out + n * stride.out,
        before=at.before + n * stride.before,
        da=at.da + n * stride.da,
        dstart=at.dstart + n * stride.dstart,
    )


@inlined
def strips_of(columns, strip):
    """Return the number of strips in a group of ``columns`` columns."""
    return (columns + strip - 1) // strip


@inlined
def slots_of(columns, strip):
    """Return the number of states in the strips of a group; those in two strips count twice."""
    return strips_of(columns, strip) * strip


@inlined
def first_column(s, columns, strip):
    """Return the first column of strip s, counted within the group."""
    return min(s * strip, columns - strip)


@functools.cache
def make_slots(kind, strip):
    """Return (read, write) for the vector of strip s in an array of values, strip after strip."""
    strip_bytes = strip * described(kind).size

    @inlined
    def read(values, s):
        return load(kind, strip, "unit", values + s * strip_bytes, 0)

    @inlined
    def write(values, s, value):
        store(kind, "unit", values + s * strip_bytes, 0, value)

    return read, write


def make_identity(recipe, lanes):
    """Return a function without arguments that gives (P, R) of no steps: the identity map."""
    one = constant(recipe.coefficient_kind, lanes, recipe.algebra.one)
    zero = constant(recipe.state_kind, lanes, recipe.algebra.zero)

    @inlined
    def identity():
        return one(), zero()

    return identity


def make_inputs(recipe, lanes):
    """Return (read_coefficient, directed, read_input): the inputs of steps, for ``lanes`` lanes.

    The two readers take the address of the first lane. They use ``stride`` only if the spacing is
    "strided". ``directed`` returns the coefficient of the sweep for a step: the coefficient itself,
    or backward its adjoint.
    """
    kind_a, kind_x, spacings = recipe.a, recipe.x, recipe.spacings
    space_a, space_x = spacings.a, spacings.x
    backward, adjoint = recipe.backward, compiled(recipe.algebra).adjoint

    @inlined
    def read_coefficient(address, stride):
        return load(kind_a, lanes, space_a, address, stride)

    @inlined
    def directed(a):
        if backward:
            return adjoint(a)
        return a

    @inlined
    def read_input(address, stride):
        return load(kind_x, lanes, space_x, address, stride)

    return read_coefficient, directed, read_input


def make_states(recipe, strip):
    """Return (initial_states, copy, carry_over, finite), loops over the states of a group."""
    kind_start, guarded = recipe.start, recipe.algebra.guarded
    step = compiled(recipe.algebra).step
    zero = constant(recipe.state_kind, strip, recipe.algebra.zero)
    read, write = make_slots(recipe.state_kind, strip)
    read_P, _ = make_slots(recipe.coefficient_kind, strip)

    @inlined
    def initial_states(to, start, stride, columns):
        """Write the states before the first step: h0 at address ``start``, or zero if that is 0."""
        for s in range(strips_of(columns, strip)):
            h = zero()
            if start != 0:
                address = start + first_column(s, columns, strip) * stride
                h = load(kind_start, strip, "strided", address, stride)
            write(to, s, h)

    @inlined
    def copy(to, source, columns):
        """Copy the states at ``source``."""
        for s in range(strips_of(columns, strip)):
            write(to, s, read(source, s))

    @inlined
    def carry_over(to, P, R, carry, columns):
        """Write the states that the maps (P, R) make of those at ``carry``.

        Returns True if they can be trusted: for a guarded algebra, if all of them are finite.
        """
        believed = True
        for s in range(strips_of(columns, strip)):
            h = step(read_P(P, s), read(R, s), read(carry, s))
            if guarded:
                believed &= all_finite(h)
            write(to, s, h)
        return believed

    @inlined
    def finite(states, columns):
        """Return True if all states are finite."""
        yes = True
        for s in range(strips_of(columns, strip)):
            yes &= all_finite(read(states, s))
        return yes

    return initial_states, copy, carry_over, finite


@functools.cache
def make_advance(recipe, strip):
    """Return a function that takes one step of a strip: load, compute, store, return the new state.

    It is called as ``advance(at, over_columns, h, first, last, a_stride, forgets)``::

        at            addresses of the step, in the first column of the strip
        over_columns  strides from one column to the next
        h             the state before the step, in the order of the sweep
        first         whether it is the first step of its sequence; backward, no coefficient leads
                      to that step
        last          whether it is the last step of its sequence, in the order of the sweep
        a_stride      bytes from the coefficient of a step to that of the next
        forgets       whether a coefficient of zero forgets a state that is not finite, too

    Forward, all steps are alike, so ``first``, ``last`` and ``a_stride`` are ignored.
    """
    return (_make_backward_step if recipe.backward else _make_forward_step)(recipe, strip)


def _make_forward_step(recipe, strip):
    """Return the forward step: it writes h[t] = step(a[t], x[t], h[t-1])."""
    kind_x, space_out = recipe.x, recipe.spacings.out
    step, guarded = compiled(recipe.algebra).step, recipe.algebra.guarded
    read_coefficient, _, read_input = make_inputs(recipe, strip)

    @inlined
    def advance(at, over_columns, h, first, last, a_stride, forgets):
        x = read_input(at.x, over_columns.x)
        a = read_coefficient(at.a, over_columns.a)
        if guarded:
            if forgets:
                h = remembered(a, h)
        h = step(a, x, h)
        store(kind_x, space_out, at.out, over_columns.out, h)
        return h

    return advance


def _make_backward_step(recipe, strip):
    """Return the backward step: it writes g[t] = step(adjoint(a[t+1]), dh[t], g[t+1]) and da[t].

    The last step of the sweep, t = 0, also writes the gradient at h0.
    """
    kind_a, kind_x, kind_start = recipe.a, recipe.x, recipe.start
    spacings, guarded = recipe.spacings, recipe.algebra.guarded
    space_out, space_before, space_da = spacings.out, spacings.before, spacings.da
    writes_out, writes_da = recipe.writes_out, recipe.writes_da
    functions = compiled(recipe.algebra)
    step, adjoint = functions.step, functions.adjoint
    coefficient_gradient, state_gradient = functions.coefficient_gradient, functions.state_gradient
    zero = constant(recipe.state_kind, strip, recipe.algebra.zero)
    read_coefficient, _, read_input = make_inputs(recipe, strip)

    @inlined
    def advance(at, over_columns, g, first, last, a_stride, forgets):
        dh = read_input(at.x, over_columns.x)
        if first:
            g = dh
        else:
            a = adjoint(read_coefficient(at.a, over_columns.a))
            if guarded:
                if forgets:
                    g = remembered(a, g)
            g = step(a, dh, g)
        if writes_out:
            store(kind_x, space_out, at.out, over_columns.out, g)
        if writes_da:
            before = zero()
            if not last:
                before = load(kind_x, strip, space_before, at.before, over_columns.before)
            elif at.start != 0:
                before = load(kind_start, strip, "strided", at.start, over_columns.start)
            store(kind_a, space_da, at.da, over_columns.da, coefficient_gradient(before, g))
        if last and at.dstart != 0:
            # The coefficient by which h0 enters.
            a, kept = read_coefficient(at.a + a_stride, over_columns.a), g
            if guarded:
                kept = remembered(a, g)
            dstart = state_gradient(a, kept)
            store(kind_start, "strided", at.dstart, over_columns.dstart, dstart)
        return g

    return advance


def make_apply_again(recipe, strip):
    """Return a function that takes a section's steps one by one; zero coefficients forget all."""
    read, write = make_slots(recipe.state_kind, strip)
    advance = make_advance(recipe, strip)

    @inlined
    def apply_again(section, states):
        columns, over_columns, over_time = (
            section.columns,
            section.over_columns,
            section.over_time,
        )
        for s in range(strips_of(columns, strip)):
            h = read(states, s)
            here = moved(section.at, over_columns, first_column(s, columns, strip))
            for t in range(section.t0, section.t1):
                at = moved(here, over_time, t)
                first = section.opens and t == section.t0
                last = section.closes and t == section.t1 - 1
                h = advance(at, over_columns, h, first, last, over_time.a, bool(1))
            write(states, s, h)

    return apply_again
