"""What a layer reads: dense vectors, tokens, or a window of past inputs; and their products."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrscan.core.checks import said
from lrscan.core.time_axis import current


class Tokens(NamedTuple):
    """One-hot inputs by index: ``x[t] = sign[t] * e_index[t]``; a product with them is a look-up.

    index   (T, B), of an integer dtype
    sign    (T, B), 1 or -1, of any dtype but bool; None: 1 everywhere
    """

    index: Tensor  # type: ignore[assignment]  # it hides tuple.index, which nobody needs
    sign: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        """The tokens with a function of tensors applied to both parts."""
        return Tokens(function(self.index), None if self.sign is None else function(self.sign))

    def dense(self, width: int, dtype: torch.dtype) -> Tensor:
        """The vectors themselves, (T, B, width)."""
        try:
            x = F.one_hot(self.index.long(), width).to(dtype)
        except RuntimeError:
            _check_range(self.index, width)
            raise
        return x if self.sign is None else x * self.sign.unsqueeze(-1).to(dtype)


Input = Tensor | Tokens


def apply(x: Input, function: Callable[[Tensor], Tensor]) -> Input:
    """A function of the first two axes, applied to an input of either kind."""
    return x.map(function) if isinstance(x, Tokens) else function(x)


def extent(x: Input) -> tuple[int, int]:
    """(T, B) of an input."""
    steps, batch = (x.index if isinstance(x, Tokens) else x).shape[:2]
    return steps, batch


def chunks(x: Input, steps: int | list[int]) -> list[Input]:
    """An input cut along time, into chunks of so many steps, or of each of these numbers.

    Backward writes the gradient once, where slices would each time.
    """
    if isinstance(x, Tokens):
        signs = [None] * len(x.index) if x.sign is None else x.sign.split(steps)
        return [Tokens(*pair) for pair in zip(x.index.split(steps), signs, strict=False)]
    return list(x.split(steps))


def product(weight: Tensor, x: Input, bias: Tensor | None = None) -> Tensor:
    """``W x[t] + b`` for every step, (T, B, G) for a weight of shape (G, m).

    For tokens it is a row of the transposed weight, or of its negative.
    """
    if not isinstance(x, Tokens):
        return F.linear(x, weight, bias)
    table = weight.t()
    index = x.index
    if x.sign is not None:  # rows e_0, -e_0, e_1, -e_1, ...: an index out of range stays one
        table = torch.stack([table, -table], 1).flatten(0, 1)
        index = 2 * index + (x.sign < 0)
    if bias is not None:
        table = table + bias
    if torch.compiler.is_compiling():
        return F.embedding(index, table)
    try:
        return F.embedding(index, table)
    except IndexError:
        _check_range(x.index, weight.shape[1])
        raise


def _check_range(index: Tensor, width: int) -> None:
    """The error of torch, in words: asked for afterwards, it costs nothing where all is well."""
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= width:
        raise IndexError(
            f"a token is out of range: they are from 0 to {width - 1}, one less than the "
            f"input_size, but there is {low if low < 0 else high}"
        ) from None


class Window(nn.Module):
    """A surrogate without parameters: ``st[t] = (x[t], x[t-1], ..., x[t-k+1])``.

    Args:
        input_size: m, the width of x
        steps:      k, how many inputs it holds
    """

    def __init__(self, input_size: int, steps: int = 1) -> None:
        super().__init__()
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a positive int, not {said(steps)}")
        self.input_size, self.steps = input_size, steps
        self.hidden_size = steps * input_size

    def product(self, weight: Tensor, x: Input, start: Tensor) -> tuple[Tensor, Tensor]:
        """``U st[t-1]`` for every step, (T, B, G), and the last ``st``, without writing the others.

        ``start``, (B, k m), is what came before x, the newest input first.
        """
        m, (steps, batch) = self.input_size, extent(x)
        time = current()
        past = start.unflatten(-1, (self.steps, m)).movedim(1, 0).flip(0)  # (k, B, m), in time

        def picked(function: Callable[[Tensor], Tensor]) -> Tensor:
            some = apply(x, function)
            return some.dense(m, start.dtype) if isinstance(some, Tokens) else some

        past, held = time.history(picked, past)
        weights = list(enumerate(weight.split(m, 1), 1))
        if isinstance(x, Tokens):
            first, *others = (
                time.lagged(F.linear(past[-lag:].to(U.dtype), U), product(U, x))(lag)
                for lag, U in weights
            )
            total = sum(others, first)
        else:  # each product is added to the sum as it is made
            earlier = time.lagged(past.to(x.dtype), x)
            total = weight.new_zeros(weight.shape[0])
            for lag, U in weights:
                total = torch.addmm(total, earlier(lag).flatten(0, 1), U.t())
            total = total.unflatten(0, (steps, batch))
        return total, held.flip(0).movedim(0, 1).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.input_size}, steps={self.steps}"
