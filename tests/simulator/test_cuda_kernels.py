"""The CUDA kernels in Numba's simulator, against the same oracle as the CPU's."""

import pytest
import torch
from recurrences import check, draw

from lrscan import gradients, sweep
from lrscan.arguments import ALGORITHMS

# "blocked" takes 64 steps a piece at least: 1, 2 and 3 pieces, the last one short.
LAYOUTS = [((1, 1), 0), ((2, 3), 0), ((150, 3), 0), ((2, 70, 2), 1), ((2, 2, 2, 65, 2), 3)]


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_kernels_agree_with_the_loop(algorithm, dtype, reverse):
    for shape, dim in LAYOUTS:
        a, x, h0, dh = draw(shape, dtype, dim)
        for start in (h0, None):
            options = (dim, reverse, algorithm)
            h = sweep.forward(a, x, start, *options, backend="cuda")
            got = gradients.backward(a, h, start, dh, x.shape, *options, backend="cuda")
            check([h, *got], a, x, start, dh, dim, reverse)


def test_only_the_gradients_that_are_asked_for_are_written():
    a, x, h0, dh = draw((9, 2), torch.float64, 0)
    h = sweep.forward(a, x, h0, 0, False, "blocked", backend="cuda")
    whole = gradients.backward(a, h, h0, dh, x.shape, 0, False, "blocked", backend="cuda")
    for k in range(3):
        wanted = [k == j for j in range(3)]
        got = gradients.backward(
            a, h, h0, dh, x.shape, 0, False, "blocked", wanted=wanted, backend="cuda"
        )
        assert [one is not None for one in got] == wanted
        assert torch.equal(got[k], whole[k])


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_a_product_may_overflow_where_the_states_do_not():
    a, x = torch.full((200, 1), 1e20), torch.zeros(200, 1)
    a[150:], x[160:] = 0.5, 1.0
    h = sweep.forward(a, x, None, 0, False, "blocked", backend="cuda")
    assert torch.equal(h[:160], torch.zeros(160, 1))
    torch.testing.assert_close(h[-1], torch.tensor([2.0]))
