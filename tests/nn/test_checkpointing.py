"""Nets evaluated in chunks of time: the result of one call with the memory of one chunk."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.nn import GRU, LSTM, Dropout, Embedding, Linear, Module, Sequential
from torch.utils._pytree import tree_flatten, tree_unflatten

from lrscan import nn
from lrscan.distributed import sequence_parallel
from lrscan.nn.checkpointing import in_pieces
from lrscan.tasks import problem_2b

NETS = {
    "GILRLSTM": lambda: nn.GILRLSTM(3, 5, 2, dtype=torch.float64),
    "QRNN": lambda: nn.QRNN(3, 5, 2, window=3, dtype=torch.float64),
    "SRU": lambda: nn.SRU(3, 5, dtype=torch.float64),
}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return NETS[request.param]()


def _gradients(net, value, x):
    return torch.autograd.grad(value.square().sum(), [x, *net.parameters()])


@pytest.mark.parametrize("steps", [1, 4, 13, 50])
def test_chunks_give_the_result_and_the_gradients_of_one_call(net, steps):
    x = torch.randn(13, 2, 3, dtype=torch.float64, requires_grad=True)
    whole, end = net(x)
    last, state = in_pieces(net, x, steps=steps)
    torch.testing.assert_close(last, whole[-1])
    torch.testing.assert_close(state, end)
    for got, expected in zip(_gradients(net, last, x), _gradients(net, whole[-1], x), strict=True):
        torch.testing.assert_close(got, expected)


def test_a_loss_of_every_step_adds_up_and_a_state_is_carried_in(net):
    sizes = ((11, 3), (4, 3), (11, 5))
    x, before, y = (torch.randn(n, 2, m, dtype=torch.float64) for n, m in sizes)
    x.requires_grad_()
    with torch.no_grad():
        state = net(before)[1]
    loss, _ = in_pieces(
        net, x, state, steps=4, reduce=lambda h, first: (h * y[first : first + len(h)]).sum()
    )
    expected = (net(x, state)[0] * y).sum()
    torch.testing.assert_close(loss, expected)
    inputs = [x, *net.parameters()]
    for pair in zip(*(torch.autograd.grad(v, inputs) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(*pair)


def test_dropout_draws_the_same_again_in_the_backward_pass():
    torch.manual_seed(0)
    net = nn.GILR(3, 64, 2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    masks = []
    net.layers[1].register_forward_pre_hook(lambda _, args: masks.append(args[0] == 0))
    in_pieces(net, x, steps=3)[0].sum().backward()
    first, second, again_second, again_first = masks
    assert first.any() and not torch.equal(first, second)
    assert torch.equal(first, again_first) and torch.equal(second, again_second)


class Thinned(nn.LinearSurrogateRNN):
    """A cell that forgets everything: an output is twice its input, or dropped."""

    gates = {"forget": "xb", "new": "xb"}

    def cell(self, forget, new):
        return torch.sigmoid(forget - 200), F.dropout(new, 0.5, self.training), None


def cut(monkeypatch, yes):
    """Cut even short sequences into chunks if ``yes``, and none otherwise."""
    monkeypatch.setattr(nn.checkpointing, "CHUNK_ELEMENTS", {"cpu": 64})
    monkeypatch.setattr(nn.checkpointing, "PIECES_KEPT", 1 if yes else math.inf)


either = pytest.mark.parametrize("yes", [False, True], ids=["whole", "cut"])


@either
def test_a_random_cell_draws_the_same_again_even_if_backward_runs_in_eval_mode(yes, monkeypatch):
    cut(monkeypatch, yes)
    net, x = Thinned(1, 32), torch.ones(20, 1, 1, requires_grad=True)
    assert (net.chunk_steps(x) == 2) == yes
    with torch.no_grad():
        net.layers[0].weight_x[32:] = 1
    output, _ = net(x)
    net.eval()
    (gradient,) = torch.autograd.grad(output.sum(), x)
    kept = (output != 0).sum(-1, keepdim=True)
    assert 0 < kept.min() and kept.max() < 32
    torch.testing.assert_close(gradient, 2.0 * kept)
    assert not net.training  # as it was before backward


@either
def test_a_weight_that_was_modified_before_backward_is_an_error(yes, monkeypatch):
    cut(monkeypatch, yes)
    net, x = nn.GILR(1, 32), torch.ones(20, 1, 1, requires_grad=True)
    output, _ = net(x)
    with torch.no_grad():
        net.layers[0].weight_x.zero_()
    with pytest.raises(RuntimeError, match=r"modified (by an inplace operation|in place)"):
        output.sum().backward()


def test_transforms_of_torch_func_take_a_long_input(monkeypatch):
    net, x = nn.GILR(1, 32), torch.randn(20, 1, 1)
    found = []
    for yes in (False, True):
        cut(monkeypatch, yes)
        found.append(torch.func.grad(lambda x: net(x)[0].square().sum())(x))
        found.append(torch.func.vmap(lambda x: net(x)[0])(x.expand(3, 20, 1, 1)))
    torch.testing.assert_close(found[2:], found[:2])
    last = torch.func.grad(lambda x: in_pieces(net, x, steps=3)[0].square().sum())
    torch.testing.assert_close(last(x), torch.func.grad(lambda x: net(x)[0][-1].square().sum())(x))


@either
def test_a_graph_that_is_kept_gives_its_gradients_twice(yes, monkeypatch):
    cut(monkeypatch, yes)
    net, x = Thinned(1, 32), torch.randn(20, 1, 1, requires_grad=True)
    total = net(x)[0].square().sum()
    first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_wrong_arguments_of_in_pieces_are_refused():
    x = torch.zeros(4, 2, 3)
    for steps in (0, True, 2.0):
        with pytest.raises(ValueError, match=f"not {steps!r}"):
            in_pieces(nn.GILR(3, 4), x, steps=steps)
    for name in ("bidirectional", "batch_first"):
        with pytest.raises(ValueError, match=name):
            in_pieces(nn.GILR(3, 4, **{name: True}), x, steps=2)
    with pytest.raises(ValueError, match="module '1' of the net has bidirectional=True"):
        in_pieces(Sequential(Linear(3, 3), LSTM(3, 4, bidirectional=True)), x, steps=2)
    with pytest.raises(ValueError, match="no steps"):
        in_pieces(nn.GILR(3, 4), x[:0], steps=2)
    with pytest.raises(TypeError, match=r"Linear.forward\(\) takes|returned Tensor"):
        in_pieces(OutputAlone(), x, steps=2)
    with pytest.raises(ValueError, match="2 recurrent parts must be a tuple .* 2 states, not of 1"):
        in_pieces(Sequential(nn.GILR(3, 3), nn.GILR(3, 4)), x, (None,), steps=2)


class OutputAlone(Module):
    def forward(self, x, state):
        return x


class Tagger(Module):
    """A typical network: an embedding, recurrent nets of two libraries, and a read-out."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = Embedding(7, 3), Linear(4, 2)
        self.first, self.second = nn.GILRLSTM(3, 5), LSTM(5, 4)

    def forward(self, tokens, state=None):
        first, second = (None, None) if state is None else state
        x, first = self.first(self.embed(tokens), first)
        x, second = self.second(x, second)
        return self.head(x), (first, second)


