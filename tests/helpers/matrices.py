"""An algebra that is none of the package's: 2 by 2 matrices in the place of coefficients.

    h[t] = A[t] h[t-1] + x[t]        A[t] (2, 2), row by row; h[t], x[t] (2,)

Kernels made from it show that they take from an algebra whatever is particular to it.
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
    # Compiled kernels are kept by the name, and this file is none of their sources.
    name="matrices" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8],
    coefficient=4,
    state=2,
    one=(1, 0, 0, 1),
    zero=(0, 0),
    step=step,
    compose=compose,
    adjoint=adjoint,
    coefficient_gradient=coefficient_gradient,
    state_gradient=state_gradient,
)


def draw(shape, dtype=torch.float32, seed=0):
    """(A, x, h0, dh) for a time axis in front; A turns and hardly shrinks, so that states last."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*more):
        return torch.randn(*more, dtype=torch.float64, generator=generator)

    turned = torch.linalg.qr(normal(*shape, 2, 2)).Q
    a = turned + 0.02 * normal(*shape, 2, 2)
    tensors = a, normal(*shape, 2), normal(*shape[1:], 2), normal(*shape, 2)
    return tuple(tensor.to(dtype) for tensor in tensors)


def exact(a, x, h0, dh, reverse):
    """((value, bound), ...) of h, dA, dx and dh0 in float64, by a loop and by torch's autograd.

    The bound is that of :func:`lrscan.core.reference.rounding_bound`, to whose two roundings of a
    term in a step comes the sum of a row's two products; absolute values take the same way.
    """
    a, x, h0, dh = (tensor.double() for tensor in (a, x, h0, dh))
    depth = math.ceil(math.log2(max(len(x), 2))) + 2
    unit = torch.finfo(torch.float32).eps / 2

    def loop(a, x, h, order):
        states = [None] * len(x)
        for t in order:
            h = torch.einsum("...ij,...j->...i", a[t], h) + x[t]
            states[t] = h
        return torch.stack(states)

    def bounded(a, x, h, order):
        H = loop(a.abs(), x.abs(), h.abs(), order)
        before = torch.cat([h.abs()[None], H[:-1]]) if order[0] == 0 else torch.cat(
            [H[1:], h.abs()[None]]
        )
        arising = 2 * depth * x.abs() + 3 * torch.einsum("...ij,...j->...i", a.abs(), before)
        return unit * loop(a.abs(), arising, 2 * depth * h.abs(), order), before

    order = range(len(x))[::-1] if reverse else range(len(x))
    leaves = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
    h = loop(*leaves, order)
    da, dx, dh0 = torch.autograd.grad(h, leaves, dh)
    h_bound, before = bounded(a, x, h0, order)
    later = torch.zeros_like(a)
    if reverse:
        later[1:] = a[:-1].mT
    else:
        later[:-1] = a[1:].mT
    g_bound, _ = bounded(later, dh, torch.zeros_like(h0), order[::-1])
    g = dx
    before_bound = torch.cat([torch.zeros_like(h0)[None], h_bound[:-1]]) if not reverse else (
        torch.cat([h_bound[1:], torch.zeros_like(h0)[None]])
    )
    da_bound = (
        g_bound[..., :, None] * (before + before_bound)[..., None, :]
        + g.abs()[..., :, None] * before_bound[..., None, :]
        + 2 * unit * da.abs()
    )
    first = order[0]
    dh0_bound = torch.einsum("...ji,...j->...i", a[first].abs(), g_bound[first]) + 3 * unit * (
        torch.einsum("...ji,...j->...i", a[first].abs(), g[first].abs())
    )
    return (h.detach(), h_bound), (da, da_bound), (dx, g_bound), (dh0, dh0_bound)


def by_kernels(a, x, h0, dh, reverse, algorithm, backend, dim=0):
    """(h, dA, dx, dh0) of a backend's kernels, for tensors whose axis of time is ``dim``."""
    a, dh = a.flatten(-2), dh.contiguous()
    h = torch.empty_like(x)
    options = (dim, reverse, algorithm, None, backend, MATRICES)
    sweep.run({"a": a, "x": x, "start": h0, "out": h}, False, *options)
    da, dx, dh0 = torch.empty_like(a), torch.empty_like(x), torch.empty_like(h0)
    rows = {"a": a, "x": dh, "start": h0, "out": dx, "before": h, "da": da, "dstart": dh0}
    sweep.run(rows, True, *options)
    return h, da.unflatten(-1, (2, 2)), dx, dh0


def check(found, expected):
    """Every number is as near to the exact value as rounding allows."""
    for name, got, (value, bound) in zip(("h", "dA", "dx", "dh0"), found, expected, strict=True):
        assert got.shape == value.shape, name
        share = ((got - value).abs() / bound.clamp_min(1e-300)).max()
        assert share <= 1, f"{name}: {share:.3g} times its bound"
