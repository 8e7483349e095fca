"""The recurrence over ranks equals that of one process: values and gradients, for any pieces."""

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from recurrences import check, draw

import lrscan
from lrscan import distributed
from lrscan.distributed import operator

SIZES = (1, 2, 3, 4)
T = 37
PIECES = {"even": (10, 9, 9, 9), "uneven": (3, 20, 1, 13), "empty": (0, 17, 0, 20)}
every_size = pytest.mark.parametrize("size", SIZES, ids="ranks-{}".format)
every_cut = pytest.mark.parametrize("cut", PIECES)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(max(SIZES), tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


def lengths(cut, size):
    """The steps of each rank: those of the last one are what is left."""
    first = PIECES[cut][: size - 1]
    return [*first, T - sum(first)]


def cut_up(tensor, cut, size, dim):
    return tensor.split(lengths(cut, size), dim)


def on_a_rank(group, tensors, cut, dim, reverse):
    """(h, da, dx, dh0) of this rank's piece."""
    rank, size = group.rank(), group.size()
    a, x, h0, dh = tensors
    a, x, dh = (cut_up(t, cut, size, dim)[rank].clone() for t in (a, x, dh))
    leaves = [t.requires_grad_() for t in (a, x, h0.clone())]
    h = distributed.linear_recurrence(*leaves, group=group, dim=dim, reverse=reverse)
    h.backward(dh)
    return h.detach(), *(t.grad for t in leaves)


def joined(results, reverse, dim):
    """Results of all ranks as those of one process."""
    h, da, dx, dh0 = zip(*results, strict=True)
    owner = -1 if reverse else 0
    assert all(g is None for g in (dh0[:-1] if reverse else dh0[1:]))
    return *(torch.cat(part, dim) for part in (h, da, dx)), dh0[owner]


@every_size
@every_cut
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64], ids=str)
def test_pieces_on_ranks_give_the_values_and_gradients_of_the_whole(
    ranks, size, cut, reverse, dtype
):
    dim = 1
    tensors = draw((3, T, 2), dtype, dim)
    results = ranks.results(on_a_rank, tensors, cut, dim, reverse, size=size)
    a, x, h0, dh = tensors
    check(joined(results, reverse, dim), a, x, h0, dh, dim, reverse)
