"""Interface of the models: that of nn.LSTM, with chunks, steps and tokens."""

import copy

import pytest
import torch
import torch.nn.functional as F
from every_model import every_model

from lrscan import nn as models
from lrscan.nn import (
    GILR,
    GILRLSTM,
    QRNN,
    SRU,
    LinearSurrogateRNN,
    SerialLSTM,
    Tokens,
    Window,
    checkpointing,
    chrono,
    early,
    graded,
    scaled,
)
from lrscan.nn.stack import RecurrentStack

T, B, M, N = 19, 3, 6, 5
DOUBLE = {"dtype": torch.float64}
close = dict(rtol=1e-11, atol=1e-11)


def dense(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), **DOUBLE)


@pytest.fixture
def small_chunks(monkeypatch):
    """Make every sequence long enough to be evaluated in chunks."""
    monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": 4 * B * N})
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 1)


def test_the_list_of_models_has_every_model():
    kinds = (getattr(models, name) for name in models.__all__)
    stacks = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, RecurrentStack)]
    assert set(stacks) - {LinearSurrogateRNN} == set(models.MODELS.values())


@every_model
def test_shapes_are_those_of_the_lstm_of_torch(make):
    for two, first in [(False, False), (True, False), (True, True)]:
        model = make(M, N, 2, bidirectional=two, batch_first=first, **DOUBLE)
        theirs = torch.nn.LSTM(M, N, 2, bidirectional=two, batch_first=first, **DOUBLE)
        for shape in [(B, T, M) if first else (T, B, M), (T, M)]:
            output, state = model(dense(*shape))
            expected, (h, _) = theirs(dense(*shape))
            assert output.shape == expected.shape
            assert state[-1].shape == h.shape
            assert model(dense(*shape), state)[0].shape == expected.shape


@every_model
@pytest.mark.parametrize("cuts", [(7,), (1, 2, 18), tuple(range(1, T))], ids=str)
def test_chunks_with_carried_state_are_one_call(make, cuts):
    model, x, state = make(M, N, 2, **DOUBLE), dense(T, B, M), None
    whole, end = model(x)
    parts = []
    for chunk in x.tensor_split(cuts):
        part, state = model(chunk, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts), whole, **close)
    torch.testing.assert_close(state, end, **close)


@every_model
def test_steps_are_one_call(make):
    model, x, state = make(M, N, 2, batch_first=True, **DOUBLE), dense(B, T, M), None
    for t in range(T):
        output, state = model.step(x[:, t], state)
        torch.testing.assert_close(output, model(x)[0][:, t], **close)
    torch.testing.assert_close(state, model(x)[1], **close)


@every_model
def test_the_backward_direction_is_the_forward_one_on_the_reversed_sequence(make):
    model = make(M, N, bidirectional=True, **DOUBLE)
    x = dense(T, B, M)
    output, state = model(x)
    for k in range(2):
        one = make(M, N, **DOUBLE)
        one.layers[0].load_state_dict(model.layers[k].state_dict())
        given = x.flip(0) if k else x
        expected, end = one(given)
        half = output[..., k * N : (k + 1) * N]
        torch.testing.assert_close(half, expected.flip(0) if k else expected, **close)
        torch.testing.assert_close([part[k] for part in state], [part[0] for part in end], **close)
    with pytest.raises(RuntimeError, match="bidirectional"):
        model.step(x[0])


@every_model
@pytest.mark.parametrize("signed", [False, True], ids=["", "signed"])
def test_tokens_are_one_hot_vectors(make, signed):
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(0, M, (T, B), generator=generator)
    sign = 2 * torch.randint(0, 2, (T, B), generator=generator) - 1 if signed else None
    x = F.one_hot(index, M).double() * (sign.unsqueeze(-1) if signed else 1)
    for hidden in (N, M):  # with equal sizes an SRU passes the input through
        model = make(M, hidden, 2, **DOUBLE)
        inputs = list(model.parameters())
        expected, end = model(x)
        wanted = torch.autograd.grad(expected.square().sum(), inputs)
        output, state = model(Tokens(index, sign) if signed else index)
        torch.testing.assert_close(output, expected, **close)
        torch.testing.assert_close(state, end, **close)
        torch.testing.assert_close(torch.autograd.grad(output.square().sum(), inputs), wanted)
        first, state = model(Tokens(index[:2], sign[:2] if signed else None))
        rest, _ = model(Tokens(index[2:], sign[2:] if signed else None), state)
        torch.testing.assert_close(torch.cat([first, rest]), expected, **close)


