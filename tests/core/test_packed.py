"""Packed sequences, resets by a mask, and single steps."""

import pytest
import torch
from recurrences import KINDS, coefficients
from test_operator import small_thresholds
from torch.autograd import gradcheck, gradgradcheck

from lrscan import linear_recurrence, linear_recurrence_step, packed_linear_recurrence, reset_where
from lrscan.core import dispatch

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


def take_sequences(monkeypatch, yes):
    """Let CPU kernels handle packed sequences, or not, as CUDA kernels do not."""
    backend = dispatch.BACKENDS["cpu"]._replace(takes_sequences=yes)
    monkeypatch.setitem(dispatch.BACKENDS, "cpu", backend)


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


@pytest.fixture(params=["sequences", "restarts"])
def kernels(request, monkeypatch):
    """Run as on the CPU, whose kernels handle packed sequences, and as on CUDA."""
    if request.param == "restarts":
        take_sequences(monkeypatch, False)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("types", ["float64", "bfloat16", "bfloat16, state float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_restarts_give_what_the_packed_sweep_gives(kind, types, reverse, monkeypatch):
    """On the CPU, restart sequences by coefficients of zero, as CUDA tensors do."""
    dtype, *state = (getattr(torch, name.removeprefix("state ")) for name in types.split(", "))
    state = state[0] if state else dtype
    options = {"cu_seqlens": cumulative([0, 7, 93, 1, 400, 0]), "reverse": reverse}
    generator = torch.Generator().manual_seed(0)
    a = coefficients((501, 5), state, generator, kind)
    h0 = torch.rand(6, 5, generator=generator).to(state)
    x = torch.randn(501, 5, generator=generator).to(dtype)
    exact = linear_recurrence(*(t.double() for t in (a, x, h0)), **options)
    found = []
    for yes in (True, False):
        take_sequences(monkeypatch, yes)
        inputs = [t.detach().requires_grad_() for t in (a, x, h0)]
        h = linear_recurrence(*inputs, **options)
        assert h.dtype == dtype
        found.append([h, *torch.autograd.grad(h, inputs, torch.ones_like(h))])
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
def test_packed_equals_one_by_one(kind, shapes, reverse, algorithm, kernels):
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


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_steps_after_the_last_sequence_are_left_out(bad, reverse, kernels):
    generator = torch.Generator().manual_seed(0)
    for _, shape, dim in SHAPES:
        for lengths in ([0, 17, 19, 0], [0, 0]):
            steps = sum(lengths)
            a, x, dh = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in "axg")
            h0 = torch.randn(
                shape[:dim] + (len(lengths),) + shape[dim + 1 :],
                dtype=torch.float64,
                generator=generator,
            )
            for tensor in (a, x, dh):
                tensor.narrow(dim, steps, 40 - steps).fill_(bad)
            for start in (h0, None):
                options = {"dim": dim, "reverse": reverse, "cu_seqlens": cumulative(lengths)}
                for higher in (False, True):
                    found = []
                    for end in (40, steps):
                        inputs = [t.narrow(dim, 0, end).clone().requires_grad_() for t in (a, x)]
                        inputs += [] if start is None else [start.clone().requires_grad_()]
                        h = linear_recurrence(*inputs, **options)
                        found.append(
                            [
                                h.detach(),
                                *torch.autograd.grad(
                                    h, inputs, dh.narrow(dim, 0, end), create_graph=higher
                                ),
                            ]
                        )
                    for whole, short in zip(*found, strict=True):
                        if whole.shape != short.shape:
                            assert not whole.narrow(dim, steps, 40 - steps).any()
                            whole = whole.narrow(dim, 0, steps)
                        torch.testing.assert_close(whole, short, rtol=1e-11, atol=1e-11)


def test_steps_that_are_left_out_under_transforms_and_compiled():
    cu_seqlens = torch.tensor([0, 2, 2, 5])
    a, x = (torch.rand(3, 7, 2, dtype=torch.float64) for _ in range(2))
    a[:, 5:] = x[:, 5:] = float("nan")

    def loss(a, x):
        return linear_recurrence(a, x, cu_seqlens=cu_seqlens).square().sum()

    expected = [torch.autograd.functional.jacobian(loss, (a[k], x[k])) for k in range(3)]
    expected = [torch.stack(of_one) for of_one in zip(*expected, strict=True)]
    batched = torch.vmap(torch.func.grad(loss, (0, 1)))
    torch.testing.assert_close(batched(a, x), tuple(expected))
    tangent = torch.func.jvp(loss, (a[0], x[0]), (a[0], x[0]))[1]
    inner = sum((g[0, :5] * t[0, :5]).sum() for g, t in zip(expected, (a, x), strict=True))
    torch.testing.assert_close(tangent, inner)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda a, x, cu_seqlens: linear_recurrence(a, x, cu_seqlens=cu_seqlens),
        fullgraph=True,
        backend="aot_eager",
    )
    for lengths in (cu_seqlens, torch.tensor([0, 1, 2, 3])):
        inputs = [t[0].clone().requires_grad_() for t in (a, x)]
        h = compiled(*inputs, lengths)
        assert not h[lengths[-1] :].any()
        torch.testing.assert_close(h, linear_recurrence(*inputs, cu_seqlens=lengths))
        for gradient in torch.autograd.grad(h.sum(), inputs):
            assert gradient.isfinite().all() and not gradient[lengths[-1] :].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("left_out", [0, 2], ids=["", "tail"])