def sequential():
    return Sequential(
        Embedding(7, 3),
        nn.GILR(3, 5),
        Dropout(0.0),
        Sequential(Linear(5, 5), GRU(5, 4)),
        Linear(4, 2),
    )


@pytest.mark.parametrize("make", [Tagger, sequential])
def test_a_whole_network_is_evaluated_in_pieces(make):
    torch.manual_seed(0)
    net, tokens = make().double(), torch.randint(7, (13, 2))
    wanted = torch.randint(2, (13, 2))

    def loss(output, first):
        part = wanted[first : first + len(output)]
        return F.cross_entropy(output.flatten(0, 1), part.flatten(), reduction="sum")

    def gradients(steps, state=None):
        total, end = in_pieces(net, tokens, state, steps=steps, reduce=loss)
        leaves, tree = tree_flatten(end)
        found = torch.autograd.grad(total, list(net.parameters()))
        leaves = [t.detach() for t in leaves]
        return [total, *leaves, *found], tree_unflatten(leaves, tree)

    (whole, end), (cut_up, _) = gradients(13), gradients(4)
    torch.testing.assert_close(cut_up, whole)
    after, _ = gradients(5, end)
    assert not torch.allclose(after[0], whole[0])  # the state is read


def test_a_sequence_that_is_split_over_ranks_is_refused(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/at", rank=0, world_size=1)
    try:
        with sequence_parallel(), pytest.raises(RuntimeError, match="split over ranks"):
            in_pieces(nn.GILR(3, 4), torch.zeros(4, 2, 3), steps=2)
    finally:
        torch.distributed.destroy_process_group()


_PEAK = """
import re, sys, torch
from lrscan import nn
from lrscan.tasks import problem_2b
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
net = nn.GILRLSTM(128, 64, 2)
def step(length, cut):
    tokens, _ = problem_2b(length, 1, seed=0)
    last = nn.in_pieces(net, tokens, steps=8192)[0] if cut else net(tokens)[0][-1]
    last.sum().backward()
step(8192, True)  # compiles the kernels and uses the memory of a chunk once
before = peak()
if sys.argv[2] == "kept":  # keep everything that backward needs
    nn.checkpointing.PIECES_KEPT = 10**9
step(int(sys.argv[1]), sys.argv[2] == "cut")
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_is_that_of_one_chunk_and_of_the_output_if_there_is_one():
    def peak(length, how):
        command = [sys.executable, "-c", _PEAK, str(length), how]
        # With this, glibc returns freed blocks, so the peak counts only blocks in use.
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        return int(done.stdout)

    length = 2**17
    tokens, _ = problem_2b(length, 1, seed=0)
    inputs, outputs = sum(t.numel() * t.element_size() for t in tokens), 4 * 64 * length
    kept, whole, cut = (peak(length, how) for how in ("kept", "whole", "cut"))
    # The memory of one chunk was used before: only the input is added, as it is drawn and cut.
    limit = 8 * inputs
    assert cut < limit, (kept, whole, cut)
    # An ordinary call adds the output and its gradient, whatever the number of layers.
    assert whole < limit + 2 * outputs, (kept, whole, cut)
    assert kept > 5 * limit + 2 * outputs, (kept, whole, cut)


_LIMITED = """
import re, resource, sys, torch
from lrscan import nn
from lrscan.tasks import problem_2b
torch.set_num_threads(1)
net = nn.GILRLSTM(128, 64, 2)
def step(length, chunks):
    tokens, _ = problem_2b(length, 1, seed=0)
    last = nn.in_pieces(net, tokens, steps=2048)[0] if chunks else net(tokens)[0][-1]
    last.sum().backward()
step(4096, True), step(4096, False)  # compile the kernels
held = int(re.search(r"VmData:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[2]),) * 2)
try:
    step(32768, sys.argv[1] == "chunks")
    print("done")
except (MemoryError, RuntimeError) as error:
    print("out of memory" if "alloc" in str(error) else error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux limits a process's memory")
def test_a_step_in_pieces_runs_under_a_limit_that_one_call_exceeds():
    def outcome(how, limit):
        command = [sys.executable, "-c", _LIMITED, how, str(limit)]
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        return done.stdout.strip()

    limit = 48 * 2**20
    assert outcome("chunks", limit) == "done"
    assert outcome("whole", 3 * limit) == "out of memory"
