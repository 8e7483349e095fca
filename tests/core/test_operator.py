"""The operator on CPU tensors, compared with the float64 loop within a bound on rounding."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrences import KINDS, check, draw, spoiled
from torch.autograd import gradcheck, gradgradcheck

from lrscan import linear_recurrence, linear_recurrence_reference, linear_recurrence_step
from lrscan.core import sweep
from lrscan.core.checks import ALGORITHMS
from lrscan.core.dtypes import DTYPES, HALF
from lrscan.cpu import dispatch

CPU_ALGORITHMS = ALGORITHMS["cpu"]
# (shape, dim): one column and many; time first, in the middle and last; more axes than a kernel
# takes. Columns fill less than a vector, exactly one, more than one, or a vector together with the
# next steps.
LAYOUTS = [
    ((1, 1), 0),
    ((2, 1), 0),
    ((301,), 0),
    ((97, 3), 0),
    ((300, 37), 0),
    ((37, 300), 1),
    ((3, 65, 16), 1),
    ((40, 64), 0),
    ((4, 48), 1),
    ((2, 3, 2, 33, 5), 3),
    ((131, 2), 0),
    ((3, 70, 4), 1),
    ((71, 8), 0),
]


# Dtypes whose kernels differ from those of float32, complex64 and bfloat16 only in the size or the
# conversion of a number. For them one layout per order of a tile is enough.
ALIKE = (torch.float64, torch.complex128, torch.float16)
ONE_PER_ORDER = [((97, 3), 0), ((37, 300), 1), ((300, 37), 0)]


def layouts(dtype):
    return ONE_PER_ORDER if dtype in ALIKE else LAYOUTS


@contextmanager
def small_thresholds():
    """Cut even short sequences into many chunks, go row by row, and bypass the cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CHUNK_BYTES": 1, "ROW_STRIPS": 2, "STREAM_BYTES": 0}.items():
            patch.setattr(dispatch, name, value)
        sweep._prepared.cache_clear()
        yield
    sweep._prepared.cache_clear()


@pytest.fixture
def short_chunks():
    with small_thresholds():
        yield


def run(a, x, h0, dh, **options):
    """Return (h, da, dx, dh0) of the operator."""
    inputs = [t.clone().requires_grad_() for t in (a, x, h0) if t is not None]
    h = linear_recurrence(*inputs, **options)
    gradients = torch.autograd.grad(h, inputs, dh)
    return [h.detach(), *gradients, *[None] * (3 - len(gradients))]


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_loop_in_every_layout(kind, dtype, algorithm, reverse, short_chunks):
    for shape, dim in layouts(dtype):
        a, x, h0, dh = draw(shape, dtype, dim, kind=kind)
        for start in (h0, None):
            got = run(a, x, start, dh, dim=dim, reverse=reverse, algorithm=algorithm)
            check(got, a, x, start, dh, dim, reverse)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 700),
    columns=st.integers(1, 40),
    reverse=st.booleans(),
    algorithm=st.sampled_from(CPU_ALGORITHMS),
    threads=st.integers(1, 3),
    kind=st.sampled_from(KINDS),
)
def test_agrees_with_the_loop_at_any_length(steps, columns, reverse, algorithm, threads, kind):
    a, x, h0, dh = draw((steps, columns), torch.float32, 0, seed=steps, kind=kind)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with small_thresholds():
            got = run(a, x, h0, dh, reverse=reverse, algorithm=algorithm)
    finally:
        torch.set_num_threads(before)
    check(got, a, x, h0, dh, 0, reverse)


def test_threads_do_not_change_a_bit_of_a_long_sequence():
    a, x, h0, dh = draw((200_000, 2), torch.float32, 0, kind="lasts")
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 4, 2):
        torch.set_num_threads(threads)
        results.append(run(a, x, h0, dh, algorithm="blocked"))
    torch.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
def test_an_empty_sequence_has_an_empty_result(algorithm):
    a, x, h0, dh = draw((0, 3), torch.float32, 0)
    h, da, dx, dh0 = run(a, x, h0, dh, algorithm=algorithm)
    assert h.shape == da.shape == dx.shape == (0, 3)
    assert torch.equal(dh0, torch.zeros(3))


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_read_in_place(kind):
    a, x, h0, dh = draw((40, 9, 6), torch.float32, 0, kind=kind)
    view = (slice(None), slice(None, None, 2), slice(1, None))
    got = run(a[view], x[view], h0[view[1:]], dh[view])
    check(got, a[view], x[view], h0[view[1:]], dh[view], 0, False)
    turned = [tensor.transpose(0, 2) for tensor in (a, x, dh)]
    got = run(turned[0], turned[1], h0.T.contiguous().T.T, turned[2], dim=2)
    check(got, *turned[:2], h0.T, turned[2], 2, False)


