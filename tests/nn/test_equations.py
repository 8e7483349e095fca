"""Each model against its equations, written as a loop over time in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import sigmoid, tanh

from lrscan.nn import GILR, GILRLSTM, QRNN, SRU, LinearSurrogateRNN, SerialLSTM, StronglyTypedRNN

T, B, M, N = 23, 3, 5, 4


class SurrogateGRU(LinearSurrogateRNN):
    surrogate = GILR
    gates = {"forget": "xsb", "reset": "xsb", "new": "xb", "recall": "s"}

    def cell(self, forget, reset, new, recall):
        candidate = tanh(new + sigmoid(reset) * recall)
        return sigmoid(forget), sigmoid(-forget) * candidate, None


def split(tensor, count):
    return tensor.split(tensor.shape[0] // count)


def gilr_loop(layer, x):
    (Wg, Wi), (bg, bi) = split(layer.weight_x, 2), split(layer.bias, 2)
    h, states = x.new_zeros(B, Wg.shape[0]), []
    for x_t in x:
        g, i = sigmoid(x_t @ Wg.T + bg), tanh(x_t @ Wi.T + bi)
        h = g * h + (1 - g) * i
        states.append(h)
    return torch.stack(states)


def gilr_lstm_loop(layer, x):
    st = gilr_loop(layer.surrogate.layers[0], x)
    V, U, b = (split(p, 4) for p in (layer.weight_x, layer.weight_s, layer.bias))
    before, c, out = x.new_zeros(B, N), x.new_zeros(B, N), []
    for x_t, st_t in zip(x, st, strict=True):
        f, i, o, z = (x_t @ V[k].T + before @ U[k].T + b[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(z)
        out.append(sigmoid(o) * c)
        before = st_t
    return torch.stack(out)


def surrogate_gru_loop(layer, x):
    st = gilr_loop(layer.surrogate.layers[0], x)
    V, U, b = split(layer.weight_x, 3), split(layer.weight_s, 3), split(layer.bias, 3)
    before, h, out = x.new_zeros(B, N), x.new_zeros(B, N), []
    for x_t, st_t in zip(x, st, strict=True):
        f = sigmoid(x_t @ V[0].T + before @ U[0].T + b[0])
        r = sigmoid(x_t @ V[1].T + before @ U[1].T + b[1])
        h = f * h + (1 - f) * tanh(x_t @ V[2].T + b[2] + r * (before @ U[2].T))
        out.append(h)
        before = st_t
    return torch.stack(out)


def convolution(layer, x, window):
    """Return the gates of a QRNN, (T, B, 3, N), from torch's convolution of a padded sequence."""
    width = x.shape[-1]
    lags = [layer.weight_x] if window == 1 else [layer.weight_x, *layer.weight_s.split(width, 1)]
    kernel = torch.stack(lags[::-1], -1)  # oldest first
    gates = F.conv1d(F.pad(x.permute(1, 2, 0), (window - 1, 0)), kernel, layer.bias)
    return gates.permute(2, 0, 1).unflatten(-1, (3, N))


def qrnn_loop(layer, x, window=2, candidate=tanh, output=sigmoid):
    c, out = x.new_zeros(B, N), []
    for gates in convolution(layer, x, window):
        f, o, z = sigmoid(gates[:, 0]), output(gates[:, 1]), candidate(gates[:, 2])
        c = f * c + (1 - f) * z
        out.append(o * c)
    return torch.stack(out)


def strongly_typed_loop(layer, x):
    return qrnn_loop(layer, x, 2, candidate=lambda z: z, output=tanh)


def sru_loop(layer, x):
    W, Wf, Wr = split(layer.weight_x, 3)
    bf, br = split(layer.bias, 2)
    c, out = x.new_zeros(B, N), []
    for x_t in x:
        f, r = sigmoid(x_t @ Wf.T + bf), sigmoid(x_t @ Wr.T + br)
        c = f * c + (1 - f) * (x_t @ W.T)
        skip = x_t if layer.weight_i is None else x_t @ layer.weight_i.T
        out.append(r * c + (1 - r) * skip)
    return torch.stack(out)


