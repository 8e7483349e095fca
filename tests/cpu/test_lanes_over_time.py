"""Lanes over time: a scan within a register adds inputs that the loop never adds."""

import pytest
import torch

from lrscan import linear_recurrence
from lrscan.core import sweep
from lrscan.cpu import dispatch

# With coefficients of 1, the states are -3e38, 0, 3e38 and 0. The sum of two inputs overflows.
PATTERN = torch.tensor([-3e38, 3e38, 3e38, -3e38])


@pytest.fixture
def orders(monkeypatch):
    """Cut time into several chunks; yield the orders of the kernels that were used."""
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", 1024)
    used, compiled = set(), dispatch.sweep_kernel

    def noting(recipe):
        used.add(recipe.order)
        return compiled(recipe)

    monkeypatch.setattr(dispatch, "sweep_kernel", noting)
    sweep._prepared.cache_clear()
    yield used
    sweep._prepared.cache_clear()


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ["serial", "blocked"])
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_sums_of_inputs_may_overflow_where_the_states_do_not(
    dtype, columns, algorithm, reverse, orders
):
    for first in (0, 1, 37):  # at different places in a register
        x = torch.zeros(600, columns, dtype=dtype)
        x[first : first + 4] = PATTERN.to(dtype)[:, None] * (1 + 1j if dtype.is_complex else 1)
        expected = x.to(torch.promote_types(dtype, torch.float64)).cumsum(0).to(dtype)
        assert expected.isfinite().all()
        a, h0 = torch.ones_like(x), torch.zeros_like(x[0])
        turned = x.flip(0) if reverse else x
        h = linear_recurrence(a, turned, h0, reverse=reverse, algorithm=algorithm)
        assert torch.equal(h.flip(0) if reverse else h, expected)

        # Gradients at zero inputs: the same sums, in the opposite order of time.
        inputs = [tensor.requires_grad_() for tensor in (a, torch.zeros_like(x), h0)]
        h = linear_recurrence(*inputs, reverse=not reverse, algorithm=algorithm)
        da, dx, dh0 = torch.autograd.grad(h, inputs, turned)
        assert torch.equal(dx.flip(0) if reverse else dx, expected)
        assert torch.equal(da, torch.zeros_like(da)) and torch.equal(dh0, expected[-1])
    assert orders == {"times"}
