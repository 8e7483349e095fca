"""Sequences of unequal length as torch packs them: steps of equal time next to each other."""

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
    """Positions of the steps of B sequences in ``PackedSequence.data``, the longest first.

    For the lengths 5, 3 and 2, and so the sizes 3, 3, 2, 1 and 1::

        time        0      1      2    3  4
        rows        a b c  a b c  a b  a  a
        runs        '----------'  '-'  '--'    2 x 3, 1 x 2 and 2 x 1 (steps x sequences)

    A run ends where a sequence ends. Within a run, the sequences form a batch of equal length,
    which every layer can evaluate. Layers that accept sequences end to end
    (:mod:`lrscan.nn.sequences`) evaluate all steps at once instead, without padding, and in chunks
    of time if there are too many steps.

    Args:
        sizes: number of sequences that have a step at each time, on the CPU
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
        """Evaluate ``function(layers, x, states)`` run by run, each sequence up to its own end.

        Args:
            function: evaluates a batch of sequences of equal length
            layers: its first argument
            x: (all steps, 1, m)
            states: the states of B sequences before their first steps

        Returns:
            The outputs, (all steps, 1, n), and the states of B sequences after their last steps.
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
        of_layers = zip(*ended[::-1], strict=True)  # longer sequences come first
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
        """Evaluate ``function(net, layers, x, states)`` on all sequences end to end.

        The layers must accept that. A long x is evaluated in chunks. Arguments and results are
        otherwise as for :meth:`run`.
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
            later = [tuple(p[own.sequences :] for p in state) for state in states]  # ended before
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
        """Return the row of the first sequence for each time."""
        return self.sizes.cumsum(0) - self.sizes

    def reverse(self, steps: Tensor) -> Tensor:
        """Return the steps with each sequence reversed: from its own last step to its first."""
        first = self._first()
        time = torch.arange(len(first)).repeat_interleave(self.sizes)
        sequence = torch.arange(len(time)) - first[time]
        lengths = sequence.bincount()
        return steps[(first[lengths[sequence] - 1 - time] + sequence).to(steps.device)]


def _cut(sizes: Tensor, most: int) -> Iterator[Tensor]:
    """Yield the sizes of chunks of at most ``most`` steps of all sequences, or of a single time."""
    first, ends = 0, sizes.cumsum(0)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        stop = max(int(torch.searchsorted(ends, before + most, right=True)), first + 1)
        yield sizes[first:stop]
        first = stop
