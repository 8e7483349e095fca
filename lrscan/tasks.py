"""Seeded synthetic tasks, drawn on the device that uses them."""

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
    """Draw sequences whose class is the sign of their first element, ``x[0] = +-e_0``.

    Every later element is a one-hot vector, drawn uniformly with replacement. The same arguments
    give the same sequences on every device of the same type. Calls are independent of each other.

    Args:
        steps:       T
        batch:       B
        seed:        the seed of the stream of minibatches
        number:      the index of the minibatch in the stream
        held_out:    if True, draw from a second stream, which shares nothing with the first
        width:       p, the width of the one-hot vectors
        distractors: "any": a later element may be e_0 too, as in the paper's text; then only the
                     sign at the first step reveals the class. "apart": no later element is e_0, as
                     in the task of 1997, whose class symbols appear once
        device:      the device on which the sequences are drawn

    Returns:
        (tokens, label). The tokens are (T, B) indices (int64) and signs (int8). The label is (B,),
        float32: 1 if x[0] = +e_0, and 0 if x[0] = -e_0.

    Raises:
        ValueError: a size, seed or choice that does not fit

    Example:
        >>> from lrscan.tasks import problem_2b
        >>> tokens, label = problem_2b(100, 4, seed=0)
        >>> tokens.index.shape, tokens.index[0]
        (torch.Size([100, 4]), tensor([0, 0, 0, 0]))
        >>> (tokens.sign[0] == 2 * label - 1).all()
        tensor(True)

    Source: Hochreiter and Schmidhuber 1997, experiment 2b; Martin and Cundy 2018, section 4.3.
    """
    least = {"steps": (steps, 1), "batch": (batch, 1), "width": (width, 2)}
    for name, (value, bound) in (least | {"seed": (seed, 0), "number": (number, 0)}).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{name} must be an int of at least {bound}, not {said(value)}")
    if distractors not in DISTRACTORS:
        choices = ", ".join(map(repr, DISTRACTORS))
        raise ValueError(f"distractors must be one of {choices}, not {said(distractors)}")
    mixed = numpy.random.SeedSequence([seed, int(held_out), number]).generate_state(2)
    generator = torch.Generator(device).manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
    first = 1 if distractors == "apart" else 0
    index = torch.randint(first, width, (steps, batch), generator=generator, device=device)
    index[0] = 0
    label = torch.randint(0, 2, (batch,), generator=generator, device=device)
    sign = torch.ones(steps, batch, dtype=torch.int8, device=device)
    sign[0] = (2 * label - 1).to(torch.int8)
    return Tokens(index, sign), label.float()
