"""Initialisations: Glorot weights, and biases that decide how long a state remembers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def chrono(steps: int) -> dict[str, Any]:
    """Options of ``reset_parameters`` for memories that last up to T steps.

    The forget bias is log U(1, T - 1), the input bias its negative.

    Args:
        steps: T, 3 at least

    Source: Tallec and Ollivier 2018, arXiv:1804.11188, section 3.
    """
    if steps < 3:
        raise ValueError(f"chrono needs 3 steps at least, not {steps}")
    return {"forget_bias": (1.0, steps - 1.0), "input_bias": None}


def scaled(steps: int, rate: float) -> dict[str, Any]:
    """Options of ``reset_parameters`` for one early symbol to be learned among T others.

    The forget bias is log U(T/4, 4T). The input bias is -log(T r), with r the learning rate: when
    all candidates move alike by one step of Adam, about r, the state at the end moves by T times
    the input gate times r, and so by about one.

    Args:
        steps: T
        rate:  r, the learning rate of Adam
    """
    if steps < 1 or rate <= 0:
        raise ValueError(f"scaled needs steps and a rate above zero, not {steps} and {rate}")
    return {"forget_bias": (steps / 4, steps * 4), "input_bias": -math.log(steps * rate)}


@torch.no_grad()
def reset_gates(
    weights: Sequence[Tensor],
    bias: Tensor | None,
    hidden_size: int,
    biased: Sequence[str],
    *,
    forget_bias: float | tuple[float, float],
    input_bias: float | None,
    input_scale: float,
) -> None:
    """Draw the weights and biases of a layer whose gates are stacked along the first axis.

    Args:
        weights:     (gates * n, width) each, those of x first
        bias:        (len(biased) * n,)
        hidden_size: n
        biased:      the names of the gates that have a bias, in order
        others:      as for :meth:`lrscan.nn.LinearSurrogateRNN.reset_parameters`
    """
    for weight in weights:
        for gate in weight.split(hidden_size):  # a gate at a time: it has its own fan-out
            nn.init.xavier_uniform_(gate)
    weights[0].mul_(input_scale)
    if bias is None:
        return
    bias.zero_()
    of = dict(zip(biased, bias.split(hidden_size), strict=True))
    forget = torch.empty(hidden_size, device=bias.device)
    if isinstance(forget_bias, tuple):
        forget.uniform_(*forget_bias).log_()
    else:
        forget.fill_(forget_bias)
    if "forget" in of:
        of["forget"].copy_(forget)
    if "input" in of:
        of["input"].copy_(-forget if input_bias is None else torch.full_like(forget, input_bias))