@every_model
def test_chunks_change_nothing(make, small_chunks, monkeypatch):
    model, x = make(M, N, 2, bidirectional=True, **DOUBLE), dense(T, B, M).requires_grad_()
    results = []
    for kept in (1, 10**9):
        monkeypatch.setattr(checkpointing, "PIECES_KEPT", kept)
        output, state = model(x)
        total = output.square().sum() + sum(part.square().sum() for part in state)
        results.append([output, *torch.autograd.grad(total, [x, *model.parameters()])])
    torch.testing.assert_close(*results, **close)


def test_chunks_keep_only_outputs(small_chunks):
    """A graph saves the inputs and outputs of a long sequence, but not its gates."""
    model, kept = GILRLSTM(M, N), []

    def keep(tensor):
        if tensor.dim() == 3:
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(T, B, M))
    assert all(shape[-1] != 4 * N for shape in kept) and len(kept) < 10


@every_model
def test_gradients_flow_through_the_state(make):
    model = make(M, N, 2, **DOUBLE)
    x = dense(T, B, M).requires_grad_()
    whole = torch.autograd.grad(model(x)[0][-1].sum(), x)[0]
    _, state = model(x[:8])
    parts = torch.autograd.grad(model(x[8:], state)[0][-1].sum(), x)[0]
    torch.testing.assert_close(parts, whole, **close)


def test_dropout_applies_between_layers_and_only_in_training():
    model, x = GILRLSTM(M, 64, 2, dropout=0.5, **DOUBLE), dense(T, B, M)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    plain = GILRLSTM(M, 64, 2, **DOUBLE)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(x)[0], plain(x)[0])
    with pytest.warns(UserWarning, match="dropout=0.5 .* num_layers is 1"):
        one = GILRLSTM(M, 64, 1, dropout=0.5, **DOUBLE)
    assert torch.equal(one(x)[0], one(x)[0])


@every_model
def test_state_dict_and_deep_copies_round_trip(make, tmp_path):
    model, other, x = make(M, N, 2, **DOUBLE), make(M, N, 2, **DOUBLE), dense(T, B, M)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(x)[0], model(x)[0])
    assert torch.equal(copy.deepcopy(model)(x)[0], model(x)[0])


@every_model
def test_half_precision_carries_its_state_in_float32(make):
    exact = make(M, N, 2)
    # An LSTM without a tanh on c is unstable: over a long input it amplifies rounding errors.
    x = dense(T if make is SerialLSTM else 400, B, M).float()
    expected = exact(x)[0]
    model = make(M, N, 2, dtype=torch.bfloat16)
    model.load_state_dict(exact.state_dict())
    output, state = model(x.bfloat16())
    assert output.dtype == torch.bfloat16 and state[-1].dtype == torch.float32
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, state = exact(x)
    assert output.dtype == state[-1].dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)
    output.sum().backward()


def test_a_coefficient_near_one_survives_autocast():
    """sigmoid(9) is 0.99988 but rounds to 1 in bfloat16, where the state would never decay."""
    model = GILR(1, 1)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.reset_parameters(forget_bias=9.0, input_scale=0.0)
    start = (torch.ones(1, 1, 1),)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = model(torch.zeros(5000, 1, 1), start)
    assert abs(output[-1].item() - torch.sigmoid(torch.tensor(9.0)).item() ** 5000) < 0.01


