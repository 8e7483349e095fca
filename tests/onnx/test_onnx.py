"""Programs exported to ONNX give in onnxruntime the results that they give in torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_model import MODELS
from torch.nn.utils.rnn import pack_sequence

import lrscan
from lrscan import linear_recurrence, packed_linear_recurrence
from lrscan.nn import GILR

onnxruntime = pytest.importorskip("onnxruntime")
# The exporter warns by itself.
pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
T, B, C, M, N = 5, 2, 3, 6, 32
STEPS_AND_BATCH = {0: "T", 1: "B"}
# The kernels sum in another order than torch's operations. So the float32 numbers that they round
# to half precision differ.
close = dict(rtol=2e-5, atol=2e-6)
half = {torch.float16: dict(rtol=2**-10, atol=1e-6), torch.bfloat16: dict(rtol=2**-7, atol=1e-5)}


class Program(torch.nn.Module):
    """Function to export, and the session that runs the exported program."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)

    def exported(self, inputs, axes=None):
        program = torch.onnx.export(
            self.eval(),
            inputs,
            dynamo=True,
            verbose=False,
            dynamic_shapes=axes and (axes,),
            custom_translation_table=lrscan.onnx.translations(),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # other tests run at the same time
        options.log_severity_level = 3
        model = program.model_proto.SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        return self

    def run(self, *inputs):
        names = (given.name for given in self.session.get_inputs())
        arrays = {name: given.numpy() for name, given in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in self.session.run(None, arrays)]


def operands(steps, batch):
    return torch.rand(steps, batch, C), torch.randn(steps, batch, C), torch.randn(batch, C)


def h(*args, **options):
    return linear_recurrence(*args, **options)


CALLS = {
    "no state": lambda a, x, h0: h(a, x),
    "a state": lambda a, x, h0: h(a, x, h0),
    "one state for all": lambda a, x, h0: h(a, x, h0[0, 0], reverse=True),
    "from the end": lambda a, x, h0: h(a, x, h0, reverse=True),
    "batch first": lambda a, x, h0: h(a.movedim(0, 1), x.movedim(0, 1), h0, dim=1),
    "time last": lambda a, x, h0: h(a.movedim(0, -1), x.movedim(0, -1), h0, dim=-1, reverse=True),
    "one axis": lambda a, x, h0: h(a[:, 0, 0], x[:, 0, 0], h0[0, 0]),
    "a number": lambda a, x, h0: h(0.9, x, h0),
    "a for each feature": lambda a, x, h0: h(h0[0].sigmoid(), x, h0, reverse=True),
    "a for each sequence": lambda a, x, h0: h(a[:1, :, :1], x),
    "a for each step": lambda a, x, h0: h(a[:, :1, :1], x, h0),
    "a of fewer axes": lambda a, x, h0: h(a[:, 0, 0], x.movedim(0, -1), h0, dim=2),
    "x for each step": lambda a, x, h0: h(a, x[:, :, :1], h0),
    "x of no time": lambda a, x, h0: h(a, x[0], h0),
    "float64": lambda a, x, h0: h(a.double(), x.double(), h0.double()),
    "float16": lambda a, x, h0: h(a.half(), x.half(), h0),
    "bfloat16": lambda a, x, h0: h(a, x.bfloat16(), h0.bfloat16()).float(),
}


def each(a, x, h0):
    return [call(a, x, h0) for call in CALLS.values()]


@pytest.fixture(scope="module")
def all_calls():
    return Program(each).exported(operands(T, B), (STEPS_AND_BATCH, STEPS_AND_BATCH, {0: "B"}))


@pytest.mark.parametrize("shape", [(12, 4), (300, 1), (1, 3)], ids=str)
def test_the_operator_agrees_with_torch_in_every_call(all_calls, shape):
    inputs = operands(*shape)
    for name, found, expected in zip(CALLS, all_calls.run(*inputs), each(*inputs), strict=True):
        bounds = half.get(torch.bfloat16 if name == "bfloat16" else expected.dtype, close)
        torch.testing.assert_close(found, expected, **bounds, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def both_directions():
    return Program(lambda *all: [h(*all), h(*all, reverse=True)]).exported(
        operands(T, B), (STEPS_AND_BATCH, STEPS_AND_BATCH, {0: "B"})
    )


def same(program, *inputs):
    """Return the outputs, after a check that torch gives the same."""
    found = program.run(*inputs)
    torch.testing.assert_close(found, program(*inputs), **close, equal_nan=True)
    return found


def test_a_coefficient_of_zero_forgets_nan_and_infinity(both_directions):
    a, x, h0 = operands(50, 4)
    a[::9] = 0
    x[4, 0], x[25, 1], h0[2] = torch.nan, torch.inf, torch.nan
    for found in same(both_directions, a, x, h0):
        assert 0 < found.isfinite().logical_not().sum() < found.numel() / 2
        assert found[:, 3].isfinite().all()


def test_a_zero_forgets_states_that_overflowed(both_directions):
    """States grow to infinity before step 200. In blocks, infinity times the zero there is NaN."""
    a, x, h0 = torch.full((400, B, C), 20.0), torch.zeros(400, B, C), torch.zeros(B, C)
    x[-3:] = x[:3] = 1
    a[200] = 0
    assert same(both_directions, a, x, h0)[0][-1, 0, 0] == 421


@pytest.mark.parametrize("shape", [(0, 3), (7, 0)], ids=str)
def test_no_steps_or_no_sequences_give_an_empty_result(both_directions, shape):
    for found in same(both_directions, *operands(*shape)):
        assert found.shape == (*shape, C)


def models(name):
    """Return a model with all structural options set, and the axes that are open."""
    model = MODELS[name](M, N, 2, bidirectional=True, batch_first=True)
    # A SerialLSTM is a loop with as many steps as the example input has.
    steps = {} if name == "SerialLSTM" else {1: "T"}
    return model, ({0: "B"} | steps, tuple({1: "B"} for _ in model.state_sizes))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_agrees_with_torch_at_any_number_of_steps_and_sequences(name):
    model, axes = models(name)

    def inputs(steps, batch):
        x = torch.randn(batch, steps, M)
        return x, tuple(torch.randn(4, batch, width) for width in model.state_sizes)

    program = Program(model).exported(inputs(T, B), axes)
    for shape in [(3, 1), (40, 4)] if "T" in axes[0].values() else [(T, 1), (T, 4)]:
        x, state = inputs(*shape)
        output, end = model(x, state)
        torch.testing.assert_close(program.run(x, *state), [output, *end], **close)


def test_a_model_starts_from_zero_and_reads_tokens_in_double_precision():
    model = GILR(M, N, dtype=torch.float64)
    tokens = torch.randint(0, M, (T, B))
    program = Program(model).exported((tokens,), (STEPS_AND_BATCH,))
    tokens = torch.randint(0, M, (1, 7))
    output, (end,) = model(tokens)
    torch.testing.assert_close(program.run(tokens), [output, end])


def test_an_error_says_what_to_do_if_there_is_no_translation():
    x = torch.rand(T, B)
    lengths = torch.tensor([0, 2, T])
    with pytest.raises(Exception, match="coefficient of zero.*reset_where"):
        Program(packed_linear_recurrence).exported((x, x, lengths))
    with pytest.raises(Exception, match="x is torch.complex64.*torch.export or torch.jit.trace"):
        Program(lambda x: h(x, x).real).exported((x.to(torch.complex64),))
    packed = pack_sequence([torch.rand(2, M), torch.rand(1, M)])
    with pytest.raises(Exception, match="PackedSequence cannot be exported.*one by one"):
        Program(GILR(M, N)).exported((packed,))


def test_onnxscript_is_imported_only_when_it_is_needed():
    script = (
        "import sys\n"
        "sys.modules['onnxscript'] = None\n"  # makes an import of it fail
        "from lrscan import *\n"
        "try: onnx.translations()\n"
        "except ImportError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "pip install onnx onnxscript" in done.stdout, done.stderr
