"""DTensors whose columns are sharded over a mesh."""

import pytest
import torch
from ranks import Ranks
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from lrscan import linear_recurrence

T, B, C = 9, 4, 7  # C is not divisible by the number of ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(2, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


def placed(tensor, mesh, placement):
    return distribute_tensor(tensor.detach(), mesh, [placement]).requires_grad_()


CASES = {
    "columns": ((T, B, C), Shard(2), (T, B, C), Shard(2), (B, C), Shard(1)),
    "batch": ((T, B, C), Shard(1), (T, B, C), Shard(1), (B, C), Shard(0)),
    "a broadcast over the shards": ((C,), Replicate(), (T, B, C), Shard(1), (B, C), Shard(0)),
    "a of the shards alone": ((B, 1), Shard(0), (T, B, C), Shard(1), (C,), Replicate()),
    "some replicated": ((T, B, C), Replicate(), (T, B, C), Shard(2), (B, C), Replicate()),
    "all replicated": ((T, B, C), Replicate(), (T, B, C), Replicate(), (C,), Replicate()),
    "x replicated": ((T, B, C), Shard(2), (T, B, C), Replicate(), (), Replicate()),
}


def gradients(group, case, reverse):
    mesh = DeviceMesh.from_group(group, "cpu")
    torch.manual_seed(0)
    shapes, placements = CASES[case][::2], CASES[case][1::2]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    dh = torch.randn(T, B, C, dtype=torch.float64)
    whole = [t.clone().requires_grad_() for t in tensors]
    expected = linear_recurrence(*whole, reverse=reverse)
    sharded = [placed(t, mesh, p) for t, p in zip(tensors, placements, strict=True)]
    h = linear_recurrence(*sharded, reverse=reverse)
    assert isinstance(h, DTensor) and h.shape == expected.shape
    found = torch.autograd.grad(h, sharded, distribute_tensor(dh, mesh, h.placements))
    of_whole = torch.autograd.grad(expected, whole, dh)
    for got, of_one in zip((h, *found), (expected, *of_whole), strict=True):
        torch.testing.assert_close(got.full_tensor(), of_one)
    return [str(p) for p in h.placements]


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("case", CASES)
def test_sharded_columns_give_the_results_and_gradients_of_whole_tensors(ranks, case, reverse):
    one, other = ranks.results(gradients, case, reverse, size=2)
    assert one == other


def of_a_number(group):
    mesh = DeviceMesh.from_group(group, "cpu")
    torch.manual_seed(0)
    x = torch.randn(T, B, C)
    h = linear_recurrence(0.5, placed(x, mesh, Shard(1)))
    torch.testing.assert_close(h.full_tensor(), linear_recurrence(0.5, x))


def test_a_number_is_the_coefficient_on_every_rank(ranks):
    ranks.results(of_a_number, size=2)


def refused(group, a, x):
    mesh = DeviceMesh.from_group(group, "cpu")
    tensors = [
        torch.rand(T, B, C)
        if placement is None
        else DTensor.from_local(torch.rand(T, B, C), mesh, [placement])
        for placement in (a, x)
    ]
    linear_recurrence(*tensors)


@pytest.mark.parametrize(
    ("a", "x", "kind", "message"),
    [
        (Shard(0), Shard(0), "ValueError", "use lrscan.distributed.linear_recurrence"),
        (None, Replicate(), "TypeError", "a is not a DTensor, but other inputs are"),
        (Replicate(), Partial(), "ValueError", "x holds partial sums over mesh dimension 0"),
    ],
    ids=["time", "mixed", "partial"],
)
def test_placements_that_need_an_exchange_are_refused(ranks, a, x, kind, message):
    for error in ranks.run(refused, a, x, size=2):
        assert error.kind == kind and message in error.message


def of_a_compiled_function(group):
    mesh = DeviceMesh.from_group(group, "cpu")
    torch.manual_seed(0)
    a, x = (placed(torch.rand(T, B, C), mesh, Shard(2)) for _ in range(2))
    plain = linear_recurrence(a, x)
    compiled = torch.compile(linear_recurrence, backend="aot_eager")(a, x)
    torch.testing.assert_close(compiled.full_tensor(), plain.full_tensor())


def test_sharded_columns_compile(ranks):
    ranks.results(of_a_compiled_function, size=2)