@pytest.mark.parametrize("a_shape", [(1, 1), (1, 5), (60, 1), (5,)], ids=str)
def test_a_coefficient_that_broadcasts_equals_its_copy(a_shape):
    _, x, h0, dh = draw((60, 5), torch.float64, 0)
    a = torch.rand(a_shape, dtype=torch.float64)
    broadcast = run(a, x, h0, dh)
    copied = run(a.expand(60, 5).contiguous(), x, h0, dh)
    summed = copied[1].sum_to_size(a_shape)
    torch.testing.assert_close(broadcast, [copied[0], summed, *copied[2:]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
def test_the_outputs_of_a_sweep_may_have_layouts_of_their_own(algorithm, short_chunks):
    a, h, _, dh = draw((3, 5, 99), torch.float32, 2)
    alike = [torch.empty(3, 5, 99) for _ in range(2)]
    apart = [torch.empty(5, 3, 99).transpose(0, 1), torch.empty(3, 5, 99)]
    for da, dx in (alike, apart):
        sweep.backward(a, h, None, dh, 2, False, algorithm, None, (da, dx, None))
    for one, other in zip(alike, apart, strict=True):
        assert torch.equal(one, other)


def test_reverse_equals_flip():
    a, x, h0, dh = draw((50, 7), torch.float64, 0)
    backwards = run(a, x, h0, dh, reverse=True)
    flipped = run(*(t.flip(0) for t in (a, x)), h0, dh.flip(0))
    expected = [t.flip(0) for t in flipped[:3]] + flipped[3:]
    torch.testing.assert_close(backwards, expected, rtol=1e-13, atol=1e-13)


def test_scan_splits_at_any_t():
    a, x, h0, _ = draw((40, 3), torch.float64, 0)
    whole = linear_recurrence(a, x, h0)
    for t in range(1, 40):
        first = linear_recurrence(a[:t], x[:t], h0)
        second = linear_recurrence(a[t:], x[t:], first[-1])
        torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize(
    ("layout", "columns"),
    [("columns", 20), ("time", 20), ("both", 4)],
    ids=["columns", "time", "both"],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_in_their_column_and_later(
    bad, layout, columns, algorithm, short_chunks
):
    a, x, h0, _ = draw((600, columns), torch.float32, 0)
    a[a == 0] = 0.5
    clean = linear_recurrence(a, x, h0)
    x[300, 3] = bad
    dim = 1 if layout == "time" else 0
    tensors = [tensor.movedim(0, dim).contiguous() for tensor in (a, x)]
    h = linear_recurrence(*tensors, h0, dim=dim, algorithm=algorithm).movedim(dim, 0)
    touched = torch.zeros(600, columns, dtype=torch.bool)
    touched[300:, 3] = True
    torch.testing.assert_close(h[~touched], clean[~touched], rtol=1e-5, atol=1e-5)
    assert not h[touched].isfinite().any()


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize("shape", [(600, 20), (600, 1), (600, 4)], ids=["columns", "time", "both"])
def test_a_product_may_overflow_where_the_states_do_not(shape, algorithm, short_chunks):
    a = torch.full(shape, 1e20)
    x = torch.zeros(shape)
    a[400:], x[500:] = 0.5, 1.0
    h = linear_recurrence(a, x, algorithm=algorithm)
    assert torch.equal(h[:500], torch.zeros_like(h[:500]))
    torch.testing.assert_close(h[-1], torch.full_like(h[-1], 2.0))


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize(
    "shape", [(600, 20), (600, 40), (600, 1), (600, 4)], ids=["strips", "rows", "time", "both"]
)
def test_a_state_that_is_not_finite_is_that_of_the_loop(
    shape, algorithm, short_chunks, monkeypatch
):
    """Here products of coefficients underflow to zero, and zero times infinity is NaN."""
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", 1024)  # chunks of several steps
    inf, nan = float("inf"), float("nan")
    for start, bad in ((-inf, 0.0), (1.0, inf), (1.0, nan), (nan, 0.0)):
        a, x = torch.full(shape, 1e-30), torch.ones(shape)
        x[137] += bad
        a[500] = 0  # forgets infinity and NaN
        h0 = torch.full(shape[1:], start, requires_grad=True)
        x.requires_grad_()
        h = linear_recurrence(a, x, h0, algorithm=algorithm)
        exact = linear_recurrence_reference(a, x, h0)
        torch.testing.assert_close(h, exact.float(), equal_nan=True)
        dh = x.detach().flip(0)
        got = torch.autograd.grad(h, (x, h0), dh)
        expected = torch.autograd.grad(exact, (x, h0), dh.double())
        torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunk", [1, 1024, 10**6])
def test_a_coefficient_of_zero_forgets_nan_and_infinity(
    chunk, dtype, algorithm, reverse, short_chunks, monkeypatch
):
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", chunk)
    for shape, dim in layouts(dtype):
        a, x, h0, dh = spoiled(*draw(shape, dtype, dim, kind="lasts"))
        results = run(a, x, h0, dh, dim=dim, reverse=reverse, algorithm=algorithm)
        check(results, a, x, h0, dh, dim, reverse)


@pytest.mark.parametrize("algorithm", CPU_ALGORITHMS)
@pytest.mark.parametrize("columns", [1, 4, 20, 40])
def test_a_state_may_overflow_before_a_coefficient_of_zero(columns, algorithm, short_chunks):
    """Here all products of coefficients are finite, and so is the state after the zero."""
    a, x, h0 = torch.ones(90, columns), torch.ones(90, columns), torch.full((columns,), 1e30)
    a[20] = 1e20
    for reset in range(21, 89):
        a[reset] = 0
        h = linear_recurrence(a, x, h0, algorithm=algorithm)
        assert h[:20].isfinite().all() and h[20:reset].isinf().all()
        assert torch.equal(h[reset:, 0], torch.arange(1.0, 91 - reset))
        a[reset] = 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_derivatives_are_right_to_second_order_and_in_forward_mode(dtype, reverse):
    for (shape, dim), algorithm in [(((5, 3), 0), "blocked"), (((2, 4), 1), "serial")]:
        a, x, h0, _ = (t.requires_grad_() for t in draw(shape, dtype, dim))

        def recurrence(a, x, *h0, dim=dim, algorithm=algorithm):
            return linear_recurrence(a, x, *h0, dim=dim, reverse=reverse, algorithm=algorithm)

        for inputs in ((a, x, h0), (a, x)):
            assert gradcheck(recurrence, inputs, check_forward_ad=True)
            assert gradgradcheck(recurrence, inputs)


def test_only_the_gradients_that_are_asked_for_are_computed():
    a, x, h0, dh = draw((30, 4), torch.float64, 0)
    whole = run(a, x, h0, dh)
    for wanted in range(3):
        inputs = [a.clone(), x.clone(), h0.clone()]
        inputs[wanted].requires_grad_()
        linear_recurrence(*inputs).backward(dh)
        assert [t.grad is not None for t in inputs] == [k == wanted for k in range(3)]
        assert torch.equal(inputs[wanted].grad, whole[1 + wanted])


def test_vmap_and_functional_transforms():
    a, x, h0, _ = draw((3, 6, 2), torch.float64, 1)
    each = torch.stack([linear_recurrence(a[k], x[k], h0[0]) for k in range(3)])
    batched = torch.vmap(linear_recurrence, in_dims=(0, 0, None))(a, x, h0[0])
    torch.testing.assert_close(batched, each)
    moved = torch.vmap(linear_recurrence, in_dims=(1, None), out_dims=1)(a, x[:, 0])
    torch.testing.assert_close(moved, linear_recurrence(a, x[:, :1].expand_as(a)))

    def loss(a):
        return linear_recurrence(a, x[0], h0[0]).square().sum()

    expected = torch.autograd.functional.hessian(loss, a[0])
    torch.testing.assert_close(torch.func.hessian(loss)(a[0]), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_number_is_a_coefficient_of_all_steps(dtype):
    _, x, h0, dh = draw((30, 4), dtype, 0)
    numbers = [0.9, 1, 0] + [0.6 + 0.3j] * dtype.is_complex
    for a in numbers:
        x, h0 = x.detach().requires_grad_(), h0.detach().requires_grad_()
        h = linear_recurrence(a, x, h0)
        tensor = torch.tensor(a, dtype=torch.float32 if dtype in HALF else dtype)
        expected = linear_recurrence(tensor, x, h0)
        assert torch.equal(h, expected) and h.dtype == dtype
        found = [torch.autograd.grad(own, (x, h0), dh) for own in (h, expected)]
        assert all(map(torch.equal, *found))
        step = linear_recurrence_step(a, x[0], h0)
        torch.testing.assert_close(step, h[0])


def test_a_number_and_real_coefficients_under_transforms_and_compiled():
    _, x, h0, _ = draw((6, 3), torch.complex128, 0)
    a = torch.rand(6, 3, dtype=torch.float64)

    def number(x):
        return linear_recurrence(0.9, x, h0)

    def real(a):
        return linear_recurrence(a, x, h0.real)

    for function, start in ((number, x), (real, a)):
        expected = torch.stack([function(start), function(2 * start)])
        batched = torch.vmap(function)(torch.stack([start, 2 * start]))
        torch.testing.assert_close(batched, expected)
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(start), function(start))
        leaf = start.clone().requires_grad_()
        both = [torch.autograd.grad(f(leaf).abs().sum(), leaf) for f in (compiled, function)]
        torch.testing.assert_close(*both)


@pytest.mark.parametrize("state", ["real", "complex", "none"])
def test_real_coefficients_of_complex_inputs_have_a_real_gradient(state):
    _, x, h0, dh = draw((7, 3), torch.complex128, 0)
    a = torch.rand(7, 3, dtype=torch.float64, requires_grad=True)
    inputs = [a, x.requires_grad_()]
    if state != "none":
        inputs.append((h0.real.clone() if state == "real" else h0).requires_grad_())
    h = linear_recurrence(*inputs)
    exact = linear_recurrence_reference(*inputs)
    torch.testing.assert_close(h, exact)
    got, expected = (torch.autograd.grad(own, inputs, dh) for own in (h, exact))
    assert [t.dtype for t in got] == [t.dtype for t in inputs]
    torch.testing.assert_close(got, expected)
    assert gradcheck(linear_recurrence, inputs, check_forward_ad=True)
    assert gradgradcheck(linear_recurrence, inputs)
    step = linear_recurrence_step(a[0], x[0], h0.real)
    torch.testing.assert_close(step, a[0] * h0.real + x[0])
    single = linear_recurrence(a.float(), x.to(torch.complex64))
    assert single.dtype == torch.complex64


A, X, H0 = torch.rand(4, 3), torch.rand(4, 3), torch.rand(3)


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda: linear_recurrence([1.0], X), TypeError, "a must be .* or a number, not list$"),
        (lambda: linear_recurrence(True, X), TypeError, "a must be .* or a number, not True"),
        (
            lambda: linear_recurrence(A.numpy(), X),
            TypeError,
            r"a must be a tensor or a number, not ndarray of shape \(4, 3\)$",
        ),
        (lambda: linear_recurrence(1j, X), TypeError, "a is a complex number, but x is .*float32"),
        (lambda: linear_recurrence(0.5, [1.0]), TypeError, "x must be a tensor, not list"),
        (lambda: linear_recurrence(A.double(), X + 0j), TypeError, "a is torch.float64"),
        (lambda: linear_recurrence(A + 0j, X), TypeError, "a is torch.complex64, but x"),
        (lambda: linear_recurrence(A, X, dim=A), TypeError, r"not Tensor of shape \(4, 3\)$"),
        (lambda: linear_recurrence(A, X, reverse=A), TypeError, r"not Tensor of shape \(4, 3\)$"),
        (lambda: linear_recurrence(A, X, algorithm=A), ValueError, r"not Tensor of shape \(4, "),
        (lambda: linear_recurrence(A, X, 0.5), TypeError, "h0 must be a tensor, not 0.5"),
        (lambda: linear_recurrence(A.double(), X), TypeError, "a is torch.float64"),
        (lambda: linear_recurrence(A, X, H0.double()), TypeError, "h0 is torch.float64"),
        (lambda: linear_recurrence(A.int(), X.int()), TypeError, "torch.int32"),
        (lambda: linear_recurrence(A[:3], X), ValueError, r"\(3, 3\).*\(4, 3\)"),
        (lambda: linear_recurrence(A, X, H0[:2]), ValueError, r"\(2,\).*\(3,\)"),
        (lambda: linear_recurrence(A, X, dim=2), ValueError, "dim is 2"),
        (lambda: linear_recurrence(A[0, 0], X[0, 0]), ValueError, "dim is 0"),
        (lambda: linear_recurrence(A, X, dim="t"), TypeError, "dim must be an int, not 't'"),
        (lambda: linear_recurrence(A, X, reverse=1), TypeError, "reverse must be a bool, not 1"),
        (lambda: linear_recurrence(A, X, algorithm="fast"), ValueError, "'serial'.*not 'fast'"),
        (lambda: linear_recurrence(A.to("meta"), X), ValueError, "a is on meta"),
        (lambda: linear_recurrence(A.to_sparse(), X), TypeError, "a has .*sparse_coo"),
    ],
)
def test_wrong_input_is_refused_by_name(call, error, names):
    with pytest.raises(error, match=names):
        call()
