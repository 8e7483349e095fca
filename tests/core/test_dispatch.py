"""The operator inside PyTorch: dispatcher, compile, export, autocast, modes and workers."""

import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from lrscan import linear_recurrence, linear_recurrence_step, packed_linear_recurrence

A, X, H0 = torch.rand(33, 5), torch.randn(33, 5), torch.randn(5)
LENGTHS = torch.tensor([0, 7, 7, 33])
OPERATOR = torch.ops.lrscan.linear_recurrence.default
COMPILERS = ["aot_eager"] + ["inductor"] * (shutil.which("g++") is not None)


def grad(tensor):
    return tensor.detach().clone().requires_grad_()


@pytest.mark.parametrize(
    "arguments",
    [
        (grad(A), grad(X), grad(H0), 0, False, "auto", None),
        (grad(A[0]), grad(X), None, 0, True, "serial", None),
        (grad(A.T), grad(X.T), None, 1, False, "blocked", None),
        (grad(A), X.bfloat16(), None, -2, False, "auto", None),
        (grad(A), grad(X), grad(torch.rand(3, 5)), 0, True, "auto", LENGTHS),
    ],
    ids=["plain", "broadcast", "transposed", "bfloat16", "packed"],
)
def test_operator_checks_of_torch(arguments):
    results = torch.library.opcheck(OPERATOR, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in inductor
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_in_one_graph_with_its_gradients(compiler):
    def loss(a, x, h0):
        h = linear_recurrence(a * 2, x, h0, dim=0)
        packed = packed_linear_recurrence(a, x.T.contiguous().T, LENGTHS, reverse=True)
        return (h * packed).sum(), h

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    inputs = [grad(t) for t in (A, X, H0)]
    expected, got = loss(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, expected)
    assert got[1].stride() == expected[1].stride()
    torch.testing.assert_close(
        torch.autograd.grad(got[0], inputs), torch.autograd.grad(expected[0], inputs)
    )


@pytest.mark.parametrize("shape", [(4, 9, 3), (3, 4, 9)], ids=str)
def test_compiled_results_have_the_strides_of_eager_ones(shape):
    torch._dynamo.reset()
    compiled = torch.compile(linear_recurrence, fullgraph=True, backend="aot_eager")
    x = torch.rand(shape).permute(2, 0, 1)
    for a in (torch.rand(shape).permute(2, 0, 1), torch.rand(x.shape), torch.rand(x.shape[2])):
        assert compiled(a, x).stride() == linear_recurrence(a, x).stride()


def test_exports():
    class Model(torch.nn.Module):
        def forward(self, a, x):
            return linear_recurrence(a, x, dim=1)

    inputs = torch.rand(2, 9, 3), torch.rand(2, 9, 3)
    program = torch.export.export(Model(), inputs)
    torch.testing.assert_close(program.module()(*inputs), Model()(*inputs))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and warns of argument checks
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_a_trace_takes_any_number_of_steps(reverse):
    def call(a, x, h0):
        return linear_recurrence(a, x, h0, reverse=reverse)

    def inputs(steps):
        return A[:1].expand(steps, 5).contiguous(), torch.randn(steps, 5), H0

    for example in (0, 1, 7):
        traced = torch.jit.trace(call, inputs(example), check_trace=False)
        for steps in (0, 1, 7, 33):
            given = inputs(steps)
            torch.testing.assert_close(traced(*given), call(*given))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_autocast_takes_the_widest_dtype(compiled):
    torch._dynamo.reset()
    call = linear_recurrence
    if compiled:
        call = torch.compile(call, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        h = call(A.bfloat16(), X)
        assert call(A.bfloat16(), X.bfloat16()).dtype == torch.bfloat16
    assert h.dtype == torch.float32
    torch.testing.assert_close(h, linear_recurrence(A.bfloat16().float(), X))


def test_autocast_treats_a_step_as_it_treats_a_sequence():
    with torch.autocast("cpu", torch.bfloat16):
        h = linear_recurrence(A.bfloat16(), X, H0)
        step = linear_recurrence_step(A[0].bfloat16(), X[0], H0)
        assert linear_recurrence(0.5, X.bfloat16()).dtype == torch.bfloat16
        assert linear_recurrence(0.5, X, H0.bfloat16()).dtype == torch.float32
    assert step.dtype == torch.float32
    torch.testing.assert_close(step, h[0])


def test_fake_tensors_compute_nothing():
    with torch._subclasses.FakeTensorMode():
        h = linear_recurrence(torch.empty(10**9, 10**3), torch.empty(10**9, 10**3))
    assert h.shape == (10**9, 10**3)


def test_modes_see_the_operator():
    seen = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Log():
        h = linear_recurrence(A, X)
    assert OPERATOR in seen
    torch.testing.assert_close(h, linear_recurrence(A, X))


class _Scanned(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, k):
        return linear_recurrence(A, X * k)


def test_works_in_a_worker_of_a_data_loader():
    linear_recurrence(torch.rand(500_000, 2), torch.rand(500_000, 2))  # with threads, before a fork
    for k, h in enumerate(DataLoader(_Scanned(), batch_size=None, num_workers=2)):
        torch.testing.assert_close(h, linear_recurrence(A, X * k))
