"""The framework of the paper: recurrent nets whose steps read a linear surrogate of the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lrscan.nn.checkpointing import chunk_steps
from lrscan.nn.inputs import Input, Window
from lrscan.nn.layer import SurrogateLayer
from lrscan.nn.stack import RecurrentStack, State

ReadOut = Callable[[Tensor], Tensor]


class LinearSurrogateRNN(RecurrentStack):
    """``s[t] = f(st[t-1], x[t])``: a recurrent net whose steps read a linear surrogate st.

    The state of an RNN has two roles: it is the input of the next step, and it is the output. In a
    linear surrogate RNN the state is only the output. The next step reads a surrogate instead,
    which is computed from x alone by a linear recurrence. So all steps can be evaluated in
    parallel over time. A model is a subclass with three parts::

        surrogate   computes st from x: None, GILR, Window, or a module of your own
        gates       the terms that the cell reads: products of x[t] and st[t-1] with weights,
                    for all steps at once
        cell        maps the gates to (a, u, read-out) of the model's own linear state,

                        c[t] = a[t] * c[t-1] + u[t]        h[t] = read-out(c[t])

    ``gates`` maps the name of each gate to letters for the terms that it adds up: ``x`` for V x[t],
    ``s`` for U st[t-1], and ``b`` for a bias. The single letter ``i`` stands for the input itself,
    or for a projection of it without a bias if input and hidden size differ. The gates named
    "forget", "input" and "candidate" are those whose biases :meth:`reset_parameters` sets.

    ``cell`` receives the gates by position, each (T, B, n). It must compute every step
    independently of all others. The read-out is a function of c; None means h = c. If a or u is
    complex, so is c, and the read-out must return real numbers.

    ``surrogate`` is None, or a class or function that creates a module from
    ``(input_size, hidden_size, device=, dtype=)``; override :meth:`make_surrogate` for one that
    needs other arguments. The module has a ``hidden_size`` and is called as
    ``st, (end,) = module(x, (start,))``. Its whole state, (1, B, hidden_size), is the last st.

    Shapes::

        input   (T, B, m), (B, T, m) with batch_first, or (T, m) without a batch;
                tokens: the same without m
        output  (T, B, n), or (T, B, 2 n) if bidirectional, in the layout of the input
        state   (st, c), or (c,) without a surrogate, each (layers * directions, B, width)

    Matrix products obey autocast. Gates, recurrences and states use at least float32.

    A long sequence is evaluated in chunks with checkpoints: backward evaluates each chunk again,
    with the same random numbers. It is long if steps x batch x hidden units exceed 2^21 on a CPU or
    2^31 on a GPU. If a parameter is modified between forward and backward, backward raises an
    error, as it does for a short sequence. Hooks and other side effects of a cell happen twice.
    ``lrscan.nn.checkpointing.PIECES_KEPT = math.inf`` switches the chunks off for all models.

    Args:
        input_size: m
        hidden_size: n
        num_layers: number of layers, each of which reads the output of the one below
        batch_first, bidirectional, dropout, device, dtype: as for ``nn.LSTM``, but keyword-only
        algorithm: algorithm of both recurrences, see :func:`lrscan.linear_recurrence`

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it and its value

    Example:
        A gated recurrent unit (Cho et al. 2014; with the reset gate after the product, as in
        cuDNN) whose gates read the surrogate:

        >>> import torch
        >>> from lrscan.nn import GILR, LinearSurrogateRNN
        >>> class SurrogateGRU(LinearSurrogateRNN):
        ...     surrogate = GILR
        ...     gates = {"forget": "xsb", "reset": "xsb", "new": "xb", "recall": "s"}
        ...     def cell(self, forget, reset, new, recall):
        ...         candidate = torch.tanh(new + torch.sigmoid(reset) * recall)
        ...         return torch.sigmoid(forget), torch.sigmoid(-forget) * candidate, None
        >>> output, state = SurrogateGRU(8, 16, num_layers=2)(torch.randn(100, 4, 8))
        >>> output.shape, [tuple(part.shape) for part in state]
        (torch.Size([100, 4, 16]), [(2, 4, 16), (2, 4, 16)])

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 3.
    """

    surrogate: ClassVar[Callable[..., nn.Module] | None] = None
    gates: Mapping[str, str]

    # Any, so that a subclass may name its gates as parameters.
    def cell(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, ReadOut | None]:
        """Return (a, u, read-out) for the gates; all tensors are (T, B, n)."""
        raise NotImplementedError(f"{type(self).__name__} has no cell")

    def make_surrogate(self, input_size: int, **placed: Any) -> nn.Module | None:
        """Return the surrogate of one layer, or None."""
        make = type(self).surrogate
        return None if make is None else make(input_size, self.hidden_size, **placed)

    def make_layer(self, input_size: int, **placed: Any) -> SurrogateLayer:
        if not isinstance(getattr(self, "gates", None), Mapping):
            raise TypeError(
                f"{type(self).__name__} has no gates: it needs a class attribute such as "
                'gates = {"forget": "xb", "candidate": "xb"}'
            )
        surrogate = self.make_surrogate(input_size, **placed)
        return SurrogateLayer(self.gates, input_size, self.hidden_size, surrogate, **placed)

    def run_layer(self, layer: SurrogateLayer, x: Input, state: State) -> tuple[Tensor, State]:
        return layer(x, state, self.cell, self.algorithm)

    def accepts_end_to_end(self) -> bool:
        """Return True unless a layer or surrogate of an unknown class may combine steps."""
        if type(self).run_layer is not LinearSurrogateRNN.run_layer:
            return False
        for layer in self.layers:
            own = layer.surrogate if type(layer) is SurrogateLayer else layer
            known = own is None or type(own) is Window or isinstance(own, LinearSurrogateRNN)
            if not known or (isinstance(own, LinearSurrogateRNN) and not own.accepts_end_to_end()):
                return False
        return True

    def chunk_steps(self, x: Input) -> int | None:
        return chunk_steps(x, self.hidden_size)

    def reset_parameters(  # type: ignore[override]  # it names the options of its layers
        self,
        *,
        forget_bias: float | tuple[float, float] = 1.0,
        input_bias: float | None = 0.0,
        input_scale: float = 1.0,
        input_mean: float = 0.0,
        candidate_bias: tuple[float, float] = (0.0, 0.0),
        surrogate: Mapping | None = None,
    ) -> None:
        """Draw all parameters again: Glorot-uniform weights for each gate, and the given biases.

        :func:`lrscan.nn.chrono` and :func:`lrscan.nn.scaled` return such options. Those of
        :func:`lrscan.nn.graded` and :func:`lrscan.nn.early` differ between layers; pass entry k to
        ``model.layers[k].reset_parameters``.

        Args:
            forget_bias: bias of the gate named "forget". A pair (low, high) draws log U(low, high),
                so that memories last low to high steps (Tallec and Ollivier 2018,
                arXiv:1804.11188, with low = 1 and high = T - 1)
            input_bias: bias of the gate named "input"; None for the negative of the forget bias
            input_scale: factor on the weights of x
            input_mean: number added to the weights of x in the gate named "input"
            candidate_bias: low and high of a uniform draw for the gate named "candidate"
            surrogate: the same options for the surrogate
        """
        super().reset_parameters(
            forget_bias=forget_bias,
            input_bias=input_bias,
            input_scale=input_scale,
            input_mean=input_mean,
            candidate_bias=candidate_bias,
            surrogate=surrogate,
        )
