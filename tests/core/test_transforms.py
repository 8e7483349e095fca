"""Derivatives through torch's modes, subclasses, transforms and tracers."""

import shutil
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from lrscan import linear_recurrence, linear_recurrence_reference, packed_linear_recurrence

A, X, V = (torch.rand(6, 3, dtype=torch.float64) for _ in range(3))
EXACT = jvp(lambda a: linear_recurrence_reference(a, X), (A,), (V,))[1]


class Seen(TorchDispatchMode):
    """Dispatch mode that records the names of all operators."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **kwargs or {})


class Subclass(torch.Tensor):
    pass


@contextmanager
def default_device():
    torch.set_default_device("cpu")
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = {
    "none": nullcontext,
    "default device": default_device,
    "device": lambda: torch.device("cpu"),
    "dispatch mode": Seen,
}


@pytest.mark.parametrize("mode", MODES)
def test_forward_mode_is_kept_in_every_mode(mode):
    with MODES[mode]():
        with forward_ad.dual_level():
            h = linear_recurrence(forward_ad.make_dual(A, V), X)
            torch.testing.assert_close(forward_ad.unpack_dual(h).tangent, EXACT)
        torch.testing.assert_close(jvp(lambda a: linear_recurrence(a, X), (A,), (V,))[1], EXACT)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own
def test_forward_mode_is_kept_for_a_subclass_and_by_linearize():
    with forward_ad.dual_level():
        h = linear_recurrence(forward_ad.make_dual(A, V), X.as_subclass(Subclass))
        tangent = forward_ad.unpack_dual(h).tangent
    torch.testing.assert_close(tangent.as_subclass(torch.Tensor), EXACT)
    _, linear = linearize(lambda a: linear_recurrence(a, X), A)
    torch.testing.assert_close(linear(V), EXACT)


def test_forward_mode_over_itself_is_refused_and_the_other_orders_are_right():
    s = torch.tensor(0.5, dtype=torch.float64)

    def of(function):
        return lambda s: function(s.expand(6, 3), X).sum()

    with pytest.raises(NotImplementedError, match="forward mode over forward mode.*jacfwd"):
        jacfwd(jacfwd(of(linear_recurrence)))(s)
    exact = jacrev(jacrev(of(linear_recurrence_reference)))(s)
    for outer, inner in ((jacfwd, jacrev), (jacrev, jacfwd), (jacrev, jacrev)):
        torch.testing.assert_close(outer(inner(of(linear_recurrence)))(s), exact)


def test_compiled_functions_refuse_forward_mode_and_batch_at_once():
    @torch.compile(backend="eager", fullgraph=True)
    def compiled(a):
        return linear_recurrence(a, X)

    with forward_ad.dual_level(), pytest.raises(Exception, match="no forward-mode derivative"):
        compiled(forward_ad.make_dual(A, V))
    many = torch.compile(vmap(lambda a: linear_recurrence(a, X)), backend="eager")
    with Seen() as seen:
        h = many(A.expand(4, 6, 3))
    assert seen.names.count("lrscan::linear_recurrence") <= 1
    torch.testing.assert_close(h, linear_recurrence(A, X).expand(4, 6, 3))


def test_transforms_are_traced_with_the_operator():
    def loss(a):
        return linear_recurrence(a, X).sum()

    graph = make_fx(grad(loss))(torch.ones_like(A))
    called = [str(node.target) for node in graph.graph.nodes]
    assert "lrscan.linear_recurrence.default" in called
    torch.testing.assert_close(graph(A), grad(loss)(A))
    with FakeTensorMode():
        fake = torch.rand(6, 3)
        assert grad(lambda a: linear_recurrence(a, fake).sum())(fake).shape == (6, 3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_computes_with_new_data():
    traced = torch.jit.trace(linear_recurrence, (A, X), check_trace=False)
    torch.testing.assert_close(traced(X, A), linear_recurrence(X, A))


def test_batches_of_gradients():
    def h(a, x):
        return linear_recurrence(a, x)

    for vectorize in (False, True):
        found = torch.autograd.functional.jacobian(h, (A, X), vectorize=vectorize)
        for got, expected in zip(found, jacrev(h, (0, 1))(A, X), strict=True):
            torch.testing.assert_close(got, expected)
    loss = lambda a: linear_recurrence(a, X).square().sum()  # noqa: E731
    found = torch.autograd.functional.hessian(loss, A, vectorize=True)
    torch.testing.assert_close(found, hessian(loss)(A))


def test_a_mode_sees_the_backward_of_a_call_before_it():
    a, x = A.clone().requires_grad_(), X.clone().requires_grad_()
    h = linear_recurrence(a, x)
    with Seen() as seen:
        h.sum().backward()
    assert "lrscan::linear_recurrence_backward" in seen.names


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
def test_compiled_autograd_takes_an_eager_forward():
    def gradient(backward):
        a = A.clone().requires_grad_()
        backward(linear_recurrence(a, X).sum())
        return a.grad

    expected = gradient(torch.Tensor.backward)
    compiled = torch.compile(lambda loss: loss.backward(), backend="eager")
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.testing.assert_close(gradient(compiled), expected)


def test_half_precision_is_accumulated_in_float32_in_every_kind_of_derivative():
    a = torch.linspace(0.5, 0.99, 8)
    x = torch.randn(1024, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    dh = torch.randn(1024, 16, 8, generator=torch.Generator().manual_seed(1)).bfloat16()

    def weighed(a, x, dh):
        return (linear_recurrence(a, x) * dh).sum()

    exact = grad(weighed)(a.double(), x.double(), dh.double())
    own = a.clone().requires_grad_()
    eager = torch.autograd.grad(linear_recurrence(own, x), own, dh, create_graph=True)
    _, pull = torch.func.vjp(lambda a: linear_recurrence(a, x), a)
    for found in (*eager, *pull(dh)):
        assert (found - exact).abs().max() <= 2e-3 * exact.abs().max()


def test_h_is_saved_only_if_the_gradient_of_a_needs_it():
    kept = []

    def pack(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    a, x = A[0].clone(), X.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        h = linear_recurrence(a, x, torch.zeros(3, dtype=torch.float64))
    assert set(kept) == {(3,)}
    torch.relu_(h)  # so this in-place operation is allowed
    h.sum().backward()
    other = X.clone().requires_grad_()
    torch.relu(linear_recurrence(a, other)).sum().backward()
    assert torch.equal(x.grad, other.grad)


def test_meta_tensors_get_shapes_only():
    a, x = A.to("meta").requires_grad_(), X.to("meta")
    h = linear_recurrence(a, x, algorithm="single_pass")
    assert h.is_meta and h.shape == (6, 3)
    h.sum().backward()
    assert a.grad.is_meta and a.grad.shape == (6, 3)
    cu_seqlens = torch.tensor([0, 2, 6])
    assert packed_linear_recurrence(a, x, cu_seqlens).shape == (6, 3)


def test_a_default_device_costs_no_dispatch(monkeypatch):
    def operator(*args):
        raise AssertionError("the call went through the dispatcher")

    monkeypatch.setattr(torch.ops.lrscan, "linear_recurrence", operator)
    with torch.device("cpu"):
        linear_recurrence(A, X)


def test_exports_with_a_length_that_may_change():
    class Packed(torch.nn.Module):
        def forward(self, a, x, cu_seqlens):
            return packed_linear_recurrence(a, x, cu_seqlens)

    dims = {0: torch.export.Dim("T")}
    lengths = torch.tensor([0, 2, 6])
    program = torch.export.export(
        Packed(), (A, X, lengths), dynamic_shapes=(dims, dims, {0: torch.export.Dim("N")})
    )
    a, x, other = torch.rand(9, 3), torch.rand(9, 3), torch.tensor([0, 2, 6, 9])
    a, x = a.double(), x.double()
    torch.testing.assert_close(
        functional_call(program.module(), {}, (a, x, other)), packed_linear_recurrence(a, x, other)
    )


def _of_torch_func(a, x):
    def loss(a, x):
        return linear_recurrence(a, x).square().sum()

    return {
        "grad": lambda: torch.func.grad(loss, argnums=(0, 1))(a, x),
        "vjp": lambda: torch.func.vjp(lambda a: linear_recurrence(a, x), a)[1](x)[0],
        "per column": lambda: torch.func.vmap(torch.func.grad(loss), in_dims=(1, 1))(a, x),
        "jacobian": lambda: torch.func.jacrev(lambda a: linear_recurrence(a, x))(a),
        "second": lambda: torch.func.jacrev(torch.func.grad(loss))(a, x),
    }


# torch's own, in inductor
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*_prims_common:FutureWarning")
@pytest.mark.parametrize(
    ("transform", "compiler"),
    [*((name, "aot_eager") for name in _of_torch_func(None, None)), ("grad", "inductor")],
)
def test_a_transform_is_compiled_with_the_operator_in_it(transform, compiler):
    if compiler == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    a, x = torch.rand(7, 3), torch.randn(7, 3)
    expected = _of_torch_func(a, x)[transform]()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda a, x: _of_torch_func(a, x)[transform](), fullgraph=True, backend=compiler
    )
    torch.testing.assert_close(compiled(a, x), expected)
