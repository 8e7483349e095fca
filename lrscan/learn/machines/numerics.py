"""Four ways to evaluate the recurrence, equal on paper and different in a computer.

All take ``a`` and ``x`` of shape (T, columns), start from zero, and compute in the dtype of the
inputs. The first two round every product and every sum to it. The others use torch's cumulative
functions, which may keep more digits between their steps::

    serial      h = a * h + x                                   T roundings in a chain
    tree        Hillis and Steele (1986) over pairs             log2(T) levels
    division    h = p * cumsum(x / p), p = cumprod(a)           p underflows
    log_space   log h = A + logcumsumexp(log x - A), A = cumsum(log a)   needs a > 0 and x > 0
                (Heinsen 2023, arXiv:2311.06281)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lrscan.core import algebra
from lrscan.core.reference import linear_recurrence_reference


def serial(a: Tensor, x: Tensor) -> Tensor:
    """Compute ``h = a * h + x`` in a loop over time."""
    h, states = torch.zeros_like(x[0]), []
    for a_t, x_t in zip(a, x, strict=True):
        h = algebra.step(a_t, x_t, h)
        states.append(h)
    return torch.stack(states)


def tree(a: Tensor, x: Tensor) -> Tensor:
    """Compute an inclusive scan of the pairs, all lanes of a level at once."""
    a, x = a.clone(), x.clone()
    distance = 1
    while distance < len(a):
        P, R = algebra.compose(a[:-distance], x[:-distance], a[distance:], x[distance:])
        a = torch.cat([a[:distance], P])
        x = torch.cat([x[:distance], R])
        distance *= 2
    return x


def division(a: Tensor, x: Tensor) -> Tensor:
    """Compute ``p * cumsum(x / p)``, where p is the cumulative product of a."""
    p = torch.cumprod(a, 0)
    return p * torch.cumsum(x / p, 0)


def log_space(a: Tensor, x: Tensor) -> Tensor:
    """Compute the same in logarithms, which do not underflow; a and x must be positive."""
    A = torch.cumsum(a.log(), 0)
    return (A + torch.logcumsumexp(x.log() - A, 0)).exp()


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "serial": serial,
    "tree": tree,
    "division": division,
    "log space": log_space,
}


def error(method: Callable[[Tensor, Tensor], Tensor], a: Tensor, x: Tensor) -> float:
    """Return the largest error divided by the largest true value.

    It is infinity if any result is not finite.
    """
    exact = linear_recurrence_reference(a, x)
    got = method(a, x).double()
    if not torch.isfinite(got).all():
        return float("inf")
    return ((got - exact).abs().max() / exact.abs().max()).item()


def gates(steps: int, decay: float, columns: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return coefficients near ``decay`` and positive inputs, in float64: (a, x)."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(steps, columns, generator=generator, dtype=torch.float64)
    a = (decay * (0.98 + 0.04 * spread)).clamp(max=1.0)
    x = 0.1 + torch.rand(steps, columns, generator=generator, dtype=torch.float64)
    return a, x
