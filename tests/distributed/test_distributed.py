"""The recurrence over ranks has the values and gradients of one process, for any chunks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from projects import LONGEST_S
from ranks import Ranks
from recurrences import KINDS, check, draw, spoiled

import lrscan
from lrscan import distributed
from lrscan.distributed import operator

SIZES = (1, 2, 3, 4)
T = 37
CHUNKS = {"even": (10, 9, 9, 9), "uneven": (3, 20, 1, 13), "empty": (0, 17, 0, 20)}
every_size = pytest.mark.parametrize("size", SIZES, ids="ranks-{}".format)
every_cut = pytest.mark.parametrize("cut", CHUNKS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(max(SIZES), tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


def lengths(cut, size):
    """Return the number of steps of each rank. The last one has the remaining steps."""
    first = CHUNKS[cut][: size - 1]
    return [*first, T - sum(first)]


def cut_up(tensor, cut, size, dim):
    return tensor.split(lengths(cut, size), dim)


def on_a_rank(group, tensors, cut, dim, reverse):
    """Return (h, da, dx, dh0) of this rank's chunk."""
    rank, size = group.rank(), group.size()
    a, x, h0, dh = tensors
    a, x, dh = (cut_up(t, cut, size, dim)[rank].clone() for t in (a, x, dh))
    leaves = [t.requires_grad_() for t in (a, x, h0.clone())]
    h = distributed.linear_recurrence(*leaves, group=group, dim=dim, reverse=reverse)
    h.backward(dh)
    return h.detach(), *(t.grad for t in leaves)


def joined(results, reverse, dim):
    """Return the results of all ranks as one process would."""
    h, da, dx, dh0 = zip(*results, strict=True)
    owner = -1 if reverse else 0
    assert all(g is None for g in (dh0[:-1] if reverse else dh0[1:]))
    return *(torch.cat(part, dim) for part in (h, da, dx)), dh0[owner]


@every_size
@every_cut
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_on_ranks_give_the_values_and_gradients_of_the_whole(
    ranks, size, cut, reverse, dtype, kind
):
    dim = 1
    tensors = draw((3, T, 2), dtype, dim, kind=kind)
    results = ranks.results(on_a_rank, tensors, cut, dim, reverse, size=size)
    a, x, h0, dh = tensors
    check(joined(results, reverse, dim), a, x, h0, dh, dim, reverse)


class Together(torch.autograd.Function):
    """Recurrence of whole tensors, which every rank holds, computed on chunks."""

    @staticmethod
    def forward(ctx, a, x, h0, group, cut, reverse):
        size, rank = group.size(), group.rank()
        chunks = [cut_up(t, cut, size, 0)[rank].clone().requires_grad_() for t in (a, x)]
        start = h0.clone().requires_grad_()
        with torch.enable_grad():
            h = distributed.linear_recurrence(*chunks, start, group=group, reverse=reverse)
        ctx.of_chunk, ctx.leaves = (group, cut, rank, size), (*chunks, start)
        ctx.h = h
        return assembled(h.detach(), *ctx.of_chunk)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dh):
        group, cut, rank, size = ctx.of_chunk
        dh = cut_up(dh, cut, size, 0)[rank]
        da, dx, dh0 = torch.autograd.grad(
            ctx.h, ctx.leaves, dh, retain_graph=True, allow_unused=True
        )
        dh0 = torch.zeros_like(ctx.leaves[2]) if dh0 is None else dh0
        dist.all_reduce(dh0, group=group)
        whole = [assembled(part, *ctx.of_chunk) for part in (da, dx)]
        return *whole, dh0, None, None, None


def assembled(chunk, group, cut, rank, size):
    """Return the chunks of all ranks as one tensor, on every rank."""
    parts = [chunk.new_zeros(n, *chunk.shape[1:]) for n in lengths(cut, size)]
    parts[rank] = chunk
    whole = torch.cat(parts)
    dist.all_reduce(whole, group=group)
    return whole


def gradcheck_on_a_rank(group, cut, reverse, dtype):
    a, x, h0, _ = (t.requires_grad_() for t in draw((T, 2), dtype, 0))
    torch.manual_seed(0)  # the same random directions on every rank
    return torch.autograd.gradcheck(
        lambda *inputs: Together.apply(*inputs, group, cut, reverse), (a, x, h0), fast_mode=True
    )


