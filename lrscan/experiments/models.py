"""Models that are trained and timed, by the names that the paper and the figures use."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

import lrscan.nn as models

LAYERS = 2
# The models of Table 2.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "SRU": models.SRU,
    "QRNN(2)": lambda *sizes, **given: models.QRNN(*sizes, window=2, **given),
    "QRNN(10)": lambda *sizes, **given: models.QRNN(*sizes, window=10, **given),
    "GILR-LSTM": models.GILRLSTM,
}
# Names in figures of the models in records of training.
NAMES = {"GILRLSTM": "GILR-LSTM", "LSTM": "LSTM (torch)", "SerialLSTM": "LSTM (the paper's)"}
