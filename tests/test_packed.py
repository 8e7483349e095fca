"""Sequences that lie end to end, and the small relatives of the operator."""

import pytest
import torch
from recurrences import KINDS, coefficients
from test_operator import small_thresholds
from torch.autograd import gradcheck, gradgradcheck

from lrscan import (
    linear_recurrence,
    linear_recurrence_step,
    packed_linear_recurrence,
    reset_where,
)
from lrscan.autograd import recurrence
from lrscan.ops import _with_restarts

LENGTHS = [[40], [0, 1, 2, 0, 17, 19, 1, 0], [1] * 40, [17, 23]]
# (shape of a, of x, dim)
SHAPES = [
    ((40, 4), (40, 4), 0),
    ((40,), (40,), 0),
    ((40, 64), (40, 64), 0),
    ((3, 40), (3, 40), 1),
    ((2, 40, 3), (2, 40, 3), 1),
    ((1, 3), (40, 3), 0),
    ((2, 2, 2, 40, 2), (2, 2, 2, 40, 2), 3),
]


def one_by_one(a, x, lengths, h0, dim, **options):
    shape = torch.broadcast_shapes(a.shape, x.shape)
    parts = zip(*(t.expand(shape).split(lengths, dim) for t in (a, x)), strict=True)
    starts = [None] * len(lengths) if h0 is None else h0.unbind(dim)
    return torch.cat(
        [
            linear_recurrence(*part, start, dim=dim, **options)
            for part, start in zip(parts, starts, strict=True)
        ],
        dim,
    )


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("types", ["float64", "bfloat16", "bfloat16, state float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_restarts_give_what_the_packed_sweep_gives(kind, types, reverse):
    """What CUDA tensors take, whose kernels know one sequence, on the CPU."""
    dtype, *state = (getattr(torch, name.removeprefix("state ")) for name in types.split(", "))
    state = state[0] if state else dtype
    cu = cumulative([0, 7, 93, 1, 400, 0])
    generator = torch.Generator().manual_seed(0)
    a = coefficients((501, 5), state, generator, kind)
    h0 = torch.rand(6, 5, generator=generator).to(state)
    x = torch.randn(501, 5, generator=generator).to(dtype)
    options = (0, reverse, "auto", cu)
    found = []
    for function in (recurrence, _with_restarts):
        inputs = [t.detach().requires_grad_() for t in (a, x, h0)]
        h = function(*inputs, *options)
        assert h.dtype == dtype
        found.append([h, *torch.autograd.grad(h, inputs, torch.ones_like(h))])
    exact = [t.double() for t in (a, x, h0)]
    exact = recurrence(*exact, *options)
    error = [(h.double() - exact).abs().max() for h, *_ in found]
    assert error[1] <= 1.01 * error[0] + 1e-12  # no state was rounded on the way
    for expected, got in zip(*found, strict=True):
        near = 1e-9 if dtype == torch.float64 else 2e-2
        scale = expected.detach().abs().max()
        torch.testing.assert_close(got, expected, rtol=near, atol=near * float(scale))


def cumulative(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


@pytest.mark.parametrize("algorithm", ["serial", "blocked"])
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_one_by_one(kind, shapes, reverse, algorithm):
    *shapes, dim = shapes
    options = {"dim": dim, "reverse": reverse, "algorithm": algorithm}
    generator = torch.Generator().manual_seed(dim)

    def normal(shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    for lengths in LENGTHS:
        a = coefficients(shapes[0], torch.float64, generator, kind).requires_grad_()
        x = normal(shapes[1])
        states = shapes[1][:dim] + (len(lengths),) + shapes[1][dim + 1 :]
        for h0 in (normal(states), None):
            with small_thresholds():
                h = packed_linear_recurrence(a, x, cumulative(lengths), h0, **options)
            expected = one_by_one(a, x, lengths, h0, **options)
            torch.testing.assert_close(h, expected, rtol=1e-12, atol=1e-12)
            inputs = [t for t in (a, x, h0) if t is not None]
            dh = torch.randn(h.shape, dtype=torch.float64, generator=generator)
            with small_thresholds():
                got = torch.autograd.grad(h, inputs, dh)
            expected = torch.autograd.grad(expected, inputs, dh)
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_packed_derivatives_to_second_order_and_in_forward_mode(reverse, dtype):
    cu = torch.tensor([0, 2, 2, 5])
    generator = torch.Generator().manual_seed(0)
    a, x, h0 = (
        torch.randn(n, 2, dtype=dtype, generator=generator, requires_grad=True) for n in (5, 5, 3)
    )

    def packed(a, x, h0):
        return packed_linear_recurrence(a, x, cu, h0, reverse=reverse)

    assert gradcheck(packed, (a, x, h0), check_forward_ad=True)
    assert gradgradcheck(packed, (a, x, h0))


def test_nothing_of_one_sequence_reaches_another():
    a, x = torch.rand(30, 4), torch.rand(30, 4)
    a[12], x[12] = float("inf"), float("nan")
    a.requires_grad_()
    for algorithm in ("serial", "blocked"):
        with small_thresholds():
            h = packed_linear_recurrence(a, x, torch.tensor([0, 10, 20, 30]), algorithm=algorithm)
            (da,) = torch.autograd.grad(h, a, torch.ones_like(h))
        for whole in (h, da):
            assert whole[:10].isfinite().all() and whole[20:].isfinite().all()
        assert not h[12:20].isfinite().any()


def test_resets_by_mask_equal_packed_sequences():
    a, x = torch.rand(30, 4, dtype=torch.float64), torch.rand(30, 4, dtype=torch.float64)
    mask = torch.zeros(30, 1, dtype=torch.bool)
    mask[[10, 20]] = True
    expected = packed_linear_recurrence(a, x, torch.tensor([0, 10, 20, 30]))
    torch.testing.assert_close(linear_recurrence(reset_where(a, mask), x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16], ids=str)
def test_step_by_step_equals_the_whole(dtype):
    a, x, h0 = torch.rand(50, 3).to(dtype), torch.randn(50, 3).to(dtype), torch.randn(3)
    h = h0 = h0 if dtype == torch.bfloat16 else h0.to(dtype)
    for t in range(50):
        h = linear_recurrence_step(a[t], x[t], h)
    whole = linear_recurrence(a, x, h0)[-1]
    torch.testing.assert_close(h.to(dtype), whole)


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda a: packed_linear_recurrence(a, a, [0, 4]), TypeError, r"cu_seqlens .*\[0, 4\]"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0.0, 4])), TypeError, "float32"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0])), ValueError, r"\(1,\)"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 5])), ValueError, "with 5"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([1, 4])), ValueError, "0, not 1"),
        (
            lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 3, 2, 4])),
            ValueError,
            r"must not fall: \[1\] is 3, \[2\] 2",
        ),
        (
            lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 4]), a),
            ValueError,
            r"h0 has shape \(4, 3\).*\(1, 3\)",
        ),
        (lambda a: reset_where(a, a), TypeError, "mask .*float32"),
        (lambda a: linear_recurrence_step(a, 1.0, a), TypeError, "x must be a tensor, not 1.0"),
        (lambda a: linear_recurrence_step(a, a, a[:2]), ValueError, r"h has shape \(2, 3\)"),
        (lambda a: linear_recurrence_step(a, a, None), TypeError, "h must be a tensor, not None"),
        (lambda a: reset_where(0.5, a > 0), TypeError, "a must be a tensor, not 0.5"),
        (lambda a: reset_where(a, a[:, :2] > 0), ValueError, r"mask has shape \(4, 2\).*\(4, 3\)"),
    ],
)
def test_wrong_input_is_refused_by_name(call, error, names):
    with pytest.raises(error, match=names):
        call(torch.rand(4, 3))
