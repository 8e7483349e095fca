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


def scaled(steps: int, rate: float, start_steps: int | None = None) -> dict[str, Any]:
    """Options of ``reset_parameters`` for one early symbol to be learned among T others.

    The forget bias is log U(T/4, 4T). The input bias is -log(T r), with r the learning rate: when
    all candidates move alike by one step of Adam, about r, the state at the end moves by T times
    the input gate times r, and so by about one.

    Args:
        steps:       T
        rate:        r, the learning rate of Adam
        start_steps: how long the first sequences are that it is trained on, if shorter: the T of
                     the input bias
    """
    start = steps if start_steps is None else start_steps
    if min(steps, start) < 1 or rate <= 0:
        raise ValueError(f"scaled needs steps and a rate above zero, not {steps}, {start}, {rate}")
    return {"forget_bias": (steps / 4, steps * 4), "input_bias": -math.log(start * rate)}


def graded(steps: int, layers: int, start_steps: int | None = None) -> list[dict[str, Any]]:
    """Options for each layer: short memories below, and a last layer that holds to the end.

    Meant for a class told by an early symbol and read after T steps. All other symbols add up as
    noise that grows with t, so the symbol is best written down early. The state of a lower layer
    climbs to its steady value within the first tens of steps, and so tells the gates above how
    early it is; a last layer can learn to write only then:

        below   forget bias log U(2, 64), so that it is settled long before T; candidate bias
                U(-1/2, 1/2), without which it hardly climbs
        last    forget bias log U(T/4, 4T); input bias -log(T/5): all steps together write at most
                about 5, so that an Adam step of the read-out does not drown what the class changes

    Args:
        steps:       T
        layers:      how many the net has
        start_steps: how long the first sequences are that it is trained on, if shorter: the T of
                     the input bias

    Source: of the grading, El Hihi and Bengio 1996, "Hierarchical recurrent neural networks for
    long-term dependencies".
    """
    start = steps if start_steps is None else start_steps
    last = {"forget_bias": (steps / 4, steps * 4), "input_bias": -math.log(start / 5)}
    return [*[_SHORT | {"candidate_bias": (-0.5, 0.5)}] * (layers - 1), last]


def early(steps: int, layers: int, hidden_size: int) -> list[dict[str, Any]]:
    """Options for each layer: as :func:`graded`, but the last layer writes early from the start.

    It knows more of the task: that the first steps matter. The lower layers climb upwards in all
    units, by a candidate bias of U(1/5, 1/2), and the last layer's input gates see them with
    weights whose mean is -44/n. Gates half open and a candidate of 1/3 make outputs of 1/12 at
    the first step, for which an input bias of 3.5 makes up: the gate is half open then. Outputs of
    0.45, close to the most that an LSTM gives with half-open output gates, close it to e^-16,
    whatever the width: a million steps write less than the first one. The outputs of a
    GILR-LSTM, which no tanh bounds, close it further.

    A net drawn so tells two signs of the first element apart before it is trained, and a read-out
    of the right sign is all that is left to learn: it shows that gradients and states last T
    steps, not that a net finds out by itself where to look.

    Args:
        steps:       T
        layers:      how many the net has, 2 at least: one below the last, to tell the time
        hidden_size: n
    """
    if layers < 2:
        raise ValueError(f"early needs 2 layers at least, not {layers}")
    last = {
        "forget_bias": (steps / 4, steps * 4),
        "input_bias": 3.5,
        "input_mean": -44.0 / hidden_size,
    }
    return [*[_SHORT | {"candidate_bias": (0.2, 0.5)}] * (layers - 1), last]


_SHORT = {"forget_bias": (2.0, 64.0)}


@torch.no_grad()
def reset_gates(
    weights: Sequence[Tensor],
    bias: Tensor | None,
    hidden_size: int,
    names: Sequence[str],
    biased: Sequence[str],
    *,
    forget_bias: float | tuple[float, float] = 1.0,
    input_bias: float | None = 0.0,
    input_scale: float = 1.0,
    input_mean: float = 0.0,
    candidate_bias: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Draw the weights and biases of a layer whose gates are stacked along the first axis.

    Args:
        weights:     (gates * n, width) each, those of x first
        names:       of the gates of the weights of x, in order
        bias:        (len(biased) * n,)
        hidden_size: n
        biased:      the names of the gates that have a bias, in order
        others:      as for :meth:`lrscan.nn.LinearSurrogateRNN.reset_parameters`
    """
    for weight in weights:
        for gate in weight.split(hidden_size):  # a gate at a time: it has its own fan-out
            nn.init.xavier_uniform_(gate)
    weights[0].mul_(input_scale)
    if "input" in names:
        weights[0].split(hidden_size)[names.index("input")].add_(input_mean)
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
    if "candidate" in of and any(candidate_bias):
        of["candidate"].uniform_(*candidate_bias)
