"""The models of the paper, each a surrogate and a cell. They use 1 - sigmoid(z) = sigmoid(-z)."""

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
    """Gated impulse linear recurrent layer, without a surrogate: its gates read only x.

    Equations::

        g[t] = sigmoid(U x[t] + b_g)        i[t] = tau(V x[t] + b_i)
        h[t] = g[t] * h[t-1] + (1 - g[t]) * i[t]

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (h,), with h of (layers * directions, B, n)

    Args:
        args, options: as for :class:`LinearSurrogateRNN`
        activation: tau, by default tanh

    Example:
        >>> import torch
        >>> from lrscan.nn import GILR
        >>> output, (h,) = GILR(3, 4, num_layers=2)(torch.randn(100, 8, 3))
        >>> output.shape, h.shape
        (torch.Size([100, 8, 4]), torch.Size([2, 8, 4]))

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
        return super().extra_repr() + _activation_repr(self.activation, torch.tanh)


class GILRLSTM(LinearSurrogateRNN):
    """The paper's LSTM with a GILR as its surrogate.

    Equations::

        st = GILR(x)
        f, i, o = sigmoid(U st[t-1] + V x[t] + b)        z = tanh(U_z st[t-1] + V_z x[t] + b_z)
        c[t] = f[t] * c[t-1] + i[t] * z[t]               h[t] = o[t] * c[t]

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (st, c), each (layers * directions, B, n)

    The arguments are those of :class:`LinearSurrogateRNN`.

    Example:
        >>> import torch
        >>> from lrscan.nn import GILRLSTM
        >>> net, x = GILRLSTM(3, 4), torch.randn(100, 8, 3)
        >>> first, state = net(x[:60])
        >>> second, state = net(x[60:], state)
        >>> torch.allclose(torch.cat([first, second]), net(x)[0], atol=1e-5)
        True

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

    Equations::

        z = tanh(conv(x))      f, o = sigmoid(conv(x))      conv(x)[t] reads x[t-k+1], ..., x[t]
        c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t]            h[t] = o[t] * c[t]

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (past inputs, c): (layers * directions, B, (k - 1) * largest input width of
                a layer) and (layers * directions, B, n); only (c,) for k = 1

    Args:
        input_size: m
        hidden_size: n
        window: k, the number of steps that the convolution reads, x[t] included
        args, options: as for :class:`LinearSurrogateRNN`

    Raises:
        ValueError: ``window`` is not a positive int

    Example:
        >>> import torch
        >>> from lrscan.nn import QRNN
        >>> output, (past, c) = QRNN(3, 4, window=3)(torch.randn(100, 8, 3))
        >>> past.shape, c.shape  # past: the last two inputs of each sequence
        (torch.Size([1, 8, 6]), torch.Size([1, 8, 4]))

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
    """Strongly typed LSTM: its surrogate is the previous input, st[t-1] = x[t-1].

    Equations::

        z = V_z x[t-1] + W_z x[t] + b_z
        f = sigmoid(V_f x[t-1] + W_f x[t] + b_f)      o = tanh(V_o x[t-1] + W_o x[t] + b_o)
        c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t]      h[t] = o[t] * c[t]

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (last input, c): (layers * directions, B, largest input width of a layer)
                and (layers * directions, B, n)

    The arguments are those of :class:`LinearSurrogateRNN`.

    Example:
        >>> import torch
        >>> from lrscan.nn import StronglyTypedRNN
        >>> net = StronglyTypedRNN(3, 4, bidirectional=True)
        >>> output, (last, c) = net(torch.randn(100, 8, 3))
        >>> output.shape, last.shape
        (torch.Size([100, 8, 8]), torch.Size([2, 8, 3]))

    Source: Balduzzi and Ghifary 2016, arXiv:1602.02218, section 3 (T-LSTM, tau = tanh).
    """

    gates = {"forget": "xsb", "output": "xsb", "candidate": "xsb"}

    def make_surrogate(self, input_size: int, **placed: Any) -> nn.Module:
        return Window(input_size)

    def cell(self, forget: Tensor, output: Tensor, candidate: Tensor) -> Update:
        u = torch.sigmoid(-forget) * candidate
        return torch.sigmoid(forget), u, lambda c: torch.tanh(output) * c


class SRU(LinearSurrogateRNN):
    """Simple recurrent unit, first version: no surrogate, and a skip from input to output.

    Equations::

        xt = W x[t]      f = sigmoid(W_f x[t] + b_f)      r = sigmoid(W_r x[t] + b_r)
        c[t] = f[t] * c[t-1] + (1 - f[t]) * xt[t]         h[t] = r[t] * g(c[t]) + (1 - r[t]) * x[t]

    If input size and hidden size differ, the last x[t] is W_s x[t], without a bias.

    Shapes::

        input   (T, B, m)
        output  (T, B, n)
        state   (c,), with c of (layers * directions, B, n)

    Args:
        args, options: as for :class:`LinearSurrogateRNN`
        activation: g; None, as in the paper, for the identity

    Example:
        >>> import torch
        >>> from lrscan.nn import SRU
        >>> net, state = SRU(3, 4), None
        >>> for x_t in torch.randn(5, 8, 3):
        ...     output, state = net.step(x_t, state)
        >>> output.shape
        torch.Size([8, 4])

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
        return super().extra_repr() + _activation_repr(self.activation, None)


def _activation_repr(activation: Callable | None, default: Callable | None) -> str:
    """Return a repr of an activation that is a function; torch shows modules by itself."""
    if activation is default or isinstance(activation, nn.Module):
        return ""
    return f", activation={getattr(activation, '__name__', activation)}"