def test_packed_derivatives_to_second_order_and_in_forward_mode(left_out, reverse, dtype, kernels):
    cu_seqlens = torch.tensor([0, 2, 2, 5])
    generator = torch.Generator().manual_seed(0)
    a, x, h0 = (
        torch.randn(n, 2, dtype=dtype, generator=generator, requires_grad=True)
        for n in (5 + left_out, 5 + left_out, 3)
    )

    def packed(a, x, h0):
        return packed_linear_recurrence(a, x, cu_seqlens, h0, reverse=reverse)

    assert gradcheck(packed, (a, x, h0), check_forward_ad=True)
    assert gradgradcheck(packed, (a, x, h0))


def test_packed_linear_recurrence_equals_the_keyword():
    a, x, cu_seqlens = torch.rand(6, 3), torch.rand(6, 3), torch.tensor([0, 2, 5])
    h0 = torch.rand(2, 3)
    options = {"reverse": True, "algorithm": "serial"}
    named = packed_linear_recurrence(a, x, cu_seqlens, h0, **options)
    assert torch.equal(named, linear_recurrence(a, x, h0, cu_seqlens=cu_seqlens, **options))


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ["serial", "blocked"])
def test_nothing_of_one_sequence_reaches_another(algorithm, reverse, kernels):
    a, x, h0 = torch.rand(30, 4), torch.rand(30, 4), torch.rand(3, 4)
    a[12, 0], x[12, 1], h0[1, 2] = float("inf"), float("nan"), float("nan")
    dh = torch.ones(30, 4)
    dh[17, 3] = float("nan")
    inputs = [t.requires_grad_() for t in (a, x, h0)]
    options = {"cu_seqlens": torch.tensor([0, 10, 20, 30]), "reverse": reverse}
    for higher in (False, True):
        with small_thresholds():
            h = linear_recurrence(*inputs, algorithm=algorithm, **options)
            *found, dh0 = torch.autograd.grad(h, inputs, dh, create_graph=higher)
        for whole in (h, *found):
            assert whole[:10].isfinite().all() and whole[20:].isfinite().all()
            assert not whole[10:20].isfinite().all()
        assert dh0[[0, 2]].isfinite().all() and not dh0[1].isfinite().all()
        assert not h[12, :3].isfinite().any()


def test_resets_by_mask_equal_packed_sequences():
    a, x = torch.rand(30, 4, dtype=torch.float64), torch.rand(30, 4, dtype=torch.float64)
    mask = torch.zeros(30, 1, dtype=torch.bool)
    mask[[10, 20]] = True
    expected = packed_linear_recurrence(a, x, torch.tensor([0, 10, 20, 30]))
    torch.testing.assert_close(linear_recurrence(reset_where(a, mask), x), expected)


def test_a_mask_of_one_value_or_of_more_axes_than_the_coefficients_resets_too():
    a = torch.rand(4)
    assert not reset_where(a, torch.tensor(True)).any()
    mask = torch.tensor([False, True])[:, None]
    assert torch.equal(reset_where(a, mask), torch.stack([a, torch.zeros(4)]))


def test_a_reset_forgets_everything_before_it():
    a, x = torch.rand(9, 3), torch.rand(9, 3)
    x[2, 0], x[2, 1], a[3, 2] = float("inf"), float("nan"), float("nan")
    mask = (torch.arange(9) == 5)[:, None]
    dh = x.flip(0)  # NaN and infinity are in the gradients at step 6 and earlier
    for algorithm in ("serial", "blocked"):
        leaf = a.clone().requires_grad_()
        h = linear_recurrence(reset_where(leaf, mask), x, algorithm=algorithm)
        assert h[5:].isfinite().all() and not h[3:5].isfinite().any()
        (da,) = torch.autograd.grad(h, leaf, dh)
        assert da[7:].isfinite().all() and not da[5].any()
        assert torch.equal(h[5:], linear_recurrence(a, x, cu_seqlens=torch.tensor([0, 5, 9]))[5:])


