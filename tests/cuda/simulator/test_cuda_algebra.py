"""The CUDA kernels built from another algebra, of 2 by 2 matrices, agree with a loop."""

import dataclasses

import matrices
import pytest
import torch
from matrices import MATRICES, by_kernels, by_kernels_in_layout, check, draw, exact
from test_cuda_kernels import fresh_plans, small_tiles  # noqa: F401  (fixtures)

from lrscan.core.checks import ALGORITHMS

ALGORITHMS = [name for name in ALGORITHMS["cuda"] if name != "auto"]
# Name: ((steps, columns), axis of time). Every order in memory, one tile and several.
SHAPES = {
    "one-step": ((1, 1), 0),
    "columns": ((75, 8), 0),
    "columns-unaligned": ((75, 9), 0),
    "time": ((144, 2), 1),
    "time-unaligned": ((75, 3), 1),
    "one-column": ((150, 1), 0),
    "thin": ((75, 3), 0),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_matrices_agree_with_the_loop(algorithm, shape, reverse, small_tiles):  # noqa: F811
    size, dim = SHAPES[shape]
    tensors = draw(size)
    found = by_kernels_in_layout(tensors, dim, reverse, algorithm, "cuda")
    check(found, exact(*tensors, reverse))


def test_a_wrong_composition_fails_the_check(small_tiles, monkeypatch):  # noqa: F811
    def swapped(a1, x1, a2, x2):
        return matrices.compose(a2, x2, a1, x1)

    wrong = dataclasses.replace(MATRICES, compose=swapped)
    tensors = draw((75, 3))
    expected = exact(*tensors, False)
    for algorithm, caught in (("serial", False), ("blocked", True), ("single_pass", True)):
        monkeypatch.setattr(matrices, "MATRICES", wrong)
        results = by_kernels(*tensors, False, algorithm, "cuda")
        if caught:
            with pytest.raises(AssertionError, match="times its bound"):
                check(results, expected)
        else:
            check(results, expected)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
def test_a_map_that_overflows_is_used_only_by_an_algebra_without_guard(
    algorithm,
    guarded,
    small_tiles,  # noqa: F811
    monkeypatch,
):
    monkeypatch.setattr(matrices, "MATRICES", dataclasses.replace(MATRICES, guarded=guarded))
    a, x, h0, dh = draw((150, 2))
    a[:100], x[:110], h0 = 1e20 * torch.eye(2), 0, torch.zeros(2, 2)
    h = by_kernels(a, x, h0, dh, False, algorithm, "cuda")[0]
    assert (h[:110] == 0).all() == h[110:].isfinite().all() == guarded


@pytest.mark.parametrize("shape", [(75, 8), (75, 3)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_matrices_need_no_more_alignment_than_a_float(algorithm, shape, small_tiles):  # noqa: F811
    """Addresses here are multiples of 4 bytes, not of 16 like those of newly allocated tensors."""
    tensors = draw(shape)
    shifted = [torch.cat([torch.zeros(1), t.flatten()])[1:].view(t.shape) for t in tensors]
    assert all(t.data_ptr() % 8 == 4 for t in shifted)
    check(by_kernels(*shifted, False, algorithm, "cuda"), exact(*tensors, False))
