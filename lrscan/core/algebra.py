"""The algebra of the linear recurrence: plain functions, and the value that kernels are made from.

Every backend compiles these same bodies: Numba for the CPU, Numba CUDA for the GPU, and plain
Python in the CUDA simulator and in the lessons. They use nothing but ``*``, ``+`` and
``conjugate``, so a value may be a real or complex number, or a vector of them. :data:`SCALAR` holds
them together: kernels take what they do with maps and states from an :class:`Algebra`, and nothing
from anywhere else.

One time step is the affine map ``h -> a * h + x``. Two of them composed are again an affine map,
which is what makes the recurrence a scan (Blelloch 1990, section 1.4; Martin and Cundy 2018,
section 2.2). The pair ``(a, x)`` stands for the map.

    identity        (1, 0)
    composition     (a1, x1) then (a2, x2)  =  (a2 * a1, a2 * x1 + x2)

Composition is associative. It is not commutative: the earlier map always comes first here.

**A coefficient of exactly zero forgets.** It is not multiplied: the step is ``h -> x`` whatever h
is, NaN and infinity too, as BLAS and :func:`torch.addmm` read nothing where their beta is zero. So
a zero parts sequences. Kernels that take step after step ask for zeros (``remembered`` of each
backend; :func:`lrscan.core.sweep.product` is the same for tensors). Those that compute many steps
at once multiply zeros as other numbers, and add inputs that the loop does not add to each other: so
a map may overflow, or make NaN of infinity, where the loop does neither. It never leads from a
state that is not finite to one that is. So the states that maps lead to are looked at, and where
one is not finite, the steps are taken again, one by one.

Glossary, with the names of the paper (arXiv:1709.04057):

    here      paper           meaning
    a         lambda          coefficient (elsewhere: decay, gate, forget)
    x         x               input (impulse)
    h, h0     h, h_0          state, and the state before the first step
    T, B, C   T, b, n         time steps, minibatch, features
    columns   features        independent recurrences (everything but time)
    dh        dL/dh           gradient of the loss at an output, as autograd hands it over
    g         total gradient  gradient at h[t], through all later steps
    P, R      -               a map of many steps, h -> P h + R: its coefficient, its offset

and with words of the kernels:

    number    real or complex
    value     a coefficient, an input or a state of one step and column: a number or several
    chunk     consecutive steps that are taken together
    strip     neighbouring columns that are carried together
    tile      what a thread of a CPU takes at a time: a chunk of some strips (a *group*); or a block
              of a GPU: some chunks of a strip, one after the other
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def step(a, x, h):
    """One time step: ``a * h + x``."""
    return a * h + x


def compose(a1, x1, a2, x2):
    """The affine map ``(a1, x1)`` followed by ``(a2, x2)``, as a pair."""
    return a2 * a1, a2 * x1 + x2


def adjoint(a):
    """The coefficient by which gradients run backwards over a step of coefficient ``a``."""
    return a.conjugate()


def coefficient_gradient(h_before, g):
    """Gradient at ``a[t]``: ``conj(h[t-1]) * g[t]``, in PyTorch's convention for complex."""
    return h_before.conjugate() * g


def state_gradient(a, g):
    """Gradient at ``h[t-1]`` through the step ``t`` alone: ``conj(a[t]) * g[t]``."""
    return a.conjugate() * g


def alike(number: float, count: int) -> Any:
    """A value of so many numbers, all of them the same."""
    return number if count == 1 else (number,) * count


@dataclass(frozen=True, eq=False)
class Algebra:
    """The maps of a scan, and the states that they act on: what kernels are made from.

    A step is a map, given by a coefficient ``a`` and an input ``x``; ``x`` is of the type of a
    state. Maps compose to maps of the same form, associatively. A value is a real or complex number
    where it is one number, else a tuple of them, which lie side by side in memory. The functions
    are plain Python that Numba compiles for numbers, for vectors of them and for tuples of either.

    name                  unique: compiled kernels are kept by it
    coefficient_numbers, state_numbers
                          how many numbers each is
    one, zero             the identity map, as coefficient and offset; zero is the state without h0
    step                  (a, x, h) -> the state after h
    compose               (a1, x1, a2, x2) -> (a, x): the first map, then the second
    adjoint               a -> the coefficient by which gradients run backwards: g = step(adjoint(a
                          one step later), dh, g one step later)
    coefficient_gradient  (state before a step, g after it) -> gradient at its coefficient
    state_gradient        (a, g after a step) -> gradient at the state before it
    guarded               whether coefficients multiply, so that zero times infinity is NaN: then a
                          coefficient of zeros forgets whatever was before, and no map of several
                          steps is believed unless it leads to a finite state (see above)

    ``adjoint`` and the gradients are None where an algebra has no gradient of this form.
    """

    name: str
    coefficient_numbers: int
    state_numbers: int
    one: Any
    zero: Any
    step: Callable
    compose: Callable
    adjoint: Callable | None = None
    coefficient_gradient: Callable | None = None
    state_gradient: Callable | None = None
    guarded: bool = True

    def numbers(self, row: str) -> int:
        """How many numbers a value of a row of :mod:`lrscan.core.sweep` is."""
        return self.coefficient_numbers if row in ("a", "da") else self.state_numbers


# h -> a h + x of real or complex numbers.
SCALAR = Algebra(
    name="scalar",
    coefficient_numbers=1,
    state_numbers=1,
    one=1,
    zero=0,
    step=step,
    compose=compose,
    adjoint=adjoint,
    coefficient_gradient=coefficient_gradient,
    state_gradient=state_gradient,
)
