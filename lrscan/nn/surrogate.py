"""The paper's framework: a recurrent net whose next step is fed by a linear surrogate."""

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
    """``s[t] = f(st[t-1], x[t])``: every step is fed by a surrogate st that is linear to compute.

    The state of an RNN plays two parts: it feeds the next step, and it is the output. A linear
    surrogate RNN keeps the second and gives the first to a surrogate, which follows from x alone
    by a linear recurrence. Then all steps can be evaluated in parallel over time. A model is

        surrogate   st, made from x:  None, GILR, Window, or any of your own
        gates       what the cell sees of st[t-1] and x[t]: products with weights, for all steps
                    at once
        cell        from the gates to (a, u, read-out) of the model's own linear state,

                        c[t] = a[t] * c[t-1] + u[t]        h[t] = read-out(c[t])

    ``gates`` names each gate with the letters of what it adds up: ``x`` for V x[t], ``s`` for
    U st[t-1], ``b`` for a bias; or ``i``, alone, for the input itself (through a projection
    without bias where input and hidden size differ). ``cell`` gets the gates by position, each
    (T, B, n), and must compute every step by itself; the read-out is a function of c, None for
    h = c. Where a or u is complex, c is, and the read-out must make real numbers of it. The gates
    named "forget" and "input" are those that :meth:`reset_parameters` biases.

    ``surrogate`` is None or makes a module from ``(input_size, hidden_size, device=, dtype=)``.
    The module has a ``hidden_size``; it is called as ``st, (end,) = module(x, (start,))``, where
    its whole state, (1, B, hidden_size), is the last st.

    A gated recurrent unit (Cho et al. 2014; its reset gate after the product, as in cuDNN) whose
    gates look at the surrogate:

    >>> import torch
    >>> class SurrogateGRU(LinearSurrogateRNN):
    ...     surrogate = GILR
    ...     gates = {"forget": "xsb", "reset": "xsb", "new": "xb", "recall": "s"}
    ...     def cell(self, forget, reset, new, recall):
    ...         candidate = torch.tanh(new + torch.sigmoid(reset) * recall)
    ...         return torch.sigmoid(forget), torch.sigmoid(-forget) * candidate, None
    >>> output, state = SurrogateGRU(8, 16, num_layers=2)(torch.randn(100, 4, 8))
    >>> output.shape, [tuple(part.shape) for part in state]
    (torch.Size([100, 4, 16]), [(2, 4, 16), (2, 4, 16)])

    Args:
        input_size, hidden_size, num_layers, batch_first, bidirectional, dropout, device, dtype:
                   as for ``nn.LSTM``; by keyword after the third
        algorithm: how both recurrences are evaluated; see :func:`lrscan.linear_recurrence`

    The state is ``(st, c)``, or ``(c,)`` without a surrogate. Matrix products obey autocast;
    gates and recurrences are computed in float32 at least, and so is the state.

    Long sequences, of more than 2^21 elements of steps x batch x hidden units on a CPU and 2^31 on
    a GPU, are worked through in chunks that are checkpointed: backward evaluates each again, with
    the same random numbers. A parameter that was modified in between is an error then, as it is
    for a short sequence. Hooks and what else a cell does besides its results happen twice.
    ``lrscan.nn.checkpointing.PIECES_KEPT = math.inf`` switches that off, for all models.

    Raises:
        TypeError, ValueError: arguments that do not fit, with their values

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 3.
    """

    surrogate: ClassVar[Callable[..., nn.Module] | None] = None
    gates: Mapping[str, str]

    # Of Any, so that a cell may name its gates.
    def cell(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, ReadOut | None]:
        """(a, u, read-out) from the gates, all (T, B, n)."""
        raise NotImplementedError(f"{type(self).__name__} has no cell")

    def make_surrogate(self, input_size: int, **placed: Any) -> nn.Module | None:
        """The surrogate of one layer."""
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

    def lies_end_to_end(self) -> bool:
        """Unless a layer, or a surrogate, is of a kind that may look at steps together."""
        if type(self).run_layer is not LinearSurrogateRNN.run_layer:
            return False
        for layer in self.layers:
            own = layer.surrogate if type(layer) is SurrogateLayer else layer
            known = own is None or type(own) is Window or isinstance(own, LinearSurrogateRNN)
            if not known or (isinstance(own, LinearSurrogateRNN) and not own.lies_end_to_end()):
                return False
        return True

    def chunk_steps(self, x: Input) -> int | None:
        return chunk_steps(x, self.hidden_size)

    def reset_parameters(  # type: ignore[override]  # it names what its layers take
        self,
        *,
        forget_bias: float | tuple[float, float] = 1.0,
        input_bias: float | None = 0.0,
        input_scale: float = 1.0,
        input_mean: float = 0.0,
        candidate_bias: tuple[float, float] = (0.0, 0.0),
        surrogate: Mapping | None = None,
    ) -> None:
        """Draw all parameters again: Glorot-uniform weights for each gate, biases as given.

        Args:
            forget_bias: of the gate named "forget"; a pair (low, high) draws log U(low, high),
                         so that memories last low to high steps (Tallec and Ollivier 2018,
                         arXiv:1804.11188, with low 1 and high T - 1)
            input_bias:  of the gate named "input"; None: the negative of the forget bias
            input_scale: a factor on the weights of x
            input_mean:  added to the weights of x of the gate named "input"
            candidate_bias: of the gate named "candidate": low and high of a uniform draw
            surrogate:   the same options, for the surrogate

        See :func:`lrscan.nn.chrono` and :func:`lrscan.nn.scaled`; for options that differ from
        layer to layer :func:`lrscan.nn.graded` and :func:`lrscan.nn.early`, each with its entry
        for ``model.layers[k].reset_parameters``.
        """
        super().reset_parameters(
            forget_bias=forget_bias,
            input_bias=input_bias,
            input_scale=input_scale,
            input_mean=input_mean,
            candidate_bias=candidate_bias,
            surrogate=surrogate,
        )
