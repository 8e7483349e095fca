"""The algebra of the linear recurrence, as plain functions.

Every backend compiles these same bodies: Numba for the CPU, Numba CUDA for the GPU, and plain
Python in the CUDA simulator and in the lessons. They use nothing but ``*``, ``+`` and
``conjugate``, so a value may be a real or complex number, or a vector of them; only
:func:`remembered` compares, and is for numbers.

One time step is the affine map ``h -> a * h + x``. Two of them composed are again an affine map,
which is what makes the recurrence a scan (Blelloch 1990, section 1.4; Martin and Cundy 2018,
section 2.2). The pair ``(a, x)`` stands for the map.

    identity        (1, 0)
    composition     (a1, x1) then (a2, x2)  =  (a2 * a1, a2 * x1 + x2)

Composition is associative. It is not commutative: the earlier map always comes first here.

**A coefficient of exactly zero forgets.** It is not multiplied: the step is ``h -> x`` whatever h
is, NaN and infinity too, as BLAS and :func:`torch.addmm` read nothing where their beta is zero. So
a zero parts sequences. Kernels that take step after step use :func:`remembered`
(:func:`lrscan.core.sweep.product` is the same for tensors). Those that compute many steps at once
multiply zeros as other numbers, which leads from no state that is not finite to one that is; so
they look at the last state, and only if that is not finite do they take the steps again, one by
one.

Glossary, with the names of the paper (arXiv:1709.04057):

    here      paper           meaning
    a         lambda          coefficient (elsewhere: decay, gate, forget)
    x         x               input (impulse)
    h, h0     h, h_0          state, and the state before the first step
    T, B, C   T, b, n         time steps, minibatch, features
    columns   features        independent recurrences (everything but time)
    dh        dL/dh           gradient of the loss at an output, as autograd hands it over
    g         total gradient  gradient at h[t], through all later steps
"""

from __future__ import annotations


def step(a, x, h):
    """One time step: ``a * h + x``."""
    return a * h + x


def remembered(a, h, zero):
    """The state that a step with coefficient ``a`` starts from: h, or zero where ``a`` is zero."""
    return h if a != 0 else zero


def compose(a1, x1, a2, x2):
    """The affine map ``(a1, x1)`` followed by ``(a2, x2)``, as a pair."""
    return a2 * a1, a2 * x1 + x2


def coefficient_gradient(h_before, g):
    """Gradient at ``a[t]``: ``conj(h[t-1]) * g[t]``, in PyTorch's convention for complex."""
    return h_before.conjugate() * g
