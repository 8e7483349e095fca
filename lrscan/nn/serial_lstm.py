"""The LSTM as in the paper: a loop over time, the serial counterpart of the GILR-LSTM."""

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
    """The paper's LSTM, a serial model: each step waits for h of the step before.

    Equations::

        f, i, o = sigmoid(U h[t-1] + V x[t] + b)        z = tanh(U_z h[t-1] + V_z x[t] + b_z)
        c[t] = f[t] * c[t-1] + i[t] * z[t]              h[t] = o[t] * c[t]

    ``torch.nn.LSTM``, which runs cuDNN on a GPU, has h[t] = o[t] * tanh(c[t]) and a second bias.

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (h, c), each (layers * directions, B, n)

    The arguments are those of :class:`lrscan.nn.LinearSurrogateRNN`; ``algorithm`` has no effect.

    Example:
        >>> import torch
        >>> from lrscan.nn import SerialLSTM
        >>> output, (h, c) = SerialLSTM(3, 4)(torch.randn(100, 8, 3))
        >>> torch.equal(output[-1], h[0])
        True

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 3.3.
    """

    def make_layer(self, input_size: int, **placed: Any) -> SerialLSTMLayer:
        return SerialLSTMLayer(input_size, self.hidden_size, **placed)

    def run_layer(self, layer: SerialLSTMLayer, x: Input, state: State) -> tuple[Tensor, State]:
        if current().split:
            raise RuntimeError(
                "a SerialLSTM cannot be split over time, as each step needs h of the step before"
            )
        return layer(x, state)

    def accepts_end_to_end(self) -> bool:
        return type(self).run_layer is SerialLSTM.run_layer and all(
            type(layer) is SerialLSTMLayer for layer in self.layers
        )

    def reset_parameters(self, **options: Any) -> None:
        """Draw all parameters again.

        The options are those of :meth:`lrscan.nn.LinearSurrogateRNN.reset_parameters`, without
        ``surrogate``.
        """
        super().reset_parameters(**options)


class SerialLSTMLayer(nn.Module):
    """One layer and direction, with parameters as in SurrogateLayer; h replaces st."""

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
        """Return the outputs of all steps, (T, B, n), and the state after the last one."""
        of_x = product(self.weight_x, x, self.bias)
        time = current()
        if not isinstance(time, Sequences):
            output, state, _ = self._loop(of_x, state)
            return output, state
        order, back, sizes = time.by_time()
        outputs, state, ended = self._loop(of_x[order.to(of_x.device), 0].split(sizes), state)
        ends = zip(state, *reversed(ended), strict=True)  # longer sequences come first
        return outputs[back.to(of_x.device)].unsqueeze(1), tuple(map(torch.cat, ends))

    def _loop(self, of_x: Iterable[Tensor], state: State) -> tuple[Tensor, State, list[State]]:
        """Return the outputs, the last state, and the states of sequences that ended earlier.

        If a step has fewer sequences than the step before, it has the first of those.
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
