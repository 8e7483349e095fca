"""The models of the paper, each a surrogate and a cell; 1 - sigmoid(z) is sigmoid(-z)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lrscan.core.checks import said
from lrscan.nn.fused import fused
from lrscan.nn.inputs import Window
from lrscan.nn.surrogate import LinearSurrogateRNN, ReadOut

Update = tuple[Tensor, Tensor, ReadOut | None]


class GILR(LinearSurrogateRNN):
    """Gated impulse linear recurrent layer: no surrogate, the gates see x alone.

        g[t] = sigmoid(U x[t] + b_g)        i[t] = tau(V x[t] + b_i)
        h[t] = g[t] * h[t-1] + (1 - g[t]) * i[t]

    Args:
        activation: tau; default tanh
        others:     as for :class:`LinearSurrogateRNN`

    Source: Martin and Cundy 2018, section 3.1.
    """

    gates = {"forget": "xb", "impulse": "xb"}

    def __init__(
        self, *args: Any, activation: Callable[[Tensor], Tensor] = torch.tanh, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.activation = activation

    @fused("gilr")
    def cell(self, forget: Tensor, impulse: Tensor) -> Update:
        return torch.sigmoid(forget), torch.sigmoid(-forget) * self.activation(impulse), None

    def extra_repr(self) -> str:
        return super().extra_repr() + _shown(self.activation, torch.tanh)


class GILRLSTM(LinearSurrogateRNN):
    """The paper's LSTM with a GILR as its surrogate.

        st = GILR(x)
        f, i, o = sigmoid(U st[t-1] + V x[t] + b)        z = tanh(U_z st[t-1] + V_z x[t] + b_z)
        c[t] = f[t] * c[t-1] + i[t] * z[t]               h[t] = o[t] * c[t]

    Source: Martin and Cundy 2018, section 3.3.
    """

    surrogate = GILR
    gates = {"forget": "xsb", "input": "xsb", "output": "xsb", "candidate": "xsb"}

    @fused("gilr-lstm")
    def cell(self, forget: Tensor, input: Tensor, output: Tensor, candidate: Tensor) -> Update:
        u = torch.sigmoid(input) * torch.tanh(candidate)
        return torch.sigmoid(forget), u, lambda c: torch.sigmoid(output) * c


class QRNN(LinearSurrogateRNN):
    """Quasi-recurrent net with fo-pooling: its surrogate is a window of past inputs.

        z = tanh(conv(x))      f, o = sigmoid(conv(x))      conv(x)[t] sees x[t-k+1], ..., x[t]
        c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t]            h[t] = o[t] * c[t]

    Args:
        window: k, how many steps the convolution sees, x[t] included
        others: as for :class:`LinearSurrogateRNN`

    Source: Bradbury, Merity, Xiong and Socher 2017, arXiv:1611.01576, section 2.1.
    """

    gates = {"forget": "xsb", "output": "xsb", "candidate": "xsb"}

    def __init__(
        self, input_size: int, hidden_size: int, *args: Any, window: int = 2, **options: Any
    ) -> None:
        if not isinstance(window, int) or isinstance(window, bool) or window < 1:
            raise ValueError(f"window must be a positive int, not {said(window)}")
        self.window = window
        if window == 1:
            self.gates = dict.fromkeys(type(self).gates, "xb")
        super().__init__(input_size, hidden_size, *args, **options)

    def make_surrogate(self, input_size: int, **placed: Any) -> nn.Module | None:
        return Window(input_size, self.window - 1) if self.window > 1 else None

    def cell(self, forget: Tensor, output: Tensor, candidate: Tensor) -> Update:
        u = torch.sigmoid(-forget) * torch.tanh(candidate)
        return torch.sigmoid(forget), u, lambda c: torch.sigmoid(output) * c

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, window={self.window}"


class StronglyTypedRNN(LinearSurrogateRNN):
    """The strongly typed LSTM: its surrogate is the input before, st[t-1] = x[t-1].

        z = V_z x[t-1] + W_z x[t] + b_z
        f = sigmoid(V_f x[t-1] + W_f x[t] + b_f)      o = tanh(V_o x[t-1] + W_o x[t] + b_o)
        c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t]      h[t] = o[t] * c[t]

    Source: Balduzzi and Ghifary 2016, arXiv:1602.02218, section 3 (T-LSTM, tau = tanh).
    """

    gates = {"forget": "xsb", "output": "xsb", "candidate": "xsb"}

    def make_surrogate(self, input_size: int, **placed: Any) -> nn.Module:
        return Window(input_size)

    def cell(self, forget: Tensor, output: Tensor, candidate: Tensor) -> Update:
        u = torch.sigmoid(-forget) * candidate
        return torch.sigmoid(forget), u, lambda c: torch.tanh(output) * c


class SRU(LinearSurrogateRNN):
    """Simple recurrent unit, first version: no surrogate, and the input skips to the output.

        xt = W x[t]      f = sigmoid(W_f x[t] + b_f)      r = sigmoid(W_r x[t] + b_r)
        c[t] = f[t] * c[t-1] + (1 - f[t]) * xt[t]         h[t] = r[t] * g(c[t]) + (1 - r[t]) * x[t]

    Where input and hidden size differ the last x[t] is W_s x[t], without a bias.

    Args:
        activation: g; None, as in the paper, for the identity
        others:     as for :class:`LinearSurrogateRNN`

    Source: Lei and Zhang 2017, arXiv:1709.02755v1, section 2.
    """

    gates = {"candidate": "x", "forget": "xb", "reset": "xb", "skip": "i"}

    def __init__(
        self, *args: Any, activation: Callable[[Tensor], Tensor] | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.activation = activation

    def cell(self, candidate: Tensor, forget: Tensor, reset: Tensor, skip: Tensor) -> Update:
        def read_out(c: Tensor) -> Tensor:
            g = c if self.activation is None else self.activation(c)
            return torch.sigmoid(reset) * g + torch.sigmoid(-reset) * skip

        return torch.sigmoid(forget), torch.sigmoid(-forget) * candidate, read_out

    def extra_repr(self) -> str:
        return super().extra_repr() + _shown(self.activation, None)


def _shown(activation: Callable | None, default: Callable | None) -> str:
    """Of a function that is no module, which torch shows by itself."""
    if activation is default or isinstance(activation, nn.Module):
        return ""
    return f", activation={getattr(activation, '__name__', activation)}"
