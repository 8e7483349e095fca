"""Models in one graph: compiling with fullgraph=True or exporting leaves the results the same."""

import subprocess
import sys

import pytest
import torch
from every_model import MODELS, every_model
from torch.export import Dim, export

from lrscan.nn import GILRLSTM, Tokens, checkpointing

T, B, M, N = 13, 3, 6, 32
# The kernels of eager mode add in another order than torch operations do.
close = dict(rtol=2e-5, atol=2e-6)
ways = pytest.mark.parametrize("two", [False, True], ids=["", "bidirectional"])
strictly = pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
# The compiler itself warns.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _reset_the_compiler():
    torch.compiler.reset()


def in_one_graph(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def results(model, call, x):
    """Return the outputs, the states, and the gradients of a function of both."""
    output, state = call(x)
    total = output.square().sum() + sum(part.sin().sum() for part in state)
    found = torch.autograd.grad(total, [x, *model.parameters()])
    return [output, *state, *(gradient / gradient.abs().max() for gradient in found)]


@ways
@every_model
def test_a_compiled_model_is_the_model_with_its_gradients(make, two):
    model, x = make(M, N, 2, bidirectional=two), torch.randn(T, B, M, requires_grad=True)
    expected = results(model, model, x)
    torch.testing.assert_close(results(model, in_one_graph(model), x), expected, **close)


@every_model
def test_a_compiled_step_carries_its_state(make):
    model, state = make(M, N, 2), None
    step = in_one_graph(model.step)
    x = torch.randn(3, B, M)
    with torch.no_grad():
        for x_t in x:
            output, state = step(x_t, state)
        expected, end = model(x)
    torch.testing.assert_close(output, expected[-1], **close)
    torch.testing.assert_close(state, end, **close)


def test_compiled_tokens_and_autocast_are_those_of_eager_torch():
    model = GILRLSTM(M, N, 2, bidirectional=True)
    tokens = Tokens(torch.randint(0, M, (T, B)), torch.randint(0, 2, (T, B)) * 2 - 1)
    torch.testing.assert_close(in_one_graph(model)(tokens), model(tokens), **close)
    x = torch.randn(T, B, M)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # A gate that is rounded in the other direction differs by 2^-8.
        torch.testing.assert_close(in_one_graph(model)(x), model(x), rtol=0.02, atol=0.02)


def test_a_long_input_is_compiled_in_its_chunks(monkeypatch):
    monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": 4 * B * N})
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 1)
    model, x = GILRLSTM(M, N, 2), torch.randn(T, B, M, requires_grad=True)
    assert model.chunk_steps(x) == 4
    expected = results(model, model, x)
    torch.testing.assert_close(results(model, in_one_graph(model), x), expected, **close)


@strictly
@every_model
def test_an_exported_model_is_the_model(make, strict):
    model, x = make(M, N, 2, bidirectional=True), torch.randn(T, B, M)
    exported = export(model, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), model(x), **close)


@strictly
@pytest.mark.parametrize("name", [name for name in MODELS if name != "SerialLSTM"])
def test_an_exported_model_takes_any_number_of_steps_and_sequences(name, strict, monkeypatch):
    """A SerialLSTM does not: it is exported as a loop of a fixed number of steps."""
    monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": 4 * B * N})
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 4)
    model, x = MODELS[name](M, N, 2, bidirectional=True), torch.randn(T, B, M)
    axes = {0: Dim("T", min=3), 1: Dim("B")}  # 3: the widest window looks back 3 steps
    exported = export(model, (x,), dynamic_shapes=(axes,), strict=strict).module()
    for shape in [(3, 2, M), (5 * T, 4, M)]:  # in eager mode one is whole, the other in chunks
        x = torch.randn(shape)
        torch.testing.assert_close(exported(x), model(x), **close)


SHAPES = [(1, 3), (0, 3), (5, 1), (5 * T, 2)]  # in eager mode the last one is cut into chunks


@ways
@pytest.mark.parametrize("name", [name for name in MODELS if name != "SerialLSTM"])
def test_a_traced_model_takes_any_number_of_steps_and_sequences(name, two, monkeypatch):
    """They may differ from those it was traced with. A SerialLSTM is again a fixed loop."""
    monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": 4 * B * N})
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 4)
    model = MODELS[name](M, N, 2, bidirectional=two)
    for example in SHAPES:
        x, tokens = torch.randn(*example, M), torch.randint(0, M, example)
        traced = torch.jit.trace(model, (x,), check_trace=False)
        of_tokens = torch.jit.trace(model, (tokens,), check_trace=False)
        for shape in SHAPES:
            x, tokens = torch.randn(*shape, M), torch.randint(0, M, shape)
            torch.testing.assert_close(traced(x), model(x), **close)
            torch.testing.assert_close(of_tokens(tokens), model(tokens), **close)


def test_the_compiler_is_not_loaded_with_the_models():
    code = "import sys, lrscan.nn; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