def test_initialisations_are_as_documented():
    model = GILRLSTM(M, 4096)
    bound = (6 / (M + 4096)) ** 0.5
    for weight in model.layers[0].weight_x.split(4096):
        assert 0.99 * bound < weight.abs().max() <= bound
    forget, *others = model.layers[0].bias.split(4096)
    assert (forget == 1).all() and not any(part.any() for part in others)
    model.reset_parameters(**chrono(1000), surrogate={"forget_bias": 3.0})
    forget, input_, *_ = model.layers[0].bias.split(4096)
    assert 1 < forget.exp().min() < 3 and 990 < forget.exp().max() < 999
    assert abs(forget.exp().mean() - 500) < 20 and torch.equal(input_, -forget)
    assert (model.layers[0].surrogate.layers[0].bias[:4096] == 3).all()
    model.reset_parameters(**scaled(1000, 1e-2))
    forget, input_, *_ = model.layers[0].bias.split(4096)
    assert 250 < forget.exp().min() < 270 and 3900 < forget.exp().max() < 4001
    assert torch.allclose(input_, -torch.tensor(10.0).log())
    model.reset_parameters(input_scale=0.5)
    assert model.layers[0].weight_x.abs().max() <= 0.5 * bound
    model.reset_parameters(input_mean=-3.0, candidate_bias=(0.2, 0.5))
    forget, input_, *others = model.layers[0].weight_x.split(4096)
    assert (input_ + 3).abs().max() <= bound + 1e-6
    assert all(weight.abs().max() <= bound for weight in (forget, *others))
    *others, candidate = model.layers[0].bias.split(4096)
    assert 0.2 <= candidate.min() < 0.21 and 0.49 < candidate.max() <= 0.5
    assert not any(part.any() for part in others[1:])


@pytest.mark.parametrize("hidden", [32, 128])
def test_early_writes_only_at_the_start_and_graded_writes_little_at_every_step(hidden):
    torch.manual_seed(0)
    tokens = Tokens(torch.randint(128, (4096, 1)))
    writes = {}
    for name, options in {"early": early(4096, 2, hidden), "graded": graded(4096, 2)}.items():
        model = GILRLSTM(128, hidden, 2)
        for layer_, given in zip(model.layers, options, strict=True):
            layer_.reset_parameters(**given)
        below, above = model.layers
        start = tuple(torch.zeros(1, hidden) for _ in range(2))
        with torch.no_grad():
            h, _ = model.run_layer(below, tokens, start)
            gates, _ = above._gates(h, start)
        of_input = gates.chunk(len(above.x_gates), -1)[above.x_gates.index("input")]
        writes[name] = torch.sigmoid(of_input).mean((1, 2))
    at_first = writes["early"][0]
    assert at_first > 0.3 and writes["early"][256:].sum() < at_first
    assert writes["graded"][0] < 10 / 4096


def test_every_public_name_exists_and_its_repr_shows_sizes():
    assert all(hasattr(models, name) for name in models.__all__)
    assert "6, 5, num_layers=2, dropout=0.1" in repr(GILRLSTM(6, 5, 2, dropout=0.1))
    assert "6, 5, window=3" in repr(QRNN(6, 5, window=3))
    assert "SurrogateLayer(6, 5, forget=xb, impulse=xb)" in repr(GILR(6, 5))
    assert "activation" not in repr(GILR(6, 5)) + repr(SRU(6, 5))
    assert "6, 5, activation=relu" in repr(GILR(6, 5, activation=torch.relu))
    assert "6, 5, activation=tanh" in repr(SRU(6, 5, activation=torch.tanh))
    assert "SerialLSTMLayer(6, 5)" in repr(SerialLSTM(6, 5))


def test_streaming_over_many_steps_equals_one_call():
    model = GILRLSTM(8, 8, 2)
    tokens = torch.randint(0, 8, (10_000, 1))
    state, outputs = None, []
    with torch.no_grad():
        whole, end = model(tokens)
        for token in tokens:
            output, state = model.step(token, state)
            outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, end, rtol=1e-4, atol=1e-5)


def test_a_state_keeps_nothing_but_itself():
    _, state = GILRLSTM(8, 8)(torch.randn(1000, 1, 8))
    assert all(part.untyped_storage().nbytes() == part.numel() * 4 for part in state)


