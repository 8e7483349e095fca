"""One layer and direction of a linear surrogate RNN: its parameters and its two recurrences."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrscan.core.checks import said
from lrscan.core.dtypes import state_dtype
from lrscan.core.time_axis import current
from lrscan.nn.fused import Gates, evaluate
from lrscan.nn.init import reset_gates
from lrscan.nn.inputs import Input, Window, product
from lrscan.nn.stack import State, no_autocast

# A cell maps the pre-activations of the gates to (a, u, read-out).
Cell = Callable[..., tuple[Tensor, Tensor, Callable[[Tensor], Tensor] | None]]


class SurrogateLayer(nn.Module):
    """``c[t] = a[t] * c[t-1] + u[t]``, with (a, u) from a cell of V x[t] + U st[t-1] + b.

    Args:
        gates: for each gate the letters of its terms; see :class:`LinearSurrogateRNN`
        input_size: m
        hidden_size: n
        surrogate: the module that computes st from x, or None
        placed: ``device`` and ``dtype`` of the parameters

    Raises:
        ValueError: the letters of a gate do not fit, or do not fit the surrogate
    """

    def __init__(
        self,
        gates: Mapping[str, str],
        input_size: int,
        hidden_size: int,
        surrogate: nn.Module | None,
        **placed: Any,
    ) -> None:
        super().__init__()
        self.gates, self.hidden_size = dict(gates), hidden_size
        self.x_gates, self.s_gates, self.b_gates, self.i_gates = (
            tuple(gate for gate, letters in self.gates.items() if letter in letters)
            for letter in "xsbi"
        )
        _check_gates(self.gates, surrogate)
        n = hidden_size
        self.weight_x = nn.Parameter(torch.empty(n * len(self.x_gates), input_size, **placed))
        self.surrogate = surrogate
        self.weight_s: nn.Parameter | None = None
        self.weight_i: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        self.state_sizes: tuple[int, ...] = (n,)
        if surrogate is not None:
            width: Any = surrogate.hidden_size
            self.weight_s = nn.Parameter(torch.empty(n * len(self.s_gates), width, **placed))
            self.state_sizes = (width, n)
        if self.i_gates and input_size != hidden_size:
            self.weight_i = nn.Parameter(torch.empty(n, input_size, **placed))
        if self.b_gates:
            self.bias = nn.Parameter(torch.empty(n * len(self.b_gates), **placed))
        self.reset_parameters()

    def extra_repr(self) -> str:
        gates = ", ".join(f"{name}={letters}" for name, letters in self.gates.items())
        return f"{self.weight_x.shape[1]}, {self.hidden_size}, {gates}"

    def forward(
        self, x: Input, state: State, cell: Cell, algorithm: str = "auto"
    ) -> tuple[Tensor, State]:
        """Return the outputs of all steps, (T, B, n), and the state after the last one."""
        gates, ends = self._gates(x, state)
        recurrence = functools.partial(self._recurrence, cell, algorithm)
        out, c = evaluate(cell, algorithm, recurrence, gates, state[-1])
        return out, (*ends, c)

    def _gates(self, x: Input, state: State) -> tuple[Gates, State]:
        """Return the pre-activations of all gates, and the surrogate's last state."""
        of_x = product(self.weight_x, x, self._bias_of_x())
        ends: State = ()
        gates: Gates = of_x
        if self.surrogate is not None and self.weight_s is not None:
            of_s, end = surrogate_product(self.surrogate, self.weight_s, x, state[0])
            ends = (end,)
            if self.s_gates == self.x_gates:
                gates = of_x + of_s
            else:
                gates = _split(self.x_gates, of_x)
                for name, part in _split(self.s_gates, of_s).items():
                    gates[name] = gates[name] + part if name in gates else part
        if not self.i_gates:
            return gates, ends
        gates = _split(self.x_gates, gates) if isinstance(gates, Tensor) else gates
        for name in self.i_gates:
            if self.weight_i is not None:
                gates[name] = product(self.weight_i, x)
            else:
                dtype = self.weight_x.dtype
                gates[name] = x if isinstance(x, Tensor) else x.dense(self.hidden_size, dtype)
        return gates, ends

    def _bias_of_x(self) -> Tensor | None:
        """Return the bias of every gate that reads x, with zeros for gates without one."""
        if self.bias is None or self.b_gates == self.x_gates:
            return self.bias
        parts = _split(self.b_gates, self.bias)
        none = self.bias.new_zeros(self.hidden_size)
        return torch.cat([parts.get(name, none) for name in self.x_gates])

    def _recurrence(
        self, cell: Cell, algorithm: str, gates: Gates, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate cell, recurrence and read-out; return (h, c after the last step)."""
        if isinstance(gates, Tensor):
            gates = _split(self.x_gates, gates)
        in_order = [gates[name] for name in self.gates]
        wide = state_dtype(in_order[0].dtype)
        # At least float32: bfloat16 has no number between 0.996 and 1, so rounding to it would
        # ruin coefficients and states.
        with no_autocast(start.device.type):
            a, u, read_out = evaluated(cell, *(gate.to(wide) for gate in in_order))
            dtype = torch.promote_types(a.dtype, u.dtype)
            if start.is_complex() and not dtype.is_complex:
                raise TypeError(f"the state is {start.dtype}, but {_cell_name(cell)} uses {dtype}")
            c, end = current().scan(a.to(dtype), u.to(dtype), start.to(dtype), algorithm)
            h = c if read_out is None else read_out(c)
        if h.is_complex():
            raise TypeError(
                f"{_cell_name(cell)} has complex states, so it must return a read-out with real "
                f"values, such as lambda c: c.real"
            )
        return h.to(self.weight_x.dtype), end

    def reset_parameters(self, *, surrogate: Mapping | None = None, **options: Any) -> None:
        """Draw all parameters again; see :meth:`LinearSurrogateRNN.reset_parameters`."""
        weights = [w for w in (self.weight_x, self.weight_s, self.weight_i) if w is not None]
        reset_gates(weights, self.bias, self.hidden_size, self.x_gates, self.b_gates, **options)
        reset: Any = getattr(self.surrogate, "reset_parameters", None)
        if reset is not None:
            reset(**(surrogate or {}))


def surrogate_product(
    surrogate: nn.Module, weight: Tensor, x: Input, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``U st[t-1]`` for every step, (T, B, G), and the last ``st``.

    Args:
        surrogate: computes st
        weight: U
        x: the input
        start: st before x
    """
    if isinstance(surrogate, Window):
        return surrogate.product(weight, x, start)
    st, (end,) = surrogate(x, (start.unsqueeze(0),))
    time = current()
    first, _ = time.history(lambda pick: pick(st), start.unsqueeze(0))
    return product(weight, time.lagged(first.to(st.dtype), st)(1)), end.squeeze(0)


def evaluated(cell: Cell, *gates: Tensor) -> tuple[Tensor, Tensor, Callable | None]:
    """Call a cell; raise TypeError unless it returns (a, u, read-out or None)."""
    returned = cell(*gates)
    if not (isinstance(returned, tuple) and len(returned) == 3):
        found = f"{len(returned)} values" if isinstance(returned, tuple) else said(returned)
        raise TypeError(f"{_cell_name(cell)} must return (a, u, read-out or None), not {found}")
    for name, value in zip("au", returned, strict=False):
        if not isinstance(value, Tensor):
            raise TypeError(f"{_cell_name(cell)} must return a tensor as {name}, not {said(value)}")
    if returned[2] is not None and not callable(returned[2]):
        found = said(returned[2])
        raise TypeError(f"{_cell_name(cell)} must return a function of c as read-out, not {found}")
    return returned


def _cell_name(cell: Cell) -> str:
    owner = getattr(cell, "__self__", None)
    return f"the cell of {type(owner).__name__}" if owner is not None else "the cell"


def _split(names: tuple[str, ...], whole: Tensor) -> dict[str, Tensor]:
    return dict(zip(names, whole.chunk(len(names), -1), strict=True))


def _check_gates(gates: Mapping[str, str], surrogate: nn.Module | None) -> None:
    if not any("x" in letters for letters in gates.values()):
        raise ValueError(f"at least one gate must read x, but none of {dict(gates)} does")
    for name, letters in gates.items():
        if not letters or set(letters) - set("xsbi") or len(set(letters)) < len(letters):
            raise ValueError(
                f"gate {name!r} must have different letters out of x, s, b and i, not {letters!r}"
            )
        if "b" in letters and "x" not in letters:
            raise ValueError(f"gate {name!r} is {letters!r}: a gate with b must also have x")
        if "i" in letters and letters != "i":
            raise ValueError(f"gate {name!r} is {letters!r}: i must be the only letter")
    reads = [name for name, letters in gates.items() if "s" in letters]
    if reads and surrogate is None:
        raise ValueError(f"gates {reads} read a surrogate, but the model has none; give it one")
    if surrogate is not None and not reads:
        kind = type(surrogate).__name__
        raise ValueError(f"no gate reads the surrogate, a {kind}; give one the letter s")