def test_a_reset_forgets_in_forward_mode_and_in_one_step():
    a, x = torch.rand(9, 3, dtype=torch.float64), torch.rand(9, 3, dtype=torch.float64)
    x[2, 0] = float("nan")
    mask = (torch.arange(9) == 5)[:, None]

    def scan(a):
        return linear_recurrence(reset_where(a, mask), x)

    tangent = torch.rand(9, 3, dtype=torch.float64)
    h, moved = torch.func.jvp(scan, (a,), (tangent,))
    clean = torch.func.jvp(lambda a: linear_recurrence(a, x[5:]), (a[5:],), (tangent[5:],))
    assert not h[2:5, 0].isfinite().any() and not moved[3:5, 0].isfinite().any()
    torch.testing.assert_close(h[6:], linear_recurrence(a[6:], x[6:], h[5]))
    torch.testing.assert_close((h[5:], moved[5:]), clean)


@pytest.mark.parametrize("differentiated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16], ids=str)
def test_a_single_step_forgets_too(dtype, differentiated):
    a, x, h, dh = (torch.rand(2, 4).to(dtype) for _ in range(4))
    a[:, :3] = 0
    h[:, 0], h[:, 1], dh[:, 2] = float("nan"), float("inf"), float("nan")
    leaves = [t.requires_grad_(differentiated) for t in (a, x, h)]
    after = linear_recurrence_step(*leaves)
    expected = linear_recurrence(a[None], x[None], h)[0]
    torch.testing.assert_close(after, expected)
    assert torch.equal(after[:, :3], x[:, :3])
    if differentiated:
        found = torch.autograd.grad(after, leaves, dh)
        torch.testing.assert_close(found, torch.autograd.grad(expected, leaves, dh), equal_nan=True)
        assert not found[2][:, :3].any()


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
        (lambda a: packed_linear_recurrence(a, a, [0, 4]), TypeError, "cu_seqlens .*not list$"),
        (
            lambda a: linear_recurrence(a, a, cu_seqlens=a.numpy()),
            TypeError,
            r"not ndarray of shape \(4, 3\)$",
        ),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0.0, 4])), TypeError, "float32"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0])), ValueError, r"\(1,\)"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 5])), ValueError, "with 5"),
        (lambda a: packed_linear_recurrence(a, a, torch.tensor([1, 4])), ValueError, "0, not 1"),
        (
            lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 3, 2, 4])),
            ValueError,
            "must not decrease: element 1 is 3, element 2 is 2",
        ),
        (lambda a: packed_linear_recurrence(a, a, None), TypeError, "cu_seqlens .*not None"),
        (
            lambda a: packed_linear_recurrence(a, a, torch.tensor([0, 4]), a),
            ValueError,
            r"h0 has shape \(4, 3\).*\(1, 3\)",
        ),
        (lambda a: reset_where(a, a), TypeError, "mask .*float32"),
        (lambda a: linear_recurrence_step(a, 1.0, a), TypeError, "x must be a tensor, not 1.0"),
        (lambda a: linear_recurrence_step(a, a, a[:2]), ValueError, r"h has shape \(2, 3\)"),
        (lambda a: linear_recurrence_step(a, a, None), TypeError, "h must be a tensor, not None"),
        (lambda a: linear_recurrence_step(a, a, a.numpy()), TypeError, r"h .*not ndarray of shape"),
        (lambda a: reset_where(0.5, a > 0), TypeError, "a must be a tensor, not 0.5"),
        (lambda a: reset_where(a.numpy(), a > 0), TypeError, r"not ndarray of shape \(4, 3\)$"),
        (lambda a: reset_where(a, a.numpy() > 0), TypeError, r"not ndarray of shape \(4, 3\)$"),
        (lambda a: reset_where(a[:, :, None], a[:, 0] > 0), ValueError, r"mask\[:, None, None\]"),
        (lambda a: reset_where(a, a[0] > 0), ValueError, r"mask has shape \(3,\).*\(4, 3\)"),
        (lambda a: reset_where(a, a[:, :2] > 0), ValueError, r"mask has shape \(4, 2\).*\(4, 3\)"),
    ],
)
def test_wrong_input_is_refused_by_name(call, error, names):
    with pytest.raises(error, match=names):
        call(torch.rand(4, 3))
