"""Measured errors of the operator: a wrong operator exceeds its bound, the right one does not."""

import math

import pytest
import torch
from projects import make_project

from lrscan import linear_recurrence
from lrscan.experiments import correctness, inputs


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path / "project"))


def share(monkeypatch, operator):
    """Return the worst error over bound with another operator instead of ours."""
    monkeypatch.setattr(correctness.api, "linear_recurrence", operator)
    table = correctness.measure(
        device="cpu", seed=0, lengths=[300], features=[2], dtypes=["float64", "float32"]
    ).table
    return (table["error"] / table["bound"]).max()


def without_products(a, x, h0, *, algorithm):
    """Scan three chunks, and carry into the third only what the second makes from zero."""
    (a1, a2, a3), (x1, x2, x3) = a.split(100), x.split(100)
    h1 = linear_recurrence(a1, x1, h0)
    h2 = linear_recurrence(a2, x2, h1[-1])
    return torch.cat([h1, h2, linear_recurrence(a3, x3, linear_recurrence(a2, x2)[-1])])


def test_the_operator_keeps_to_the_bound(monkeypatch):
    assert share(monkeypatch, linear_recurrence) < 1


def test_a_carry_without_the_product_of_a_chunk_is_beyond_the_bound(monkeypatch):
    assert share(monkeypatch, without_products) > 1
    # With coefficients that forget, the mistake would not show.
    monkeypatch.setattr(correctness, "lasting", lambda a: a)
    assert share(monkeypatch, without_products) < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_lasting_coefficients_are_under_one_and_keep_their_sign(dtype):
    a = torch.tensor([0.5, -0.25, 0.0, -1.0], dtype=dtype)
    lasting = inputs.lasting(a)
    assert lasting.dtype == dtype and (lasting.abs() <= 1).all()
    assert torch.allclose(lasting.sgn(), a.sgn())
    assert lasting[0].abs().item() ** 1024 == pytest.approx(0.5, rel=1e-3)


def test_a_result_that_is_nan_is_infinitely_wrong(monkeypatch):
    def broken(a, x, h0, *, algorithm):
        return linear_recurrence(a, x, h0) + torch.zeros_like(x).masked_fill(x > 1, math.nan)

    assert share(monkeypatch, broken) == math.inf


def test_a_dtype_that_the_operator_does_not_take_is_an_error():
    with pytest.raises(ValueError, match="dtype 'int32': choose from float64, "):
        correctness.measure(
            device="cpu", seed=0, lengths=[3], features=[2], dtypes=["float32", "int32"]
        )
