"""CPU kernels for another algebra: 2 by 2 matrices go through all of them."""

import dataclasses
import hashlib
from pathlib import Path

import matrices
import pytest
import torch
from matrices import MATRICES, by_kernels_in_layout, check, draw, exact
from numba import njit

from lrscan.core import sweep
from lrscan.cpu import dispatch

ALGORITHMS = ["serial", "blocked"]
# (steps, columns), the axis of time, and the order of the float32 kernel.
LAYOUTS = {
    "one step": ((1, 1), 0, "times"),
    "strips": ((40, 35), 0, "strips"),
    "few columns": ((70, 3), 0, "strips"),
    "rows": ((40, 67), 0, "rows"),
    "one column": ((600, 1), 0, "times"),
    "time": ((600, 3), 1, "times"),
    "columns beside time": ((150, 4), 0, "times"),
}


def other(**changes):
    """Return the algebra of matrices with changes, under a name of its own."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    name = f"{MATRICES.name} {own} {' '.join(changes)}"
    return dataclasses.replace(MATRICES, name=name, **changes)


@pytest.fixture
def orders(monkeypatch):
    """Set small thresholds for chunks, rows and streaming; yield the orders of the kernels used."""
    for name, value in {"CHUNK_BYTES": 2048, "ROW_STRIPS": 4, "STREAM_BYTES": 0}.items():
        monkeypatch.setattr(dispatch, name, value)
    used, compiled = set(), dispatch.sweep_kernel

    def noting(recipe):
        assert recipe.algebra.name.startswith("matrices")
        used.add(recipe.order)
        return compiled(recipe)

    monkeypatch.setattr(dispatch, "sweep_kernel", noting)
    sweep._prepared.cache_clear()
    yield used
    sweep._prepared.cache_clear()


def found(tensors, dim, reverse, algorithm):
    """Return the results of the CPU kernels, with the axis of time in front."""
    return by_kernels_in_layout(tensors, dim, reverse, algorithm, "cpu")


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_matrices_agree_with_the_loop(algorithm, layout, reverse, orders):
    shape, dim, order = LAYOUTS[layout]
    tensors = draw(shape)
    check(found(tensors, dim, reverse, algorithm), exact(*tensors, reverse))
    assert orders == {order}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threads_do_not_change_a_bit(algorithm, orders):
    tensors, before, results = draw((60_000, 4)), torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(found(tensors, 0, False, algorithm))
    torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_matrices_of_half_precision_are_computed_in_float32(orders):
    """The numbers of a value are widened one by one, and rounded only once."""
    half = [tensor.bfloat16() for tensor in draw((40, 35))]
    got = found(half, 0, False, "blocked")
    wide = found([tensor.float() for tensor in half], 0, False, "blocked")
    for name, one, other in zip(("h", "dA", "dx", "dh0"), got, wide, strict=True):
        assert one.dtype == torch.bfloat16
        if name != "dA":  # which is computed from the rounded h
            assert torch.equal(one, other.bfloat16()), name


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_matrices_of_complex_numbers(algorithm, reverse, orders):
    real, imaginary = draw((75, 4)), draw((75, 4), seed=1)
    a, x, h0, dh = map(torch.complex, real, imaginary)
    a /= 2
    leaves = [tensor.to(torch.complex128).requires_grad_() for tensor in (a, x, h0)]
    h, states = leaves[2], [None] * len(x)
    for t in range(len(x))[:: -1 if reverse else 1]:
        states[t] = h = (leaves[0][t] @ h[..., None])[..., 0] + leaves[1][t]
    h = torch.stack(states)
    expected = h, *torch.autograd.grad(h, leaves, dh.to(h.dtype))
    for got, exactly in zip(found((a, x, h0, dh), 0, reverse, algorithm), expected, strict=True):
        torch.testing.assert_close(got, exactly.to(got.dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("columns", [4, 35])
def test_packed_sequences_of_matrices(columns, reverse, orders):
    begins = torch.tensor([0, 7, 7, 90, 150])
    a, x, _, dh = draw((150, columns))
    a, h, da, dx = a.flatten(-2), torch.empty_like(x), torch.empty_like(a).flatten(-2), x.clone()
    h0 = torch.randn(4, columns, 2)
    dh0 = torch.zeros_like(h0)
    rows = {"a": a, "start": h0}
    options = (0, reverse, "blocked", begins, "cpu", MATRICES)
    sweep.run(rows | {"x": x, "out": h}, False, *options)
    rows |= {"x": dh, "out": dx, "before": h, "da": da, "dstart": dh0}
    sweep.run(rows, True, *options)
    for n, (first, stop) in enumerate(zip(begins[:-1], begins[1:], strict=True)):
        if first == stop:
            assert torch.equal(dh0[n], torch.zeros_like(dh0[n]))
            continue
        own = [tensor[first:stop] for tensor in (a.unflatten(-1, (2, 2)), x, dh)]
        expected = exact(*own[:2], h0[n], own[2], reverse)
        got = h[first:stop], da[first:stop].unflatten(-1, (2, 2)), dx[first:stop], dh0[n]
        check(got, expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", ["strips", "rows", "time", "columns beside time"])
def test_products_may_overflow_and_matrices_of_zeros_forget(layout, algorithm, orders):
    (steps, columns), dim, _ = LAYOUTS[layout]
    steps *= 2
    a, x, h0, dh = draw((steps, columns))
    third = steps // 3
    a[:third], x[:third], h0 = 1e20 * torch.eye(2), 0, torch.zeros(columns, 2)
    x[third + 3, 0, 1] = float("inf")
    a[third + 5] = 0
    h = found((a, x, h0, dh), dim, False, algorithm)[0]
    assert (h[:third] == 0).all()
    lost = ~h[:, 0].isfinite().all(-1)
    assert lost.nonzero().squeeze(1).tolist() == [third + 3, third + 4]
    assert h[:, 1:].isfinite().all()
    assert torch.equal(h[third + 5], x[third + 5])


@pytest.mark.parametrize("layout", ["strips", "rows", "time", "columns beside time"])
def test_an_algebra_without_guard_trusts_its_products(layout, orders, monkeypatch):
    """It is right where nothing overflows. It does not check for overflow."""
    (steps, columns), dim, _ = LAYOUTS[layout]
    monkeypatch.setattr(matrices, "MATRICES", other(guarded=False))
    tensors = a, x, h0, _ = draw((2 * steps, columns))
    for algorithm in ALGORITHMS:
        check(found(tensors, dim, False, algorithm), exact(*tensors, False))
    a[:], x[:], h0[:] = 1e20 * torch.eye(2), 0, 0
    assert not found(tensors, dim, False, "blocked")[0].isfinite().all()


_compose = njit(matrices.compose)


def _later_first(a1, x1, a2, x2):
    return _compose(a2, x2, a1, x1)


def _as_it_is(a):
    return a


def _other_way_round(h, g):
    return g[0] * h[0], g[1] * h[0], g[0] * h[1], g[1] * h[1]


def _forward(a, g):
    return a[0] * g[0] + a[1] * g[1], a[2] * g[0] + a[3] * g[1]


# (the wrong part, a layout that shows the mistake)
WRONG = {
    "the later map first": (dict(compose=_later_first), "time"),
    "a map of no steps that changes states": (dict(one=(1, 1, 0, 1)), "strips"),
    "coefficients not transposed": (dict(adjoint=_as_it_is), "rows"),
    "their gradients transposed": (
        dict(coefficient_gradient=_other_way_round),
        "columns beside time",
    ),
    "the gradient at h0 not transposed": (dict(state_gradient=_forward), "strips"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_algebra_is_caught(mistake, orders, monkeypatch):
    changes, layout = WRONG[mistake]
    monkeypatch.setattr(matrices, "MATRICES", other(**changes))
    shape, dim, _ = LAYOUTS[layout]
    tensors = draw(shape)
    with pytest.raises(AssertionError, match="times its bound"):
        check(found(tensors, dim, False, "blocked"), exact(*tensors, False))
