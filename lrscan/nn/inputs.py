"""Inputs of a layer (dense vectors, tokens, windows of past inputs) and their products."""

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

    Attributes:
        index: (T, B), int64 or int32
        sign: (T, B), 1 or -1, of any dtype except bool; None for 1 everywhere

    Example:
        >>> import torch
        >>> from lrscan.nn import GILR, Tokens
        >>> tokens = Tokens(torch.tensor([[2], [0]]), sign=torch.tensor([[1], [-1]]))
        >>> tokens.dense(3, torch.int64).squeeze(1)
        tensor([[ 0,  0,  1],
                [-1,  0,  0]])
        >>> output, state = GILR(3, 4)(tokens)
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    sign: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        """Apply a function of tensors to the indices and to the signs."""
        return Tokens(function(self.index), None if self.sign is None else function(self.sign))

    def dense(self, width: int, dtype: torch.dtype) -> Tensor:
        """Return the vectors themselves, (T, B, width)."""
        try:
            x = F.one_hot(self.index.long(), width).to(dtype)
        except RuntimeError:
            _check_range(self.index, width)
            raise
        return x if self.sign is None else x * self.sign.unsqueeze(-1).to(dtype)


Input = Tensor | Tokens


def apply(x: Input, function: Callable[[Tensor], Tensor]) -> Input:
    """Apply a function of the first two axes to a tensor, or to both parts of tokens."""
    return x.map(function) if isinstance(x, Tokens) else function(x)


def extent(x: Input) -> tuple[int, int]:
    """Return (T, B) of an input."""
    steps, batch = (x.index if isinstance(x, Tokens) else x).shape[:2]
    return steps, batch


def chunks(x: Input, steps: int | list[int]) -> list[Input]:
    """Cut an input along time into chunks of ``steps`` steps, or of each number in that list.

    Backward writes the gradient of the input once; with slices it would do so for every chunk.
    """
    if isinstance(x, Tokens):
        signs = [None] * len(x.index) if x.sign is None else x.sign.split(steps)
        return [Tokens(*pair) for pair in zip(x.index.split(steps), signs, strict=False)]
    return list(x.split(steps))


def product(weight: Tensor, x: Input, bias: Tensor | None = None) -> Tensor:
    """Return ``W x[t] + b`` for every step, (T, B, G), for a weight W of shape (G, m).

    The product with a token is a row of the transposed weight, or its negative.
    """
    if not isinstance(x, Tokens):
        return F.linear(x, weight, bias)
    table = weight.t()
    index = x.index
    if x.sign is not None:  # rows e_0, -e_0, e_1, -e_1, ...: a wrong index stays wrong
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
    """Raise IndexError if a token is out of range; called after an error, so usually free."""
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= width:
        raise IndexError(
            f"token {low if low < 0 else high} is out of range: tokens are from 0 to {width - 1}, "
            f"one less than the input_size"
        ) from None


class Window(nn.Module):
    """A surrogate without parameters: ``st[t] = (x[t], x[t-1], ..., x[t-k+1])``.

    A model creates it in ``make_surrogate``, as :class:`QRNN` does.

    Args:
        input_size: m, the width of x
        steps: k, the number of inputs in the window

    Raises:
        ValueError: ``steps`` is not a positive int

    Example:
        >>> import torch
        >>> from lrscan.nn import Window
        >>> window = Window(3, steps=2)
        >>> U, x, start = torch.ones(1, 6), torch.ones(4, 1, 3), torch.zeros(1, 6)
        >>> products, st = window.product(U, x, start)
        >>> products.flatten()
        tensor([0., 3., 6., 6.])
    """

    def __init__(self, input_size: int, steps: int = 1) -> None:
        super().__init__()
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a positive int, not {said(steps)}")
        self.input_size, self.steps = input_size, steps
        self.hidden_size = steps * input_size

    def product(self, weight: Tensor, x: Input, start: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``U st[t-1]`` for every step, and the last ``st``; the others are not stored.

        Args:
            weight: U, (G, k m)
            x: the input, (T, B, m) or tokens
            start: the k inputs before x, (B, k m), the newest one first

        Returns:
            The products, (T, B, G), and ``st`` after the last step, (B, k m).
        """
        m, (steps, batch) = self.input_size, extent(x)
        time = current()
        # (k, B, m), the oldest input first
        past = start.unflatten(-1, (self.steps, m)).movedim(1, 0).flip(0)

        def take(pick: Callable[[Tensor], Tensor]) -> Tensor:
            some = apply(x, pick)
            return some.dense(m, start.dtype) if isinstance(some, Tokens) else some

        past, latest = time.history(take, past)
        weights = list(enumerate(weight.split(m, 1), 1))
        if isinstance(x, Tokens):
            first, *others = (
                time.lagged(F.linear(past[-lag:].to(U.dtype), U), product(U, x))(lag)
                for lag, U in weights
            )
            total = sum(others, first)
        else:  # add each product to the sum at once, to hold only one
            earlier = time.lagged(past.to(x.dtype), x)
            total = weight.new_zeros(weight.shape[0])
            for lag, U in weights:
                total = torch.addmm(total, earlier(lag).flatten(0, 1), U.t())
            total = total.unflatten(0, (steps, batch))
        return total, latest.flip(0).movedim(0, 1).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.input_size}, steps={self.steps}"