class Without(LinearSurrogateRNN):
    """A model with a surrogate that no gate reads."""

    surrogate = GILR
    gates = {"forget": "xb"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GILRLSTM(0, 4), ValueError, "input_size must be a positive int, not 0"),
        (lambda: GILRLSTM(4, 4.0), ValueError, "hidden_size .* not 4.0"),
        (lambda: GILRLSTM(4, 4, batch_first=1), TypeError, "batch_first .* not 1"),
        (lambda: GILRLSTM(4, 4, dropout=1.5), ValueError, "not 1.5"),
        (lambda: GILRLSTM(4, 4, dropout="0.5"), ValueError, "not '0.5'"),
        (lambda: GILRLSTM(4, 4, dtype="float32"), TypeError, "torch.dtype, not 'float32'"),
        (lambda: GILRLSTM(4, 4, algorithm="fast"), ValueError, "'serial'.*not 'fast'"),
        (lambda: GILRLSTM(4, 4, dtype=torch.int64), TypeError, "torch.int64"),
        (lambda: QRNN(4, 4, window=0), ValueError, "window .* not 0"),
        (lambda: GILRLSTM(4, 4)([1.0]), TypeError, "list"),
        (lambda: GILRLSTM(4, 4)(torch.rand(3, 2, 5)), ValueError, r"input_size is 4.*3, 2, 5"),
        (lambda: GILRLSTM(4, 4)(torch.rand(2, 3, 2, 4)), ValueError, r"3 axes.*2, 3, 2, 4"),
        (lambda: GILRLSTM(4, 4)(torch.rand(3, 2, 4).double()), TypeError, "torch.float64"),
        (lambda: GILRLSTM(4, 4)(torch.zeros(3, 2).to(torch.int8)), TypeError, "torch.int8"),
        (lambda: GILRLSTM(4, 4)(torch.full((3, 2), 4)), IndexError, "out of range"),
        (
            lambda: GILRLSTM(4, 4)(Tokens(torch.zeros(3, 2).long(), torch.ones(3))),
            ValueError,
            r"an index of shape \(3, 2\), but a sign of shape \(3,\)",
        ),
        (
            lambda: GILRLSTM(4, 4)(torch.rand(3, 2, 4), (torch.zeros(1, 2, 4),)),
            ValueError,
            r"\(1, 2, 4\), \(1, 2, 4\)\], not \[\(1, 2, 4\)\]",
        ),
        (
            lambda: GILRLSTM(4, 4)(torch.rand(3, 2, 4), torch.zeros(1, 2, 4)),
            ValueError,
            r"\(1, 2, 4\)\], not Tensor of shape \(1, 2, 4\)$",
        ),
        (lambda: GILR(4, 4)(torch.rand(3, 2, 4), (None,)), ValueError, r"not \['None'\]"),
        (lambda: GILRLSTM(4, 4).step([1.0]), TypeError, "not list"),
        (lambda: GILRLSTM(4, 4).step(torch.rand(3, 2, 4)), ValueError, "2 axes.*not 3"),
        (lambda: Without(4, 4), ValueError, "no gate reads the surrogate, a GILR"),
        (lambda: chrono(2), ValueError, "not 2"),
        (lambda: scaled(5, 0.0), ValueError, "0.0"),
        (lambda: early(100, 1, 8), ValueError, "at least 2 layers, not 1"),
        (lambda: Window(4, 0), ValueError, "steps .* not 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "argument",
    [
        "input_size",
        "hidden_size",
        "num_layers",
        "dropout",
        "bidirectional",
        "batch_first",
        "dtype",
        "window",
    ],
)
@pytest.mark.parametrize("thing", [torch.arange(9999), list(range(9999))], ids=["tensor", "list"])
def test_a_wrong_argument_is_named_and_what_it_holds_is_not_printed(argument, thing):
    with pytest.raises((TypeError, ValueError), match=argument) as refused:
        QRNN(**{"input_size": 3, "hidden_size": 4, argument: thing})
    assert len(str(refused.value)) < 200
