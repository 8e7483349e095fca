"""Recurrent nets with linear recurrences, called like ``nn.LSTM``: the models of the paper.

Notation::

    st             the surrogate, computed from x by a linear recurrence
    c              the linear state of a cell, c[t] = a[t] * c[t-1] + u[t]
    T, B, m, n     steps, minibatch, input size, hidden size
"""

from lrscan.nn.checkpointing import in_pieces
from lrscan.nn.init import chrono, early, graded, scaled
from lrscan.nn.inputs import Tokens, Window
from lrscan.nn.models import GILR, GILRLSTM, QRNN, SRU, StronglyTypedRNN
from lrscan.nn.serial_lstm import SerialLSTM
from lrscan.nn.stack import RecurrentStack
from lrscan.nn.surrogate import LinearSurrogateRNN

# Every model by the name of its class. Training, warm-up and the tests of all models read this
# dictionary, so a new model needs an entry here and a test of its equations.
MODELS: dict[str, type[RecurrentStack]] = {
    model.__name__: model for model in (GILRLSTM, GILR, SRU, QRNN, StronglyTypedRNN, SerialLSTM)
}

__all__ = [
    "GILR",
    "GILRLSTM",
    "QRNN",
    "SRU",
    "LinearSurrogateRNN",
    "SerialLSTM",
    "StronglyTypedRNN",
    "Tokens",
    "Window",
    "chrono",
    "early",
    "graded",
    "in_pieces",
    "scaled",
]
