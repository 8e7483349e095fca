"""The operator on a CUDA device, where there is one."""

import pytest
import torch
from recurrences import check, draw

from lrscan import linear_recurrence
from lrscan.arguments import ALGORITHMS, DTYPES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

LAYOUTS = [
    ((1, 1), 0), ((301, 1), 0), ((5000, 3), 0), ((300, 700), 0), ((7, 3000), 1),
    ((3, 650, 160), 1), ((2, 3, 2, 33, 5), 3), ((4, 70_000), 0),
]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize("dtype", DTYPES["cuda"], ids=str)
def test_agrees_with_the_loop_in_every_layout(dtype, algorithm, reverse):
    for shape, dim in LAYOUTS:
        a, x, h0, dh = draw(shape, dtype, dim)
        inputs = [t.cuda().requires_grad_() for t in (a, x, h0)]
        h = linear_recurrence(*inputs, dim=dim, reverse=reverse, algorithm=algorithm)
        gradients = torch.autograd.grad(h, inputs, dh.cuda())
        check([t.detach().cpu() for t in (h, *gradients)], a, x, h0, dh, dim, reverse)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_a_graph_replays_the_same_bits(algorithm):
    a, x, h0, _ = (t.cuda() for t in draw((4000, 5), torch.float32, 0))
    expected = linear_recurrence(a, x, h0, algorithm=algorithm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h = linear_recurrence(a, x, h0, algorithm=algorithm)
    for _ in range(3):
        h.zero_()
        graph.replay()
        assert torch.equal(h, expected)


def test_runs_on_the_current_stream():
    a, x, _, _ = (t.cuda() for t in draw((20_000, 64), torch.float32, 0))
    expected = linear_recurrence(a, x * 2)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        h = linear_recurrence(a, x * 2)
    stream.synchronize()
    assert torch.equal(h, expected)