@every_size
@pytest.mark.parametrize("cut", ["uneven", "empty"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_are_those_of_finite_differences(ranks, size, cut, dtype):
    reverse = cut == "empty"
    assert all(ranks.results(gradcheck_on_a_rank, cut, reverse, dtype, size=size))


def with_a_wrong_fold(group, *arguments):
    """Run a wrong forward: each chunk starts from the last state of the one before, from zero."""
    whole = operator.folded
    operator.folded = lambda products, ends: ends[-1]
    try:
        return on_a_rank(group, *arguments)
    finally:
        operator.folded = whole


def test_the_check_of_values_notices_a_wrong_forward(ranks):
    a, x, h0, dh = tensors = draw((3, T, 2), torch.float64, 1)
    tensors[0].abs_().add_(0.5)
    results = ranks.results(with_a_wrong_fold, tensors, "even", 1, False)
    with pytest.raises(AssertionError, match="times its bound"):
        check(joined(results, False, 1), a, x, h0, dh, 1, False)


def broadcast_on_a_rank(group, a, x, dh):
    rank, size = group.rank(), group.size()
    a = a.clone().requires_grad_()
    x, dh = (cut_up(t, "empty", size, 0)[rank].clone() for t in (x, dh))
    h = distributed.linear_recurrence(a, x.requires_grad_(), group=group)
    h.backward(dh)
    return h.detach(), a.grad, x.grad


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (1, 1, 3)], ids=str)
def test_the_gradients_of_a_constant_decay_on_every_rank_add_up(ranks, shape):
    a = torch.rand(shape, dtype=torch.float64)
    x, dh = torch.randn(2, T, 3, dtype=torch.float64).unbind()
    if len(shape) == 3:
        x, dh = x.unsqueeze(1), dh.unsqueeze(1)
    h, da, dx = zip(*ranks.results(broadcast_on_a_rank, a, x, dh), strict=True)
    alone = [t.clone().requires_grad_() for t in (a, x)]
    expected = lrscan.linear_recurrence(*alone)
    expected.backward(dh)
    for got, value in [
        (torch.cat(h), expected),
        (sum(da), alone[0].grad),
        (torch.cat(dx), alone[1].grad),
    ]:
        torch.testing.assert_close(got, value.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_state_of_half_precision_crosses_borders_in_float32(ranks, dtype):
    a = torch.full((T, 2), 0.999)  # bfloat16 cannot represent it
    x, dh = torch.randn(2, T, 2, dtype=torch.float64).to(dtype).unbind()
    h0 = torch.randn(2)
    results = ranks.results(on_a_rank, (a, x, h0, dh), "even", 0, False)
    h = joined(results, False, 0)[0]
    assert h.dtype == dtype
    alone = lrscan.linear_recurrence(a, x, h0)
    # A float32 sum in another order may round to the neighbouring number, but no further.
    torch.testing.assert_close(h, alone, rtol=torch.finfo(dtype).eps, atol=1e-6)


def empty_on_a_rank(group, shape):
    x = torch.zeros(shape, requires_grad=True)
    h = distributed.linear_recurrence(x, x, torch.ones(shape[1:]), group=group)
    h.sum().backward()
    return tuple(h.shape), x.grad


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)], ids=str)
def test_chunks_without_steps_or_columns_give_empty_results(ranks, shape):
    for found, grad in ranks.results(empty_on_a_rank, shape):
        assert found == shape and grad.shape == shape


def test_a_product_may_exceed_the_range_of_float32(ranks):
    a, x, dh = torch.full((T, 2), 100.0), torch.zeros(T, 2), torch.zeros(T, 2)
    a[20:] = 0.01
    h0 = torch.full((2,), 1e-30)  # 100 ** 20 is 1e40, but h is at most 1e10
    h = joined(ranks.results(on_a_rank, (a, x, h0, dh), "uneven", 0, False), False, 0)[0]
    torch.testing.assert_close(h, lrscan.linear_recurrence(a, x, h0), rtol=1e-5, atol=0)


def bad_values_on_a_rank(group, a, x):
    a, x = (cut_up(t, "even", group.size(), 0)[group.rank()] for t in (a, x))
    return distributed.linear_recurrence(a, x, group=group)


def test_nan_and_infinity_stay_in_their_column_and_at_later_times(ranks):
    a, x = torch.full((T, 5), 0.5), torch.ones(T, 5)
    a[12, 0], x[12, 1], a[12, 2], a[:, 3] = torch.nan, torch.nan, torch.inf, 1e30
    x[:, 3] = 0
    h = torch.cat(ranks.results(bad_values_on_a_rank, a, x))
    torch.testing.assert_close(h, lrscan.linear_recurrence(a, x), equal_nan=True)
    assert h[:12].isfinite().all() and h[:, 3:].isfinite().all()


@every_size
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_a_coefficient_of_zero_forgets_nan_and_infinity(ranks, dtype, reverse, size):
    for seed in range(3):
        a, x, h0, dh = spoiled(*draw((T, 20), dtype, 0, kind="lasts"), seed)
        found = ranks.results(on_a_rank, (a, x, h0, dh), "uneven", 0, reverse, size=size)
        check(joined(found, reverse, 0), a, x, h0, dh, 0, reverse)


