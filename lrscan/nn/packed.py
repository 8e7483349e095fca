"""Sequences of unequal length as torch packs them: all steps of one time side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrscan.nn.inputs import Input, apply, pieces

States = list[tuple[Tensor, ...]]


class Packing:
    """Where the steps of B sequences lie in ``PackedSequence.data``, the longest sequence first.

        t           0      1      2    3  4
        lies        a b c  a b c  a b  a  a     lengths 5, 3, 2: sizes 3, 3, 2, 1, 1
        runs        '----------'  '-'  '--'    2 x 3, 1 x 2 and 2 x 1, steps x sequences

    As long as none ends, they are a batch of equal length: a run, which is evaluated at once.

    Args:
        sizes: how many sequences have a step of each time, on the CPU
    """

    def __init__(self, sizes: Tensor) -> None:
        self.sizes, self.sequences = sizes, int(sizes[0])

    def run(
        self,
        function: Callable[[Any, Input, States], tuple[Tensor, States]],
        layers: Any,
        x: Input,
        states: States,
    ) -> tuple[Tensor, States]:
        """``function(layers, x, states)`` of every sequence, each to the end of its own.

        Outputs are (all steps, 1, n) for x of (all steps, 1, m), states those of B sequences.
        """
        batches, steps = (t.tolist() for t in self.sizes.unique_consecutive(return_counts=True))
        shapes = list(zip(steps, batches, strict=True))
        outputs, ended = [], []
        for shape, part in zip(shapes, pieces(x, [t * b for t, b in shapes]), strict=True):
            ended.append([tuple(p[shape[1] :] for p in state) for state in states])
            states = [tuple(p[: shape[1]] for p in state) for state in states]
            part = apply(part, lambda t, shape=shape: t.reshape(*shape, *t.shape[2:]))
            output, states = function(layers, part, states)
            outputs.append(output.flatten(0, 1).unsqueeze(1))
        ended.append(states)
        of_layers = zip(*ended[::-1], strict=True)  # those that went on come before
        return torch.cat(outputs), [
            tuple(map(torch.cat, zip(*parts, strict=True))) for parts in of_layers
        ]

    def turn(self, steps: Tensor) -> Tensor:
        """Each sequence turned round, from its own last step to its first."""
        first = self.sizes.cumsum(0) - self.sizes  # row of the first sequence, by time
        time = torch.arange(len(first)).repeat_interleave(self.sizes)
        sequence = torch.arange(len(time)) - first[time]
        lengths = sequence.bincount()
        return steps[(first[lengths[sequence] - 1 - time] + sequence).to(steps.device)]
