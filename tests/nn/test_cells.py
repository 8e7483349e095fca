"""User-defined cells: complex states, return values of a cell, and nets without parameters."""

import math

import pytest
import torch
from every_model import LINEAR
from torch import nn as torch_nn

from lrscan import nn


class Rotating(nn.LinearSurrogateRNN):
    """A complex state, read out as its real part."""

    gates = {"forget": "xb", "angle": "xb", "new": "xb"}

    def cell(self, forget, angle, new):
        return torch.polar(torch.sigmoid(forget), angle), new, lambda c: c.real


def rotating_by_a_loop(net, x, c):
    layer, outputs = net.layers[0], []
    for row in torch.nn.functional.linear(x, layer.weight_x, layer.bias):
        forget, angle, new = row.chunk(3, -1)
        c = torch.polar(torch.sigmoid(forget), angle) * c + new
        outputs.append(c.real)
    return torch.stack(outputs), c


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cell_may_have_complex_states(dtype, monkeypatch):
    torch.manual_seed(0)
    net = Rotating(3, 8, dtype=dtype)
    x = torch.randn(20, 2, 3, dtype=dtype)
    weights = list(net.parameters())
    wide = torch.complex64 if dtype == torch.float32 else torch.complex128
    expected, end = rotating_by_a_loop(net, x, torch.zeros(2, 8, dtype=wide))
    of_loop = torch.autograd.grad(expected.square().sum(), weights)
    whole, (state,) = net(x)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(state[0], end)
    first, carried = net(x[:7])
    second, _ = net(x[7:], carried)
    torch.testing.assert_close(torch.cat([first, second]), expected)
    step, _ = net.step(x[7], carried)
    torch.testing.assert_close(step, expected[7])
    for kept in (math.inf, 1):
        monkeypatch.setattr(nn.checkpointing, "CHUNK_ELEMENTS", {"cpu": 64})
        monkeypatch.setattr(nn.checkpointing, "PIECES_KEPT", kept)
        found = torch.autograd.grad(net(x)[0].square().sum(), weights)
        torch.testing.assert_close(found, of_loop)


def model_with_cell(returned, gates=None):
    """Return a model whose cell returns ``returned(gate)``."""
    body = {"cell": lambda self, gate: returned(gate), "gates": gates or {"gate": "xb"}}
    return type("Mine", (nn.LinearSurrogateRNN,), body)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda g: g, "the cell of Mine must return (a, u, read-out or None), not Tensor"),
        (lambda g: (g, g), "the cell of Mine must return (a, u, read-out or None), not 2 values"),
        (lambda g: (0.5, g, None), "must return a tensor as a, not 0.5"),
        (lambda g: (g, None, None), "must return a tensor as u, not None"),
        (lambda g: (g, g, g), "must return a function of c as read-out, not Tensor"),
        (lambda g: (g, g + 1j, None), "has complex states, so it must return a read-out with real"),
    ],
)
def test_a_wrong_return_value_of_a_cell_is_refused(returned, message):
    with pytest.raises(TypeError) as error:
        model_with_cell(returned)(3, 4)(torch.randn(5, 2, 3))
    assert message in str(error.value)


def test_a_class_without_gates_and_a_complex_state_for_a_real_cell_are_refused():
    without = type("Mine", (nn.LinearSurrogateRNN,), {"cell": lambda self, g: (g, g, None)})
    with pytest.raises(TypeError, match="Mine has no gates: it needs a class attribute such as"):
        without(3, 4)
    state = (torch.zeros(1, 2, 4, dtype=torch.complex64),)
    with pytest.raises(TypeError, match=r"the state is torch.complex64, but the cell of GILR"):
        nn.GILR(3, 4)(torch.randn(5, 2, 3), state)


@pytest.mark.parametrize("index", [3, -1])
@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_a_token_out_of_range_is_named(make, index):
    tokens = torch.tensor([[0, 1], [2, index]])
    with pytest.raises(IndexError, match=f"token {index} is out of range: .* from 0 to 2"):
        make(3, 4)(tokens)


MODELS = list(nn.MODELS.values())


@pytest.mark.parametrize("make", MODELS)
def test_shapes_are_known_on_the_meta_device(make):
    net = make(6, 16, 2, device="meta")
    output, state = net(torch.empty(9, 3, 6, device="meta"))
    expected, state_of = make(6, 16, 2)(torch.randn(9, 3, 6))
    assert output.shape == expected.shape and output.is_meta
    assert [part.shape for part in state] == [part.shape for part in state_of]
    output.sum().backward()
    assert all(weight.grad.shape == weight.shape for weight in net.parameters())


def replica(net):
    """Return a replica like those of torch.nn.parallel.replicate: tensors replace parameters."""
    copies = {module: module._replicate_for_data_parallel() for module in net.modules()}
    for module, copied in copies.items():
        for name, child in module._modules.items():
            copied._modules[name] = copies.get(child)
        for name, weight in module._parameters.items():
            setattr(copied, name, None if weight is None else weight * 1)
    return copies[net]


@pytest.mark.parametrize("make", MODELS)
def test_a_replica_without_parameters_computes_the_same(make):
    torch.manual_seed(0)
    net, x = make(3, 4, 2), torch.randn(5, 2, 3)
    with torch.no_grad():
        state = net(x)[1]
    copied = replica(net)
    assert not list(copied.parameters())
    weights = list(net.parameters())
    found = []
    for one in (net, copied):
        output, _ = one(x, state)
        output = output + one(x)[0]
        found.append([output, *torch.autograd.grad(output.square().sum(), weights)])
    torch.testing.assert_close(found[1], found[0])


def test_an_error_names_the_model_without_weights():
    net = nn.GILR(3, 4)
    net.layers = torch_nn.ModuleList()
    with pytest.raises(RuntimeError, match="GILR has no weights"):
        net(torch.randn(5, 2, 3))