def test_nan_and_infinity_pass_a_product_that_underflows(ranks):
    """Only a coefficient of zero may stop them."""
    a, x, dh = torch.full((T, 3), -1e-30), torch.ones(T, 3), torch.zeros(T, 3)
    x[3, 0], x[3, 1] = torch.nan, torch.inf
    dh[T - 3] = torch.tensor([1.0, torch.inf, torch.nan])
    h, _, dx, _ = joined(
        ranks.results(on_a_rank, (a, x, torch.zeros(3), dh), "even", 0, False), False, 0
    )
    alone = lrscan.linear_recurrence(a, x.requires_grad_())
    torch.testing.assert_close(h, alone.detach(), equal_nan=True)
    (expected,) = torch.autograd.grad(alone, x, dh)
    torch.testing.assert_close(dx, expected, equal_nan=True)


def traffic_on_a_rank(group, columns):
    """Return the number of elements sent in each exchange of a call, and of its backward."""
    sent, whole = [], dist.all_gather
    a, x = torch.rand(2, 50, columns, requires_grad=True).unbind()
    dist.all_gather = lambda out, own, **k: sent.append(own.numel()) or whole(out, own, **k)
    try:
        h = distributed.linear_recurrence(a, x, group=group)
        forward = len(sent)
        h.sum().backward()
    finally:
        dist.all_gather = whole
    return sent[:forward], sent[forward:]


def test_each_rank_sends_two_values_per_column(ranks):
    for forward, backward in ranks.results(traffic_on_a_rank, 1000):
        header, pair = forward
        assert header <= 32 and pair == 2000 and backward == [2000]


def order_on_a_rank(group):
    """Return the order in which exchanges begin, are waited for, and the chunk is scanned."""
    events, gather, forward = [], dist.all_gather, operator.sweep.forward

    class Watched:
        def __init__(self, *arguments, **options):
            events.append("begun")
            self.work = gather(*arguments, **options)

        def wait(self):
            events.append("waited")
            self.work.wait()

    def scan(*arguments, **options):
        events.append("scan")
        return forward(*arguments, **options)

    dist.all_gather, operator.sweep.forward = Watched, scan
    try:
        distributed.linear_recurrence(*torch.rand(2, 9, 3), group=group)
    finally:
        dist.all_gather, operator.sweep.forward = gather, forward
    return events


def test_the_first_rank_scans_during_the_exchange(ranks):
    first, second = ranks.results(order_on_a_rank, size=2)
    assert first == ["begun", "waited", "begun", "scan", "waited"]
    assert second == ["begun", "waited", "begun", "waited", "scan"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_a_chunk_acts_on_a_state_as_its_pair_does(steps, dtype, reverse):
    a, x, h0, dh = draw((3, steps, 2), dtype, 1)
    product, end = operator.reduced(a, x, 1, reverse, "auto")
    wide = product.dtype
    whole = lrscan.linear_recurrence(*(t.to(wide) for t in (a, x, h0)), dim=1, reverse=reverse)
    last = whole.select(1, 0 if reverse else -1) if steps else h0.to(wide)
    close = {"rtol": 1e-5, "atol": 1e-5}  # B is computed in float32
    torch.testing.assert_close(product * h0 + end, last, **close)
    left = operator.outgoing_gradient(a, dh, 1, reverse, "auto")
    wanted = [t.to(wide).requires_grad_() for t in (a, x, h0)]
    h = lrscan.linear_recurrence(*wanted, dim=1, reverse=reverse)
    h.backward(dh.to(wide))
    torch.testing.assert_close(left, wanted[2].grad, **close)


def test_folded_applies_the_chunks_one_after_the_other():
    products, ends = torch.randn(5, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    state = ends[0]
    for product, end in zip(products, ends[1:], strict=True):
        state = product * state + end
    torch.testing.assert_close(operator.folded(products, ends), state)
    beyond, ends = torch.tensor([[torch.inf], [2.0]]), torch.tensor([[0.0], [3.0], [1.0]])
    assert operator.folded(beyond, ends).tolist() == [7.0]  # zero stays zero, then 2 * 3 + 1


def one_gradient_on_a_rank(group):
    """Return dh0 if only the first rank has an input that needs a gradient."""
    h0 = torch.ones(1, requires_grad=group.rank() == 0)
    h = distributed.linear_recurrence(torch.full((2, 1), 0.5), torch.zeros(2, 1), h0, group=group)
    h.sum().backward()
    return h0.grad


def test_a_gradient_needed_on_one_rank_alone_includes_all_ranks(ranks):
    first, *others = ranks.results(one_gradient_on_a_rank)
    assert first == sum(0.5 ** (t + 1) for t in range(8)) and others == [None] * 3


def test_the_code_of_the_guide_runs_by_its_command(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "guide" / "several_devices.md"
    text = guide.read_text()
    (tmp_path / "split.py").write_text(re.search(r"^```py\n(.*?)^```", text, re.S | re.M)[1])
    program, *options = re.search(r"^torchrun .*", text, re.M)[0].split()
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stderr
    documented = re.sub(r"^    ", "", distributed.__doc__, flags=re.M)
    assert (tmp_path / "split.py").read_text() in documented
    assert " ".join([program, *options]) in documented
    # The ranks print at the same time, so their lines may interleave.
    assert "torch.Size([1000, 32])" in done.stdout and "torch.Size([1001, 32])" in done.stdout
