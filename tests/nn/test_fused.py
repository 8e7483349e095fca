"""Fused cells: equal to torch operations up to rounding, with all derivatives."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from lrscan import nn
from lrscan.cpu import fused_cells
from lrscan.nn import fused

T, B, M = 37, 3, 7
MODELS = {"gilr": nn.GILR, "gilr-lstm": nn.GILRLSTM}
# Sums of a few hundred float32 products, with an error of one ulp each.
close = dict(rtol=2e-5, atol=2e-6)
# "auto" uses a kernel, "serial" never does.
WAYS = ("auto", "serial")


@pytest.fixture
def taken(monkeypatch):
    """Names of the kernel functions that were called, in order."""
    names = []
    for function in ("forward", "backward"):
        plain = getattr(fused_cells, function)

        def noting(name, *rest, plain=plain, function=function):
            names.append(function)
            return plain(name, *rest)

        monkeypatch.setattr(fused_cells, function, noting)
    return names


def _results(model, x, state, second=False, call=None):
    output, end = (model if call is None else call)(x, state)
    total = output.sin().sum() + sum(part.square().sum() for part in end)
    inputs = [x, *state, *model.parameters()]
    found = torch.autograd.grad(total, inputs, create_graph=second)
    if second:
        total = sum(gradient.square().sum() for gradient in found)
        found += torch.autograd.grad(total, inputs)
    return [output, *end, *found]


def _case(make, hidden=32, seed=0):
    torch.manual_seed(seed)
    model = make(M, hidden, 2)
    state = tuple(torch.randn(2, B, width).requires_grad_() for width in model.state_sizes)
    return model, torch.randn(T, B, M).requires_grad_(), state


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_kernel_is_torch_operations_with_their_derivatives(make, second, taken):
    model, x, state = _case(make)
    results = []
    for model.algorithm in WAYS:
        results.append(_results(model, x, state, second))
        assert ("forward" in taken) == (model.algorithm == "auto")
        assert ("backward" in taken) == (model.algorithm == "auto")
        taken.clear()
    for got, expected in zip(*results, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(got / scale, expected / scale, **close)


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_sequences_end_to_end_are_torch_operations_with_their_derivatives(make, second, taken):
    torch.manual_seed(0)
    model, results = make(M, 32, 2), []
    x = [torch.randn(t, M).requires_grad_() for t in (9, 7, 7, 3, 1)]
    state = tuple(torch.randn(2, 5, width).requires_grad_() for width in model.state_sizes)
    for model.algorithm in WAYS:
        output, end = model(pack_sequence(x), state)
        total = output.data.sin().sum() + sum(part.square().sum() for part in end)
        inputs = [*x, *state, *model.parameters()]
        found = torch.autograd.grad(total, inputs, create_graph=second)
        if second:
            total = sum(gradient.square().sum() for gradient in found)
            found += torch.autograd.grad(total, inputs)
        results.append([output.data, *end, *found])
        assert ("forward" in taken) == ("backward" in taken) == (model.algorithm == "auto")
        taken.clear()
    for got, expected in zip(*results, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(got / scale, expected / scale, **close)


@pytest.mark.parametrize("name", MODELS)
def test_threads_change_no_bit(name, monkeypatch):
    monkeypatch.setattr(fused_cells, "ELEMENTS_PER_THREAD", 1)
    torch.manual_seed(0)
    gates, start = torch.randn(T, B, fused_cells.GATES[name] * 48), torch.randn(B, 48)
    cu_seqlens = torch.tensor([0, 60, 61, T * B])
    dh, dend, results, before = (
        torch.randn(T, B, 48),
        torch.randn(B, 48),
        [],
        torch.get_num_threads(),
    )
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            c, h = fused_cells.forward(name, gates, start)
            results.append([c, h, *fused_cells.backward(name, gates, start, c, dh, dend)])
            rows = gates.reshape(T * B, 1, -1)
            c, h = fused_cells.forward(name, rows, start, cu_seqlens)
            dh_rows = dh.reshape(h.shape)
            given = (rows, start, c, dh_rows, dend, cu_seqlens)
            results[-1] += [c, h, *fused_cells.backward(name, *given)]
    finally:
        torch.set_num_threads(before)
    for got in results[1:]:
        assert all(map(torch.equal, got, results[0]))


def test_gates_are_exact_to_a_few_places_over_the_whole_range():
    """One step of a GILR shows a gate: c = sigmoid(p) * c[-1] + sigmoid(-p) * tanh(v)."""
    p = torch.cat([torch.linspace(-100, 100, 40_000), torch.logspace(-30, 0, 480)])
    gates = torch.stack([p, torch.zeros_like(p)], 0).reshape(1, 1, -1)
    one = torch.ones(1, len(p))
    gate, _ = fused_cells.forward("gilr", gates, one)
    expected = torch.sigmoid(p.double())
    # The kernel clamps the argument of exp at 87, where a sigmoid is 2e-38.
    error = (gate[0, 0].double() - expected).abs() / expected.clamp(1e-30)
    assert error.max() < 5e-7
    for sign in (1, -1):
        gates = torch.stack([torch.full_like(p, -200.0), sign * p], 0).reshape(1, 1, -1)
        impulse, _ = fused_cells.forward("gilr", gates, 0 * one)
        expected = torch.tanh(sign * p.double())
        assert (
            (impulse[0, 0].double() - expected) / expected.abs().clamp(1e-30)
        ).abs().max() < 5e-7


def test_a_nan_reaches_only_later_steps_of_its_column():
    gates, start = torch.zeros(T, B, 4 * 16), torch.zeros(B, 16)
    gates[5, 1, 3] = torch.nan
    for part in fused_cells.forward("gilr-lstm", gates, start):
        wrong = torch.zeros(T, B, 16, dtype=torch.bool)
        wrong[5:, 1, 3] = True
        assert torch.equal(part.isnan(), wrong)


class Other(nn.GILRLSTM):
    """A model with another cell, whose gates have the same names."""

    def cell(self, forget, input, output, candidate):
        return torch.sigmoid(forget), torch.relu(input) * candidate, lambda c: output * c


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.GILR(M, 32, activation=torch.relu),
        lambda: nn.GILR(M, 20),
        lambda: nn.GILR(M, 32, dtype=torch.bfloat16),
        lambda: nn.QRNN(M, 32),
    ],
    ids=["another activation", "a width that is no multiple", "half precision", "another cell"],
)
def test_a_case_without_a_kernel_uses_torch_operations(make, taken):
    model = make()
    model(torch.randn(T, B, M, dtype=next(model.parameters()).dtype))
    assert not taken


def test_an_overridden_cell_is_called(taken):
    torch.manual_seed(0)
    model, x = Other(M, 32), torch.randn(T, B, M)
    model.layers[0].surrogate.algorithm = "serial"
    outputs = [model(x)[0], None]
    assert not taken
    model.algorithm = "serial"
    torch.testing.assert_close(outputs[0], model(x)[0])


def test_forward_mode_and_vmap_use_torch_operations():
    model, x, _ = _case(nn.GILRLSTM)
    x, tangent = x.detach(), torch.randn(T, B, M)
    _, slope = torch.func.jvp(lambda t: model(t)[0], (x,), (tangent,))
    many = torch.func.vmap(lambda t: model(t)[0])(torch.stack([x, tangent]))
    model.algorithm = "serial"
    torch.testing.assert_close(slope, torch.func.jvp(lambda t: model(t)[0], (x,), (tangent,))[1])
    torch.testing.assert_close(many[1], model(tangent)[0], **close)


@pytest.mark.parametrize("name", MODELS)
def test_the_operator_passes_the_checks_of_torch(name):
    gates = torch.randn(T, B, fused_cells.GATES[name] * 32, requires_grad=True)
    start = torch.randn(B, 32, requires_grad=True)
    results = torch.library.opcheck(torch.ops.lrscan.fused_cell.default, (gates, start, name))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_compiled_model_takes_the_kernel_in_one_graph(make, taken):
    torch._dynamo.reset()
    model, x, state = _case(make)
    expected = _results(model, x, state)
    taken.clear()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(_results(model, x, state, call=compiled), expected, **close)
    kernels = 4 if make is nn.GILRLSTM else 2  # one for a layer, one for its surrogate
    assert taken == ["forward"] * kernels + ["backward"] * kernels


def test_the_marks_name_kernels():
    marked = {fused.kernel_of(model): model for model in nn.MODELS.values()}
    marked.pop(None)  # models without a kernel
    assert marked == MODELS and set(marked) == set(fused_cells.GATES)
    assert fused.fused("gilr")(lambda: None).fused == "gilr"


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_batch_of_gradients_equals_single_gradients(make):
    model, x, _ = _case(make)
    output = model(x)[0]
    many = torch.randn(4, *output.shape)

    def gradient(given, **options):
        return torch.autograd.grad(output, x, given, retain_graph=True, **options)[0]

    found = gradient(many, is_grads_batched=True)
    torch.testing.assert_close(found, torch.stack([gradient(one) for one in many]), **close)
