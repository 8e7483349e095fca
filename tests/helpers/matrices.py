"""An algebra that the package does not have: coefficients are 2 by 2 matrices.

The recurrence::

    h[t] = A[t] h[t-1] + x[t]        A[t] (2, 2), row by row; h[t], x[t] (2,)

Kernels built from it show that only the algebra knows what a coefficient is.
"""

import hashlib
import math
from pathlib import Path

import torch

from lrscan.core import sweep
from lrscan.core.algebra import Algebra


def step(a, x, h):
    return a[0] * h[0] + a[1] * h[1] + x[0], a[2] * h[0] + a[3] * h[1] + x[1]


def compose(a1, x1, a2, x2):
    product = (
        a2[0] * a1[0] + a2[1] * a1[2],
        a2[0] * a1[1] + a2[1] * a1[3],
        a2[2] * a1[0] + a2[3] * a1[2],
        a2[2] * a1[1] + a2[3] * a1[3],
    )
    return product, (a2[0] * x1[0] + a2[1] * x1[1] + x2[0], a2[2] * x1[0] + a2[3] * x1[1] + x2[1])


def adjoint(a):
    return a[0].conjugate(), a[2].conjugate(), a[1].conjugate(), a[3].conjugate()


def coefficient_gradient(h, g):
    h0, h1 = h[0].conjugate(), h[1].conjugate()
    return g[0] * h0, g[0] * h1, g[1] * h0, g[1] * h1


def state_gradient(a, g):
    return (
        a[0].conjugate() * g[0] + a[2].conjugate() * g[1],
        a[1].conjugate() * g[0] + a[3].conjugate() * g[1],
    )


MATRICES = Algebra(
    # Compiled kernels are cached under this name. It has the hash of this file, which is not among
    # the sources that the cache watches.
    name="matrices" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8],
    coefficient_numbers=4,
    state_numbers=2,
    one=(1, 0, 0, 1),
    zero=(0, 0),
    step=step,
    compose=compose,
    adjoint=adjoint,
    coefficient_gradient=coefficient_gradient,
    state_gradient=state_gradient,
)


def draw(shape, dtype=torch.float32, seed=0):
    """Draw (A, x, h0, dh) with time first; A is nearly a rotation, so that states last."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*more):
        return torch.randn(*more, dtype=torch.float64, generator=generator)

    turned = torch.linalg.qr(normal(*shape, 2, 2)).Q
    a = turned + 0.02 * normal(*shape, 2, 2)
    tensors = a, normal(*shape, 2), normal(*shape[1:], 2), normal(*shape, 2)
    return tuple(tensor.to(dtype) for tensor in tensors)


def exact(a, x, h0, dh, reverse):
    """Compute ((value, bound), ...) of h, dA, dx and dh0 in float64, with a loop and autograd.

    One bound holds for all numbers of a state. It is the bound of
    :func:`lrscan.core.reference.rounding_bound` with norms instead of absolute values: to first
    order, with the unit roundoff u, the error is at most u * K[t], where ::

        H[t] = norm(A[t]) * H[t-1] + norm(x[t])
        K[t] = norm(A[t]) * (K[t-1] + 5 * H[t-1]) + d * norm(x[t])

    Before the start, H is norm(h0) and K is d * norm(h0).

    A product of a matrix and a state rounds each number three times, and the terms are at most
    sqrt(2) times as large as the product of their norms: hence the 5. Each of the log2(T) + 2
    levels of a tree rounds like this once: d is 5 times their number.
    """
    a, x, h0, dh = (tensor.double() for tensor in (a, x, h0, dh))
    order = list(range(len(x)))[:: -1 if reverse else 1]
    depth, unit = 5 * (math.ceil(math.log2(len(x))) + 2), torch.finfo(torch.float32).eps / 2
    first = order[0]

    def before(states, start):
        """Shift values one step later, so that each step has the value of the step before."""
        last = [states[1:], start[None]] if reverse else [start[None], states[:-1]]
        return torch.cat(last)

    def loop(a, x, h, order):
        states = [h] * len(x)
        for t in order:
            states[t] = h = torch.einsum("...ij,...j->...i", a[t], h) + x[t]
        return torch.stack(states)

    def bounded(a, x, h, order):
        norms = torch.linalg.matrix_norm(a, 2), x.norm(dim=-1), h.norm(dim=-1)
        H, K = norms[2], depth * norms[2]
        bounds = [K] * len(x)
        for t in order:
            K = norms[0][t] * (K + 5 * H) + depth * norms[1][t]
            H = norms[0][t] * H + norms[1][t]
            bounds[t] = K
        return unit * torch.stack(bounds)

    leaves = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
    h = loop(*leaves, order)
    da, dx, dh0 = torch.autograd.grad(h, leaves, dh)
    h = h.detach()
    later = torch.zeros_like(a)
    later[order[:-1]] = a[order[1:]].mT
    h_bound = bounded(a, x, h0, order)
    g_bound = bounded(later, dh, torch.zeros_like(h0), order[::-1])
    h_before, error_before = before(h, h0), before(h_bound, torch.zeros_like(h_bound[0]))
    da_bound = g_bound * h_before.norm(dim=-1) + dx.norm(dim=-1) * error_before
    da_bound += unit * dx.norm(dim=-1) * h_before.norm(dim=-1)
    size = torch.linalg.matrix_norm(a[first], 2)
    dh0_bound = size * (g_bound[first] + 5 * unit * dx[first].norm(dim=-1))
    return (
        (h, h_bound[..., None]),
        (da, da_bound[..., None, None]),
        (dx, g_bound[..., None]),
        (dh0, dh0_bound[..., None]),
    )


def by_kernels(a, x, h0, dh, reverse, algorithm, backend, dim=0):
    """Compute (h, dA, dx, dh0) with a backend's kernels; time is the axis ``dim``."""
    a, dh = a.flatten(-2), dh.contiguous()
    h = torch.empty_like(x)
    options = (dim, reverse, algorithm, None, backend, MATRICES)
    sweep.run({"a": a, "x": x, "start": h0, "out": h}, False, *options)
    da, dx, dh0 = torch.empty_like(a), torch.empty_like(x), torch.empty_like(h0)
    rows = {"a": a, "x": dh, "start": h0, "out": dx, "before": h, "da": da, "dstart": dh0}
    sweep.run(rows, True, *options)
    return h, da.unflatten(-1, (2, 2)), dx, dh0


def by_kernels_in_layout(tensors, dim, reverse, algorithm, backend):
    """Do the same for time-first tensors, but hand the kernels copies with time as axis ``dim``."""
    a, x, h0, dh = tensors
    a, x, dh = (tensor.transpose(0, dim).contiguous() for tensor in (a, x, dh))
    h, da, dx, dh0 = by_kernels(a, x, h0, dh, reverse, algorithm, backend, dim)
    return h.transpose(0, dim), da.transpose(0, dim), dx.transpose(0, dim), dh0


def check(found, expected):
    """Check that every number is as close to the exact value as rounding allows."""
    for name, got, (value, bound) in zip(("h", "dA", "dx", "dh0"), found, expected, strict=True):
        assert got.shape == value.shape, name
        share = ((got - value).abs() / bound.clamp_min(1e-300)).max()
        assert share <= 1, f"{name}: {share:.3g} times its bound"
