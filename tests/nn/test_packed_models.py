"""Sequences of unequal length in a PackedSequence: each gives the result that it gives alone."""

import pytest
import torch
from every_model import MODELS
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
)

from lrscan.distributed import sequence_parallel
from lrscan.nn import GILRLSTM, checkpointing, in_pieces

M, N = 6, 5
LENGTHS = (3, 7, 1, 7, 2)
DOUBLE = {"dtype": torch.float64}
close = dict(rtol=1e-11, atol=1e-11)
ways = pytest.mark.parametrize("two", [False, True], ids=["", "bidirectional"])


def case(name, two):
    model = MODELS[name](M, N, 2, bidirectional=two, **DOUBLE)
    sequences = [torch.randn(t, M, **DOUBLE).requires_grad_() for t in LENGTHS]
    shape = 2 * (1 + two), len(LENGTHS)
    state = tuple(torch.randn(*shape, w, **DOUBLE).requires_grad_() for w in model.state_sizes)
    return model, sequences, state


def alone(model, sequences, state):
    """Return each sequence's outputs, and all states, (layers * directions, B, width)."""
    results = [model(x, tuple(p[:, k] for p in state)) for k, x in enumerate(sequences)]
    ends = zip(*(end for _, end in results), strict=True)
    return [output for output, _ in results], [torch.stack(parts, 1) for parts in ends]


@ways
@pytest.mark.parametrize("name", MODELS)
def test_each_sequence_is_as_if_it_were_alone_with_its_gradients(name, two):
    model, sequences, state = case(name, two)
    packed, ends = model(pack_sequence(sequences, enforce_sorted=False), state)
    found, expected = (unpack_sequence(packed), ends), alone(model, sequences, state)
    inputs = [*sequences, *state, *model.parameters()]
    gradients = []
    for outputs, ends in (found, expected):
        total = sum(part.sin().sum() for part in (*outputs, *ends))
        gradients.append(torch.autograd.grad(total, inputs))
    torch.testing.assert_close(found[0], expected[0], **close)
    torch.testing.assert_close(list(found[1]), expected[1], **close)
    torch.testing.assert_close(*gradients, **close)


class Delayed(torch.nn.Module):
    """A user-defined linear surrogate that shifts a batch in time."""

    def __init__(self, input_size, hidden_size, **placed):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight = torch.nn.Parameter(torch.randn(hidden_size, input_size, **placed))

    def forward(self, x, state):
        st = torch.cat([state[0], x @ self.weight.T])
        return st[1:], (st[-1:],)


class WithDelay(GILRLSTM):
    surrogate = Delayed


def test_a_user_defined_surrogate_never_receives_sequences_end_to_end():
    model, sequences, state = WithDelay(M, N, 2, **DOUBLE), *case("GILRLSTM", False)[1:]
    packed, ends = model(pack_sequence(sequences, enforce_sorted=False), state)
    expected = alone(model, sequences, state)
    torch.testing.assert_close(unpack_sequence(packed), expected[0], **close)
    torch.testing.assert_close(list(ends), expected[1], **close)


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_is_evaluated_once_without_padding_for_any_number_of_lengths(name):
    model, rows = MODELS[name](M, N, 2), []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:2].numel()))
    lengths = [2000, *range(40, 0, -1)]
    model(pack_sequence([torch.randn(t, M) for t in lengths]))
    assert rows == [sum(lengths)] * 2


@ways
@pytest.mark.parametrize("name", ["GILRLSTM", "QRNN-4"])
def test_chunks_of_packed_sequences_hold_few_steps_and_change_nothing(name, two, monkeypatch):
    model, sequences, state = case(name, two)
    rows, results = [], []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:2].numel()))
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 1)
    for elements in (6 * N, 10**9):
        monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": elements})
        rows.clear()
        packed, ends = model(pack_sequence(sequences, enforce_sorted=False), state)
        total = sum(part.sin().sum() for part in (packed.data, *ends))
        given = [*sequences, *state, *model.parameters()]
        results.append([packed.data, *ends, *torch.autograd.grad(total, given)])
        assert max(rows) <= max(6, elements // N)
    torch.testing.assert_close(*results, **close)


def test_dropout_of_packed_sequences_drops_its_share():
    model = GILRLSTM(M, N, 2, dropout=1.0, **DOUBLE)
    sequences = [torch.randn(t, M, **DOUBLE) for t in LENGTHS]
    packed, _ = model(pack_sequence(sequences, enforce_sorted=False))
    zeros = pack_sequence([torch.zeros(t, N, **DOUBLE) for t in LENGTHS], enforce_sorted=False)
    second = GILRLSTM(N, N, **DOUBLE)
    second.layers[0].load_state_dict(model.layers[1].state_dict())
    torch.testing.assert_close(packed.data, second(zeros)[0].data, **close)


@ways
def test_results_are_packed_like_those_of_the_lstm_of_torch(two):
    model = GILRLSTM(M, N, 2, bidirectional=two, batch_first=True)
    theirs = torch.nn.LSTM(M, N, 2, bidirectional=two, batch_first=True)
    x = pad_sequence([torch.randn(t, M) for t in LENGTHS], batch_first=True)
    for packed in (
        pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False),
        pack_padded_sequence(x, [7, 7, 5, 4, 1], batch_first=True),
    ):
        output, state = model(packed)
        expected, ends = theirs(packed)
        assert isinstance(output, PackedSequence) and output.data.shape == expected.data.shape
        assert [part.shape for part in state] == [part.shape for part in ends]
        padded, lengths = pad_packed_sequence(output, batch_first=True)
        again, same = pad_packed_sequence(expected, batch_first=True)
        assert torch.equal(lengths, same) and torch.equal(padded.any(-1), again.any(-1))


@ways
def test_tokens_chunks_and_zero_states_are_taken(two, monkeypatch):
    monkeypatch.setattr(checkpointing, "CHUNK_ELEMENTS", {"cpu": 2 * N})
    monkeypatch.setattr(checkpointing, "PIECES_KEPT", 1)
    model = GILRLSTM(M, N, 2, bidirectional=two, **DOUBLE)
    sequences = [torch.randint(0, M, (t,)) for t in LENGTHS]
    output, _ = model(pack_sequence(sequences, enforce_sorted=False))
    for sequence, found in zip(sequences, unpack_sequence(output), strict=True):
        torch.testing.assert_close(found, model(sequence)[0], **close)


def test_packed_sequences_that_do_not_fit_are_refused_by_name(tmp_path):
    model = GILRLSTM(M, N)
    packed = pack_sequence([torch.randn(t, M) for t in (3, 2)])
    for x, error, message in [
        (pack_sequence([torch.randn(3, 2, M)]), ValueError, r"for tokens, not \(3, 2, 6\)"),
        (pack_sequence([torch.randn(3, 4)]), ValueError, "input_size is 6"),
    ]:
        with pytest.raises(error, match=message):
            model(x)
    with pytest.raises(ValueError, match=r"\(1, 2, 5\), \(1, 2, 5\)\], not"):
        model(packed, (torch.zeros(1, 3, N),) * 2)
    for call in (model.step, lambda x: in_pieces(model, x, steps=2)):
        with pytest.raises(TypeError, match="not PackedSequence"):
            call(packed)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/at", rank=0, world_size=1)
    try:
        with sequence_parallel(), pytest.raises(RuntimeError, match="packed .* over ranks"):
            model(packed)
    finally:
        torch.distributed.destroy_process_group()
