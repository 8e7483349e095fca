"""Inputs for the tests of the operator, and the check that they all use."""

import torch

from lrscan.core.reference import oracle
from lrscan.experiments.inputs import lasting

# Kinds of coefficients. "forgets": magnitudes are up to about 1.2, most are far smaller, and some
# are 0. "lasts": magnitudes are within a hundredth of one, so that the product over a thread's
# steps, over a tile or over a block still matters in the next one.
KINDS = ("forgets", "lasts")


def coefficients(shape, dtype, generator, kind):
    """Draw coefficients of a kind, of either sign; complex ones have any phase."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    a = torch.randn(shape, dtype=wide, generator=generator)
    if kind == "lasts":
        return lasting(a).to(dtype)
    a = a.to(dtype) * 0.4
    a[torch.rand(shape, generator=generator) < 0.05] = 0
    return a


def draw(shape, dtype, dim, seed=0, kind="forgets"):
    """Draw (a, x, h0, dh) with coefficients of a kind."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def normal(shape):
        return torch.randn(shape, dtype=wide, generator=generator).to(dtype)

    a = coefficients(shape, dtype, generator, kind)
    columns = [n for d, n in enumerate(shape) if d != dim % len(shape)]
    return a, normal(shape), normal(columns), normal(shape)


def spoiled(a, x, h0, dh, seed=0):
    """Return copies with NaN and infinity in all of them; zeros in ``a`` stop their spread."""
    generator = torch.Generator().manual_seed(seed)

    def some(tensor, share):
        return torch.rand(tensor.shape, generator=generator) < share

    tensors = [tensor.clone() for tensor in (a, x, h0, dh)]
    for tensor, share in zip(tensors, (0.004, 0.01, 0.2, 0.01), strict=True):
        tensor[some(tensor, share)] = float("nan")
        tensor[some(tensor, share)] = float("inf")
    tensors[0][some(a, 0.06)] = 0
    return tensors


def check(results, a, x, h0, dh, dim, reverse):
    """Check that every element of (h, da, dx, dh0) is as close to exact as rounding allows."""
    start = torch.zeros_like(dh.select(dim, 0)) if h0 is None else h0
    assert h0 is None or results[3] is not None
    compare(results, oracle(a, x, start, dh, dim=dim, reverse=reverse))


def compare(results, expected):
    """Check results against those of the oracle; only ``dh0`` may be None, and is then skipped.

    A result must be finite exactly where the exact value is.
    """
    for name, got, (value, bound) in zip(expected._fields, results, expected, strict=True):
        if got is None:
            assert name == "dh0"
            continue
        assert got.shape == value.shape, name
        error = (got - value).abs()
        share = (error / bound.clamp_min(1e-300)).nan_to_num(nan=torch.inf)
        share = share.masked_fill(~got.isfinite() & ~value.isfinite(), 0)
        share = share.masked_fill(got.isfinite() != value.isfinite(), torch.inf)
        worst = share.max() if share.numel() else torch.tensor(0.0)
        assert worst <= 1, f"{name}: error {error.max():.3g} is {worst:.3g} times its bound"
