"""Sequences of unequal length as torch packs them: all steps of one time side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lrscan.core.time_axis import along
from lrscan.nn.checkpointing import checkpointed
from lrscan.nn.inputs import Input, apply, chunks
from lrscan.nn.sequences import Sequences

States = list[tuple[Tensor, ...]]


class Packing:
    """Where the steps of B sequences lie in ``PackedSequence.data``, the longest sequence first.

        t           0      1      2    3  4
        lies        a b c  a b c  a b  a  a     lengths 5, 3, 2: sizes 3, 3, 2, 1, 1
        runs        '----------'  '-'  '--'    2 x 3, 1 x 2 and 2 x 1, steps x sequences

    As long as none ends, they are a batch of equal length: a run, which any layer evaluates. Where
    layers take sequences end to end (:mod:`lrscan.nn.sequences`) all are evaluated at once, without
    padding, in chunks of time where there are too many steps.

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
        for shape, chunk in zip(shapes, chunks(x, [t * b for t, b in shapes]), strict=True):
            ended.append([tuple(p[shape[1] :] for p in state) for state in states])
            states = [tuple(p[: shape[1]] for p in state) for state in states]

            def batched(t: Tensor, shape: tuple[int, int] = shape) -> Tensor:
                return t.reshape(*shape, *t.shape[2:])

            output, states = function(layers, apply(chunk, batched), states)
            outputs.append(output.flatten(0, 1).unsqueeze(1))
        ended.append(states)
        of_layers = zip(*ended[::-1], strict=True)  # those that went on come before
        return torch.cat(outputs), [
            tuple(map(torch.cat, zip(*parts, strict=True))) for parts in of_layers
        ]

    def run_at_once(
        self,
        net: Any,
        function: Callable[[Any, Any, Input, States], tuple[Tensor, States]],
        layers: Any,
        x: Input,
        states: States,
    ) -> tuple[Tensor, States]:
        """:meth:`run` of ``function(net, layers, x, states)``, whose layers take sequences end to
        end, in chunks if x is long.
        """
        most = net.chunk_steps(x)
        cut = [self.sizes] if most is None else list(_cut(self.sizes, most))
        rows = [int(sizes.sum()) for sizes in cut]
        firsts = accumulate(rows[:-1], initial=0)
        packings = dict(zip(firsts, map(Packing, cut), strict=True))

        def evaluate(net: Any, x: Input, states: States, first: int) -> tuple[Tensor, States]:
            own = packings[first]
            given = [tuple(p[: own.sequences] for p in state) for state in states]
            of_net = functools.partial(function, net)
            output, ends = own._evaluate_at_once(of_net, layers, x, given)
            later = [tuple(p[own.sequences :] for p in state) for state in states]  # have ended
            return output, [
                tuple(map(torch.cat, zip(*pair, strict=True)))
                for pair in zip(ends, later, strict=True)
            ]

        if most is None:
            return evaluate(net, x, states, 0)
        outputs, states = checkpointed(net, evaluate, x, states, rows)
        return torch.cat(outputs), states

    def _evaluate_at_once(
        self, function: Callable, layers: Any, x: Input, states: States
    ) -> tuple[Tensor, States]:
        steps, batch = len(self.sizes), self.sequences
        if self.sizes[-1] == batch:  # of equal length
            x = apply(x, lambda t: t.reshape(steps, batch, *t.shape[2:]))
            output, states = function(layers, x, states)
            return output.flatten(0, 1).unsqueeze(1), states
        lengths = steps - torch.searchsorted(self.sizes.flip(0), torch.arange(batch), right=True)
        sequences = Sequences(lengths)
        order = self._first()[sequences.time] + sequences.number
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        device = states[0][0].device
        order, back = order.to(device), back.to(device)
        with along(sequences):
            output, states = function(layers, apply(x, lambda t: t[order]), states)
        return output[back], states

    def _first(self) -> Tensor:
        """The row of the first sequence, by time."""
        return self.sizes.cumsum(0) - self.sizes

    def turn(self, steps: Tensor) -> Tensor:
        """Each sequence turned round, from its own last step to its first."""
        first = self._first()
        time = torch.arange(len(first)).repeat_interleave(self.sizes)
        sequence = torch.arange(len(time)) - first[time]
        lengths = sequence.bincount()
        return steps[(first[lengths[sequence] - 1 - time] + sequence).to(steps.device)]


def _cut(sizes: Tensor, most: int) -> Iterator[Tensor]:
    """The sizes of chunks: each of up to so many steps of all sequences, or of one time alone."""
    first, ends = 0, sizes.cumsum(0)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        stop = max(int(torch.searchsorted(ends, before + most, right=True)), first + 1)
        yield sizes[first:stop]
        first = stop
