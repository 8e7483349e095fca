"""The CUDA kernels are made from an algebra: one of 2 by 2 matrices goes through all of them."""

import dataclasses

import matrices
import pytest
import torch
from matrices import MATRICES, by_kernels, check, draw, exact
from test_cuda_kernels import fresh_plans, small_tiles  # noqa: F401  (fixtures)

from lrscan.core.checks import ALGORITHMS

ALGORITHMS = [name for name in ALGORITHMS["cuda"] if name != "auto"]
# (steps, columns) and the axis of time: of every order in memory, one tile and several.
SHAPES = {
    "one-step": ((1, 1), 0),
    "columns": ((75, 8), 0),
    "columns-unaligned": ((75, 9), 0),
    "time": ((144, 2), 1),
    "time-unaligned": ((75, 3), 1),
    "one-column": ((150, 1), 0),
    "thin": ((75, 3), 0),
}


def laid_out(tensors, dim):
    """The tensors with the axis of time where ``dim`` says; h0 has none."""
    if dim == 0:
        return tensors
    a, x, h0, dh = tensors
    return a.transpose(0, 1).contiguous(), x.transpose(0, 1).contiguous(), h0, (
        dh.transpose(0, 1).contiguous()
    )


def found(tensors, dim, reverse, algorithm):
    """What the kernels give, with the axis of time in front."""
    h, da, dx, dh0 = by_kernels(*laid_out(tensors, dim), reverse, algorithm, "cuda", dim)
    return h.transpose(0, dim), da.transpose(0, dim), dx.transpose(0, dim), dh0


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_matrices_agree_with_the_loop(algorithm, shape, reverse, small_tiles):  # noqa: F811
    size, dim = SHAPES[shape]
    tensors = draw(size)
    check(found(tensors, dim, reverse, algorithm), exact(*tensors, reverse))


def test_a_wrong_composition_is_seen(small_tiles, monkeypatch):  # noqa: F811
    def swapped(a1, x1, a2, x2):
        return matrices.compose(a2, x2, a1, x1)

    wrong = dataclasses.replace(MATRICES, compose=swapped)
    tensors = draw((75, 3))
    expected = exact(*tensors, False)
    for algorithm, caught in (("serial", False), ("blocked", True), ("single_pass", True)):
        monkeypatch.setattr(matrices, "MATRICES", wrong)
        results = found(tensors, 0, False, algorithm)
        if caught:
            with pytest.raises(AssertionError, match="times its bound"):
                check(results, expected)
        else:
            check(results, expected)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
def test_a_map_that_overflows_is_believed_only_of_an_algebra_without_guard(
    algorithm, guarded, small_tiles, monkeypatch  # noqa: F811
):
    monkeypatch.setattr(matrices, "MATRICES", dataclasses.replace(MATRICES, guarded=guarded))
    a, x, h0, dh = draw((150, 2))
    a[:100], x[:110], h0 = 1e20 * torch.eye(2), 0, torch.zeros(2, 2)
    h = found((a, x, h0, dh), 0, False, algorithm)[0]
    assert (h[:110] == 0).all() == h[110:].isfinite().all() == guarded
