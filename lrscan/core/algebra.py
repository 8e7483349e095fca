"""The algebra of the linear recurrence: plain functions that kernels are built from.

Every backend compiles these same bodies: Numba for the CPU and Numba CUDA for the GPU. The CUDA
simulator and the lessons run them as plain Python. They use nothing but ``*``, ``+`` and
``conjugate``, so a value may be a real or complex number, or a vector of them. :data:`SCALAR`
groups them. Kernels take every operation on maps and states from an :class:`Algebra`, and from
nowhere else.

One time step is the affine map ``h -> a * h + x``. Two affine maps composed are again an affine
map. This makes the recurrence a scan (Blelloch 1990, section 1.4; Martin and Cundy 2018, section
2.2). The pair ``(a, x)`` stands for the map::

    identity        (1, 0)
    composition     (a1, x1) then (a2, x2)  =  (a2 * a1, a2 * x1 + x2)

Composition is associative. It is not commutative: the earlier map always comes first here.

**A coefficient of exactly zero forgets.** It is not multiplied: the step is ``h -> x`` for every h,
including NaN and infinity. BLAS and :func:`torch.addmm` treat a beta of zero in the same way. A
zero therefore separates sequences.

Kernels that take one step at a time test for zeros (``remembered`` in each backend;
:func:`lrscan.core.sweep.product` does the same for tensors). Kernels that compute many steps at
once multiply zeros like other numbers. They also add up inputs that the loop never adds to each
other. A map may therefore overflow, or turn infinity into NaN, where the loop does neither. But a
map never takes a state that is not finite to one that is. So kernels check the states that maps
lead to. If one is not finite, they take the steps again, one by one.

Glossary, with the names of the paper (arXiv:1709.04057)::

    here      paper           meaning
    a         lambda          coefficient (elsewhere: decay, gate, forget)
    x         x               input (impulse)
    h, h0     h, h_0          state, and the state before the first step
    T, B, C   T, b, n         time steps, minibatch, features
    columns   features        independent recurrences (everything but time)
    dh        dL/dh           gradient of the loss at an output, as autograd passes it in
    g         total gradient  gradient at h[t], through all later steps
    P, R      -               a map of many steps, h -> P h + R: its coefficient, its offset

Glossary of the kernels::

    number    real or complex
    value     a coefficient, an input or a state of one step and column: one number or several
    chunk     consecutive steps that are processed together
    strip     neighbouring columns that are processed together
    tile      the unit of work. On a CPU a thread takes one: a chunk of some strips (a group).
              On a GPU a thread block takes one: some consecutive chunks of a strip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def step(a, x, h):
    """Return the state after one time step: ``a * h + x``."""
    return a * h + x


def compose(a1, x1, a2, x2):
    """Return the affine map ``(a1, x1)`` followed by ``(a2, x2)``, as a pair."""
    return a2 * a1, a2 * x1 + x2


def adjoint(a):
    """Return the factor by which a gradient passes back through a step: ``conj(a)``."""
    return a.conjugate()


def coefficient_gradient(h_before, g):
    """Return the gradient at ``a[t]``: ``conj(h[t-1]) * g[t]``, PyTorch's complex convention."""
    return h_before.conjugate() * g


def state_gradient(a, g):
    """Return the gradient at ``h[t-1]`` through step ``t`` alone: ``conj(a[t]) * g[t]``."""
    return a.conjugate() * g


def alike(number: float, count: int) -> Any:
    """Return a value of ``count`` numbers that all equal ``number``."""
    return number if count == 1 else (number,) * count


@dataclass(frozen=True, eq=False)
class Algebra:
    """The maps of a scan and the states that they act on: the input from which kernels are built.

    A step is a map. It is given by a coefficient ``a`` and an input ``x``; ``x`` has the type of a
    state. Maps compose to maps of the same form, associatively. A value of one number is that real
    or complex number. A value of several is a tuple of them, and they are adjacent in memory. The
    functions are plain Python that Numba compiles for numbers, vectors, and tuples of either.

    Attributes:
        name: unique; compiled kernels are cached under it
        coefficient_numbers, state_numbers: how many numbers each of them has
        one, zero: the identity map, as coefficient and offset; zero is also the state without h0
        step: (a, x, h) -> the state after h
        compose: (a1, x1, a2, x2) -> (a, x): the first map, then the second
        adjoint: a -> the coefficient by which gradients pass backwards:
            g[t] = step(adjoint(a[t+1]), dh[t], g[t+1])
        coefficient_gradient: (state before a step, g after it) -> gradient at its coefficient
        state_gradient: (a, g after a step) -> gradient at the state before it
        guarded: whether coefficients multiply, so that zero times infinity is NaN. If so, a
            coefficient of zeros forgets everything before it, and a map of several steps is used
            only where it leads to a finite state (see above)

    ``adjoint`` and the gradients are None if an algebra has no gradient of this form.
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
        """Return how many numbers a value in a row of :mod:`lrscan.core.sweep` has."""
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
