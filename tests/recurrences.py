"""Inputs and the check that every test of the operator uses."""

import torch

from lrscan.reference import oracle


def draw(shape, dtype, dim, seed=0):
    """(a, x, h0, dh): coefficients of magnitude up to about 1.2, either sign, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def normal(shape):
        return torch.randn(shape, dtype=wide, generator=generator).to(dtype)

    a = normal(shape) * 0.4
    a[torch.rand(shape, generator=generator) < 0.05] = 0
    columns = [n for d, n in enumerate(shape) if d != dim % len(shape)]
    return a, normal(shape), normal(columns), normal(shape)


def check(results, a, x, h0, dh, dim, reverse):
    """Every element of (h, da, dx, dh0) is as near to the exact value as rounding allows."""
    start = torch.zeros_like(dh.select(dim, 0)) if h0 is None else h0
    assert h0 is None or results[3] is not None
    compare(results, oracle(a, x, start, dh, dim=dim, reverse=reverse))


def compare(results, expected):
    """:func:`check` against what the oracle gave; a result that is None is left out."""
    for name, got, (value, bound) in zip(expected._fields, results, expected, strict=True):
        if got is None:
            assert name == "dh0"
            continue
        assert got.shape == value.shape, name
        error = (got - value).abs()
        worst = (error / bound.clamp_min(1e-300)).max() if error.numel() else torch.tensor(0.0)
        assert worst <= 1, f"{name}: error {error.max():.3g} is {worst:.3g} times its bound"
