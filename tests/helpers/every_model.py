"""Every model, and a second QRNN with a wider window."""

import pytest

from lrscan import nn

MODELS = nn.MODELS | {"QRNN-4": lambda *sizes, **given: nn.QRNN(*sizes, window=4, **given)}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
# The models whose recurrences are linear.
LINEAR = {
    name: model for name, model in nn.MODELS.items() if issubclass(model, nn.LinearSurrogateRNN)
}
