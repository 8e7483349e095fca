"""The LSTM as the paper writes it: a loop over time, the serial rival of GILR-LSTM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrscan.core.dtypes import state_dtype
from lrscan.core.time_axis import current
from lrscan.nn.init import reset_gates
from lrscan.nn.inputs import Input, product
from lrscan.nn.sequences import Sequences
from lrscan.nn.stack import RecurrentStack, State

_GATES = ("forget", "input", "output", "candidate")


class SerialLSTM(RecurrentStack):
    """The paper's LSTM, whose every step waits for h of the one before.

        f, i, o = sigmoid(U h[t-1] + V x[t] + b)        z = tanh(U_z h[t-1] + V_z x[t] + b_z)
        c[t] = f[t] * c[t-1] + i[t] * z[t]              h[t] = o[t] * c[t]

    ``torch.nn.LSTM``, which runs cuDNN on a GPU, has h[t] = o[t] * tanh(c[t]) and a second bias.

    Takes the arguments of :class:`lrscan.nn.LinearSurrogateRNN`; ``algorithm`` changes nothing.
    The state is ``(h, c)``.

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 3.3.
    """

    def make_layer(self, input_size: int, **placed: Any) -> SerialLSTMLayer:
        return SerialLSTMLayer(input_size, self.hidden_size, **placed)

    def run_layer(self, layer: SerialLSTMLayer, x: Input, state: State) -> tuple[Tensor, State]:
        if current().split:
            raise RuntimeError("a serial LSTM cannot be split over time: no surrogate feeds it")
        return layer(x, state)

    def lies_end_to_end(self) -> bool:
        return type(self).run_layer is SerialLSTM.run_layer and all(
            type(layer) is SerialLSTMLayer for layer in self.layers
        )

    def reset_parameters(self, **options: Any) -> None:
        """As :meth:`lrscan.nn.LinearSurrogateRNN.reset_parameters`, without its surrogate."""
        super().reset_parameters(**options)


class SerialLSTMLayer(nn.Module):
    """One layer and direction; parameters laid out as in SurrogateLayer, with h in st's place."""

    def __init__(self, input_size: int, hidden_size: int, **placed: Any) -> None:
        super().__init__()
        n = hidden_size
        self.state_sizes = (n, n)
        self.weight_x = nn.Parameter(torch.empty(4 * n, input_size, **placed))
        self.weight_s = nn.Parameter(torch.empty(4 * n, n, **placed))
        self.bias = nn.Parameter(torch.empty(4 * n, **placed))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{self.weight_x.shape[1]}, {self.state_sizes[0]}"

    def forward(self, x: Input, state: State) -> tuple[Tensor, State]:
        """Outputs (T, B, n) of all steps, and the state after the last."""
        of_x = product(self.weight_x, x, self.bias)
        time = current()
        if not isinstance(time, Sequences):
            output, state, _ = self._loop(of_x, state)
            return output, state
        order, back, sizes = time.by_time()
        outputs, state, ended = self._loop(of_x[order.to(of_x.device), 0].split(sizes), state)
        ends = zip(state, *reversed(ended), strict=True)  # those that went on come before
        return outputs[back.to(of_x.device)].unsqueeze(1), tuple(map(torch.cat, ends))

    def _loop(self, of_x: Iterable[Tensor], state: State) -> tuple[Tensor, State, list[State]]:
        """Outputs of all steps, the state at the end, and states of sequences that ended before.

        A step of fewer sequences than the one before has the first of them.
        """
        h, c = state
        outputs: list[Tensor] = []
        ended: list[State] = []
        for of_x_t in of_x:
            if (left := len(of_x_t)) < len(h):
                ended.append((h[left:], c[left:]))
                h, c = h[:left], c[:left]
            gates = of_x_t + F.linear(h.to(self.bias.dtype), self.weight_s)
            f, i, o, z = gates.to(state_dtype(gates.dtype)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
            h = torch.sigmoid(o) * c
            outputs.append(h.to(self.bias.dtype))
        if not outputs:
            return self.bias.new_empty(0, *h.shape), (h, c), ended
        together = torch.cat if ended else torch.stack
        return together(outputs), (h, c), ended

    def reset_parameters(self, **options: Any) -> None:
        """Draw all parameters again."""
        weights = [self.weight_x, self.weight_s]
        reset_gates(weights, self.bias, self.state_sizes[0], _GATES, _GATES, **options)