def serial_lstm_loop(layer, x):
    V, U, b = (split(p, 4) for p in (layer.weight_x, layer.weight_s, layer.bias))
    h, c, out = x.new_zeros(B, N), x.new_zeros(B, N), []
    for x_t in x:
        f, i, o, z = (x_t @ V[k].T + h @ U[k].T + b[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(z)
        h = sigmoid(o) * c
        out.append(h)
    return torch.stack(out)


CASES = {
    "GILR": (GILR, {}, gilr_loop),
    "GILRLSTM": (GILRLSTM, {}, gilr_lstm_loop),
    "QRNN-1": (QRNN, {"window": 1}, lambda layer, x: qrnn_loop(layer, x, 1)),
    "QRNN-2": (QRNN, {}, qrnn_loop),
    "QRNN-5": (QRNN, {"window": 5}, lambda layer, x: qrnn_loop(layer, x, 5)),
    "StronglyTypedRNN": (StronglyTypedRNN, {}, strongly_typed_loop),
    "SRU": (SRU, {}, sru_loop),
    "SerialLSTM": (SerialLSTM, {}, serial_lstm_loop),
    "SurrogateGRU": (SurrogateGRU, {}, surrogate_gru_loop),
}


@pytest.mark.parametrize("algorithm", ["serial", "blocked", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_is_its_equations_with_gradients(name, algorithm):
    make, options, loop = CASES[name]
    torch.manual_seed(0)
    for width in (M, N):  # with equal sizes the skip of the SRU is the input itself
        model = make(width, N, 2, dtype=torch.float64, algorithm=algorithm, **options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
        x = torch.randn(T, B, width, dtype=torch.float64, requires_grad=True)
        weights = torch.randn(T, B, N, dtype=torch.float64)
        expected = x
        for layer in model.layers:
            expected = loop(layer, expected)
        output, _ = model(x)
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
        inputs = [x, *model.parameters()]
        got = torch.autograd.grad((output * weights).sum(), inputs)
        wanted = torch.autograd.grad((expected * weights).sum(), inputs)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_an_output_depends_on_no_later_input(name):
    make, options, _ = CASES[name]
    model = make(M, N, 2, dtype=torch.float64, **options)
    x = torch.randn(T, B, M, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model(x)[0][9].sum(), x)[0]
    assert (gradient[10:] == 0).all() and (gradient[:10] != 0).any(-1).all()


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_window_of_k_reads_k_steps(window):
    """A closed forget gate removes everything else of the past."""
    model = QRNN(M, N, window=window, dtype=torch.float64)
    model.reset_parameters(forget_bias=-1e9)
    x = torch.randn(T, B, M, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model(x)[0][9].sum(), x)[0]
    seen = (gradient != 0).any(-1).all(-1).nonzero().flatten().tolist()
    assert seen == list(range(10 - window, 10))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("m", "n"), [(3, 7), (8, 8), (128, 64)])
def test_parameter_counts_are_those_of_the_equations(m, n):
    lstm = 4 * n * (n + m) + 4 * n
    assert count(SerialLSTM(m, n)) == lstm
    # The surrogate adds V_g and V_j, n by m each, and two biases. The paper counts 2 n (n + m) more
    # weights than in the LSTM; its own equations give 2 n m.
    assert count(GILRLSTM(m, n)) == lstm + 2 * n * m + 2 * n
    assert count(GILR(m, n)) == 2 * n * m + 2 * n
    assert count(SRU(m, n)) == 3 * n * m + 2 * n + (n * m if m != n else 0)
    assert count(QRNN(m, n, window=4)) == 4 * 3 * n * m + 3 * n
    assert count(StronglyTypedRNN(m, n)) == 2 * 3 * n * m + 3 * n
    assert count(torch.nn.LSTM(m, n)) == lstm + 4 * n  # two biases


@pytest.mark.parametrize("name", [name for name in CASES if name != "SerialLSTM"])
def test_serial_and_parallel_differ_in_one_argument(name):
    make, options, _ = CASES[name]
    model = make(M, N, 2, **options)
    x = torch.randn(5000, 2, M)
    outputs = []
    for algorithm in ("serial", "blocked"):
        model.algorithm = algorithm
        outputs.append(model(x)[0])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
