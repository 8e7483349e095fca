"""Backward evaluates the chunks of a long sequence with the net of the forward pass."""

import math

import pytest
import torch
from torch.nn import BatchNorm1d, Module, Parameter
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from lrscan import nn
from lrscan.nn import in_pieces

STEPS = 20


class Net(Module):
    """A recurrent net between an activation and a read-out, with attributes of all types."""

    def __init__(self):
        super().__init__()
        self.gilr, self.head = nn.GILR(3, 32), torch.nn.Linear(32, 2)
        self.scales = [torch.tensor(1.5), {"out": torch.tensor(0.5)}]
        self.register_buffer("mask", torch.ones(3))
        self.squash = torch.tanh
        self.raw = Parameter(torch.randn(3))

    def forward(self, x, state=None):
        x, state = self.gilr(self.squash(x) * self.mask * self.scales[0] * self.raw.exp(), state)
        return self.head(x) * self.scales[1]["out"], state


def weights_made_by_the_net(net):
    """The weight is a plain tensor, computed for every call: weight drop, a hypernetwork."""
    layer = net.gilr.layers[0]
    raw = layer._parameters.pop("weight_x")
    net.made = Parameter(raw.detach().clone())
    layer.weight_x = net.made * 1.0
    return lambda: setattr(layer, "weight_x", net.made * 2.0)


def another_parameter(net):
    return lambda: setattr(net.gilr.layers[0], "bias", Parameter(torch.randn(64)))


def other_data(net):
    """Averaging of weights does this, and so does a move to another device."""

    def change():
        net.gilr.layers[0].weight_x.data = torch.randn(64, 3)

    return change


def another_module(net):
    return lambda: setattr(net, "gilr", nn.GILR(3, 32))


def tensors_in_containers(net):
    def change():
        net.scales[0] = torch.tensor(7.0)
        net.scales[1]["out"] = torch.tensor(8.0)

    return change


def a_buffer_in_place(net):
    return lambda: net.mask.bernoulli_()


def a_function(net):
    return lambda: setattr(net, "squash", torch.sin)


def modes(net):
    return lambda: net.eval()


def a_parametrization(net):
    weight_norm(net.gilr.layers[0], "weight_x")
    return lambda: parametrize.remove_parametrizations(net.gilr.layers[0], "weight_x")


WAYS = [
    weights_made_by_the_net,
    another_parameter,
    other_data,
    another_module,
    tensors_in_containers,
    a_buffer_in_place,
    a_function,
    modes,
    a_parametrization,
]


def made(way):
    """Return (net, input, function that changes the net, parameters of the net)."""
    torch.manual_seed(0)
    net = Net()
    change = way(net)
    return net, torch.randn(STEPS, 4, 3), change, list(net.parameters())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_backward_uses_the_net_of_forward_whatever_changed_in_between(way):
    net, x, _, weights = made(way)
    total = net(x)[0].square().sum()
    expected = torch.autograd.grad(total, weights)
    net, x, change, weights = made(way)
    again, _ = in_pieces(net, x, steps=6, reduce=lambda y, _: y.square().sum())
    change()
    torch.testing.assert_close(again, total)
    for _ in range(2):
        found = torch.autograd.grad(again, weights, retain_graph=True)
        torch.testing.assert_close(found, expected)


def long_ones_are_cut(monkeypatch, yes):
    monkeypatch.setattr(nn.checkpointing, "CHUNK_ELEMENTS", {"cpu": 64})
    monkeypatch.setattr(nn.checkpointing, "PIECES_KEPT", 1 if yes else math.inf)


@pytest.mark.parametrize("make", [nn.GILRLSTM, nn.SRU])
def test_a_functional_call_of_a_long_sequence_uses_its_weights_in_backward_too(make, monkeypatch):
    torch.manual_seed(0)
    net, x = make(3, 32).double(), torch.randn(STEPS, 1, 3, dtype=torch.float64)
    others = {name: (2 * p.detach()).requires_grad_() for name, p in net.named_parameters()}
    found = []
    for yes in (False, True):
        long_ones_are_cut(monkeypatch, yes)
        assert (net.chunk_steps(x) == 2) == yes
        output, _ = torch.func.functional_call(net, others, (x,))
        found.append(torch.autograd.grad(output.square().sum(), list(others.values())))
    torch.testing.assert_close(found[1], found[0])


def test_a_net_updates_its_buffers_once_and_backward_reads_their_old_values():
    torch.manual_seed(0)
    net = torch.nn.Sequential(spectral_norm(torch.nn.Linear(3, 3)), OverBatch(3), nn.GILR(3, 4))
    x, buffers = torch.randn(STEPS, 4, 3), dict(net.named_buffers())
    start = {name: buffer.clone() for name, buffer in buffers.items()}
    whole, _ = in_pieces(net, x, steps=STEPS)
    after = {name: buffer.clone() for name, buffer in buffers.items()}
    found = torch.autograd.grad(whole.square().sum(), list(net.parameters()))
    assert not torch.equal(after["1.running_mean"], start["1.running_mean"])
    for name, buffer in buffers.items():
        assert torch.equal(buffer, after[name]), name
        buffer.copy_(start[name])
    output = x
    for part in net[:2]:
        output = part(output)
    expected = torch.autograd.grad(net[2](output)[0][-1].square().sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)


class OverBatch(BatchNorm1d):
    def forward(self, x):
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def test_a_weight_modified_in_place_is_named():
    net, x, _, weights = made(another_parameter)
    total, _ = in_pieces(net, x, steps=6)
    with torch.no_grad():
        net.gilr.layers[0].weight_x.zero_()
        net.scales[1]["out"].mul_(2)
    message = r"gilr\.layers\.0\.weight_x, scales\.1\.out of the Net was modified in place"
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(total.sum(), weights)
