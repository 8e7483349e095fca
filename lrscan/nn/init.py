"""Initialisations: Glorot weights, and biases that set how long a state remembers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def chrono(steps: int) -> dict[str, Any]:
    """Return options of ``reset_parameters`` for memories that last up to T steps.

    The forget bias is log U(1, T - 1), and the input bias is its negative.

    Args:
        steps: T, at least 3

    Raises:
        ValueError: ``steps`` is less than 3

    Example:
        >>> from lrscan.nn import GILRLSTM, chrono
        >>> chrono(100)
        {'forget_bias': (1.0, 99.0), 'input_bias': None}
        >>> GILRLSTM(3, 4).reset_parameters(**chrono(100))

    Source: Tallec and Ollivier 2018, arXiv:1804.11188, section 3.
    """
    if steps < 3:
        raise ValueError(f"chrono needs at least 3 steps, not {steps}")
    return {"forget_bias": (1.0, steps - 1.0), "input_bias": None}


def scaled(steps: int, rate: float, start_steps: int | None = None) -> dict[str, Any]:
    """Return options of ``reset_parameters`` for learning one early symbol among T others.

    The forget bias is log U(T/4, 4T). The input bias is -log(T r), with r the learning rate. One
    step of Adam moves each candidate by about r. If it moves all of them in one direction, the
    final state moves by T times the input gate times r, so by about one.

    Args:
        steps: T
        rate: r, the learning rate of Adam
        start_steps: length of the first training sequences, if they are shorter; it replaces T in
            the input bias

    Raises:
        ValueError: a number of steps is less than 1, or the rate is not above zero

    Example:
        >>> from lrscan.nn import scaled
        >>> options = scaled(1000, rate=0.01)
        >>> options["forget_bias"], round(options["input_bias"], 3)
        ((250.0, 4000), -2.303)
    """
    start = steps if start_steps is None else start_steps
    if min(steps, start) < 1 or rate <= 0:
        raise ValueError(f"scaled needs steps and a rate above zero, not {steps}, {start}, {rate}")
    return {"forget_bias": (steps / 4, steps * 4), "input_bias": -math.log(start * rate)}


def graded(steps: int, layers: int, start_steps: int | None = None) -> list[dict[str, Any]]:
    """Return options for each layer: short memories in the lower layers, a long one in the last.

    They are meant for tasks in which an early symbol determines the class and the class is read
    after T steps. All other symbols add noise that grows with t, so the last layer should write
    early, and only then. It can learn to: within the first tens of steps the state of a lower layer
    rises to its steady value, so it shows the gates above how early it is. ::

        lower   forget bias log U(2, 64), so that the state is steady long before T;
                candidate bias U(-1/2, 1/2), without which the state hardly rises
        last    forget bias log U(T/4, 4T);
                input bias -log(T/5): all steps together write at most about 5, so that
                an Adam step of the read-out does not drown the effect of the class

    Args:
        steps: T
        layers: number of layers of the net
        start_steps: length of the first training sequences, if they are shorter; it replaces T in
            the input bias

    Example:
        >>> from lrscan.nn import GILRLSTM, graded
        >>> lower, last = graded(1000, layers=2)
        >>> lower
        {'forget_bias': (2.0, 64.0), 'candidate_bias': (-0.5, 0.5)}
        >>> for layer, options in zip(GILRLSTM(3, 4, 2).layers, [lower, last]):
        ...     layer.reset_parameters(**options)

    Source: the grading is that of El Hihi and Bengio 1996, "Hierarchical recurrent neural networks
    for long-term dependencies".
    """
    start = steps if start_steps is None else start_steps
    last = {"forget_bias": (steps / 4, steps * 4), "input_bias": -math.log(start / 5)}
    return [*[_SHORT | {"candidate_bias": (-0.5, 0.5)}] * (layers - 1), last]


def early(steps: int, layers: int, hidden_size: int) -> list[dict[str, Any]]:
    """Return options for each layer, as :func:`graded` does, with a last layer that writes early.

    These options use more knowledge of the task: the first steps are the ones that matter. A
    candidate bias of U(1/5, 1/2) makes the states of the lower layers rise in all units. The input
    gates of the last layer read them with weights whose mean is -44/n, and have a bias of 3.5.

    At the first step, half-open gates and a candidate of 1/3 make outputs of 1/12 below. The
    weights and the bias then nearly cancel, so the input gate is half open. Later the outputs rise
    to 0.45, which is close to the largest output of an LSTM with half-open output gates. They close
    the input gate to e^-16 at every width, so a million steps write less than the first one does.
    The outputs of a GILR-LSTM are not bounded by a tanh and close the gate further.

    Such a net distinguishes the two signs of the first element before it is trained, and only the
    sign of the read-out is left to learn. Training it shows that gradients and states last T steps.
    It does not show that a net finds out by itself where to look.

    Args:
        steps: T
        layers: number of layers of the net, at least 2: a lower layer has to show the time
        hidden_size: n

    Raises:
        ValueError: ``layers`` is less than 2

    Example:
        >>> from lrscan.nn import early
        >>> lower, last = early(1000, layers=2, hidden_size=4)
        >>> last
        {'forget_bias': (250.0, 4000), 'input_bias': 3.5, 'input_mean': -11.0}
    """
    if layers < 2:
        raise ValueError(f"early needs at least 2 layers, not {layers}")
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
        weights: each (gates * n, width); the first one multiplies x
        bias: (len(biased) * n,), or None
        hidden_size: n
        names: names of the gates in the weights of x, in order
        biased: names of the gates that have a bias, in order
        forget_bias, input_bias, input_scale, input_mean, candidate_bias: as for
            :meth:`lrscan.nn.LinearSurrogateRNN.reset_parameters`
    """
    for weight in weights:
        for gate in weight.split(hidden_size):  # one gate at a time: each has its own fan-out
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
