"""Synthetic tasks, seeded, drawn on the device that uses them."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from lrscan.core.checks import said
from lrscan.nn.inputs import Tokens

DISTRACTORS = ("any", "apart")


def problem_2b(
    steps: int,
    batch: int,
    *,
    seed: int,
    number: int = 0,
    held_out: bool = False,
    width: int = 128,
    distractors: str = "any",
    device: torch.device | str = "cpu",
) -> tuple[Tokens, Tensor]:
    """Sequences whose class is the sign of their first element: ``x[0] = +-e_0``.

    Every later element is a one-hot vector, drawn uniformly with replacement. The same arguments
    give the same sequences on one kind of device; no call depends on another.

    Args:
        steps:       T
        batch:       B
        seed:        of the stream of minibatches
        number:      which minibatch of the stream
        held_out:    draw from another stream, that shares nothing with the first
        width:       p, the width of the one-hot vectors
        distractors: "any": a later element may be e_0 too, as the paper's text has it, and then
                     only its sign at the first step tells the class; "apart": it may not, as in
                     the task of 1997, whose class symbols appear once
        device:      where they are drawn

    Returns:
        tokens: (T, B) indices (int64) and signs (int8)
        label:  (B,), float32, 1 where x[0] = +e_0 and 0 where x[0] = -e_0

    Raises:
        ValueError: a size, seed or choice that does not fit

    Source: Hochreiter and Schmidhuber 1997, experiment 2b; Martin and Cundy 2018, section 4.3.
    """
    least = {"steps": (steps, 1), "batch": (batch, 1), "width": (width, 2)}
    for name, (value, bound) in (least | {"seed": (seed, 0), "number": (number, 0)}).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{name} must be an int of at least {bound}, not {said(value)}")
    if distractors not in DISTRACTORS:
        choices = ", ".join(map(repr, DISTRACTORS))
        raise ValueError(f"distractors is one of {choices}, not {said(distractors)}")
    mixed = numpy.random.SeedSequence([seed, int(held_out), number]).generate_state(2)
    generator = torch.Generator(device).manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
    first = 1 if distractors == "apart" else 0
    index = torch.randint(first, width, (steps, batch), generator=generator, device=device)
    index[0] = 0
    label = torch.randint(0, 2, (batch,), generator=generator, device=device)
    sign = torch.ones(steps, batch, dtype=torch.int8, device=device)
    sign[0] = (2 * label - 1).to(torch.int8)
    return Tokens(index, sign), label.float()
