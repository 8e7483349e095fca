"""What every model here shares with ``nn.LSTM``: layers, directions, batches, chunks and states."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lrscan.core.checks import ALGORITHMS, said
from lrscan.core.dtypes import state_dtype
from lrscan.core.time_axis import current, turned
from lrscan.nn.checkpointing import checkpointed
from lrscan.nn.inputs import Input, Tokens, apply, extent
from lrscan.nn.packed import Packing

State = tuple[Tensor, ...]
_NAMES = tuple(dict.fromkeys(name for names in ALGORITHMS.values() for name in names))


class RecurrentStack(nn.Module):
    """Layers of a recurrent net, one or two directions each, called like ``nn.LSTM``.

    A subclass makes its layers by :meth:`make_layer`. A layer is a module of one direction, with

        state_sizes                     the width of each part of its state
        reset_parameters(**options)

    and :meth:`run_layer` runs one.

    It differs from ``nn.LSTM`` in that there is no ``bias`` to leave out (a gate has one bias, not
    two, where its model gives it one) and no ``proj_size``; that arguments after ``num_layers``
    are by keyword, as the positions there are others; that the names of parameters are its own;
    and that integers are tokens. Dropout lies between layers, as there.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    bidirectional: bool
    dropout: float
    layers: Any  # an nn.ModuleList of modules as above, layer after layer, both directions of each
    _algorithm: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        algorithm: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a positive int, not {said(size)}")
        for name, flag in {"batch_first": batch_first, "bidirectional": bidirectional}.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be a bool, not {said(flag)}")
        if not isinstance(dropout, Real) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout is a probability, not {said(dropout)}")
        if dropout and num_layers == 1:
            message = f"dropout={dropout} lies between layers, but num_layers is 1"
            warnings.warn(message, stacklevel=2)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype must be a real floating-point torch.dtype, not {said(dtype)}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.dropout = float(dropout)
        directions = 1 + bidirectional
        widths = [input_size] + [hidden_size * directions] * (num_layers - 1)
        placed = {"device": device, "dtype": dtype}
        self.layers = nn.ModuleList(
            self.make_layer(width, **placed) for width in widths for _ in range(directions)
        )
        self.algorithm = algorithm

    def make_layer(self, input_size: int, **placed: Any) -> nn.Module:
        """One layer of one direction that reads vectors of a width; ``placed``: device, dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no make_layer")

    def run_layer(self, layer: Any, x: Input, state: State) -> tuple[Tensor, State]:
        """All steps of a layer.

        Args:
            x:     (T, B, width of the layer's input), or tokens
            state: (B, width) tensors, one for each of ``layer.state_sizes``

        Returns:
            outputs (T, B, hidden_size), and the state after the last step
        """
        raise NotImplementedError(f"{type(self).__name__} has no run_layer")

    @property
    def algorithm(self) -> str:
        """How the recurrences are evaluated, in the surrogates too: see linear_recurrence."""
        return self._algorithm

    @algorithm.setter
    def algorithm(self, name: str) -> None:
        if name not in _NAMES:
            names = ", ".join(map(repr, _NAMES))
            raise ValueError(f"algorithm is one of {names}, not {said(name)}")
        for module in self.modules():
            if isinstance(module, RecurrentStack):
                module._algorithm = name

    def reset_parameters(self, **options: Any) -> None:
        """Draw all parameters again; the options are those of the layers."""
        for layer in self.layers:
            layer.reset_parameters(**options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each tensor of the state, that of its widest layer."""
        return tuple(map(max, zip(*(layer.state_sizes for layer in self.layers), strict=True)))

    def forward(
        self, input: Input | PackedSequence, state: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """All steps of a sequence, or of a chunk of one.

        Args:
            input: (T, B, m), or (B, T, m) with ``batch_first``, or (T, m) without a batch;
                   :class:`Tokens`, or a tensor of integers, without the last axis; or sequences
                   of unequal length, of either, in a ``PackedSequence`` (on CUDA a NaN or an
                   infinity in one reaches others, as in lrscan.packed_linear_recurrence)
            state: what the call for the chunk before returned; zero if None

        Returns:
            output: (T, B, n), or (T, B, 2 n) if bidirectional, in the layout of the input
            state:  after the last step (before the first one, in the backward direction) of each
                    sequence: a tuple of (layers * directions, B, width) tensors, in the order of
                    ``nn.LSTM``; a layer that needs less than the width leaves zeros

        Raises:
            TypeError, ValueError: an input or a state that does not fit
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, state)
        x, batched = self._checked(input)
        batch = current().batch(extent(x)[1])
        states = self._unpack(state, batch, batched)
        x, ends = self._evaluate(x, states, self._run, lambda t: t.flip(0))
        if not batched:
            x = x.squeeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, self._pack(ends, batched)

    def _forward_packed(
        self, input: PackedSequence, state: State | None
    ) -> tuple[PackedSequence, State]:
        """The same of sequences of unequal length; states are in the order before packing."""
        if current().split:
            raise RuntimeError("packed sequences cannot be split over ranks")
        if torch.compiler.is_exporting():
            raise NotImplementedError(
                "a PackedSequence cannot be exported, as its lengths decide what is computed: "
                "export the model for a tensor, and give it sequences one by one, or those of one "
                "length together"
            )
        data, sizes, order, back = input
        x, batched = self._checked(data)
        if batched:
            raise ValueError(f"packed sequences have one axis for steps: {tuple(data.shape)}")
        packing = Packing(sizes)
        states = _picked(self._unpack(state, packing.sequences, True), order)
        if self.lies_end_to_end() and not torch.compiler.is_compiling():
            run = functools.partial(packing.run_at_once, self, RecurrentStack._through)
        else:
            run = functools.partial(packing.run, self._run)
        x, ends = self._evaluate(x, states, run, packing.turn)
        output = PackedSequence(x.squeeze(1), sizes, order, back)
        return output, self._pack(_picked(ends, back), True)

    def _evaluate(
        self, x: Input, states: list[State], run: Callable, turn: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, list[State]]:
        """``run(numbers, x, states)`` of all layers, in both directions if there are two."""
        if not self.bidirectional:
            return run(range(self.num_layers), x, states)
        ends: list[State] = []
        output: Tensor | None = None
        for _ in range(self.num_layers):
            if output is not None:
                x = self._dropped(output)
            outputs = []
            for direction in range(2):
                index = len(ends)
                # From the end is the same layer on the sequence turned round.
                given = apply(x, turn) if direction else x
                with turned(bool(direction)):
                    own, end = run([index], given, [states[index]])
                outputs.append(turn(own) if direction else own)
                ends += end
            output = torch.cat(outputs, -1)
        assert output is not None  # there is a layer
        return output, ends

    def _run(
        self, numbers: Iterable[int], x: Input, states: list[State]
    ) -> tuple[Tensor, list[State]]:
        """Layers on top of each other, and their states at the end; in chunks if x is long."""
        steps = self.chunk_steps(x)
        if steps is None:
            return self._through(numbers, x, states)

        def through(
            net: RecurrentStack, x: Input, states: list[State], _: int
        ) -> tuple[Tensor, list[State]]:
            return net._through(numbers, x, states)

        outputs, states = checkpointed(self, through, x, states, steps)
        return torch.cat(outputs), states

    def _through(
        self, numbers: Iterable[int], x: Input, states: list[State]
    ) -> tuple[Tensor, list[State]]:
        """:meth:`_run` of the whole input at once."""
        ends: list[State] = []
        output: Tensor | None = None
        for number, state in zip(numbers, states, strict=True):
            given = x if output is None else self._dropped(output)
            output, end = self.run_layer(self.layers[number], given, state)
            ends.append(end)
        assert output is not None  # there is a layer
        return output, ends

    def lies_end_to_end(self) -> bool:
        """Whether its layers take sequences end to end: see :mod:`lrscan.nn.sequences`."""
        return False

    def chunk_steps(self, x: Input) -> int | None:
        """Steps of the chunks in which layers are evaluated, and in backward again; None: whole."""
        return None

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def step(self, input: Input, state: State | None = None) -> tuple[Tensor, State]:
        """One time step, for streaming: :meth:`forward` of one step without its axis of time.

        Args:
            input: (B, m), or (B,) for tokens
            state: what the step before returned; zero if None

        Returns:
            output (B, n), and the state after the step

        Raises:
            RuntimeError: the model is bidirectional: it needs the end of the sequence first
        """
        if self.bidirectional:
            raise RuntimeError("step: a bidirectional model cannot run step by step")
        if not isinstance(input, Tensor | Tokens):
            raise TypeError(f"the input must be a tensor or Tokens, not {said(input)}")
        axis = 1 if self.batch_first else 0
        tokens = isinstance(input, Tokens) or not input.is_floating_point()
        if (dims := (input[0] if isinstance(input, Tokens) else input).dim()) != 2 - tokens:
            raise ValueError(f"step takes {2 - tokens} axes, (B{', m' * (not tokens)}): not {dims}")
        output, state = self(apply(input, lambda t: t.unsqueeze(axis)), state)
        return output.squeeze(axis), state

    @property
    def _weight(self) -> Tensor:
        """One of the weights, for its dtype and device. They need not be parameters: a replica of
        DataParallel has tensors in their place, as has a net whose weights another net makes.
        """
        for parameter in self.parameters():
            return parameter
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and value.is_floating_point():
                    return value
        raise RuntimeError(f"{type(self).__name__} has no weights")

    def _checked(self, input: Input) -> tuple[Input, bool]:
        """The input with time first and a batch, and whether it had one."""
        x = input
        if isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex():
            x = Tokens(x)
        weight = self._weight
        if isinstance(x, Tokens):
            axes, shape = 2, x.index.shape
            if x.index.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"tokens are int64 or int32, not {x.index.dtype}")
            if x.sign is not None and x.sign.shape != shape:
                raise ValueError(f"{tuple(shape)} tokens, but {tuple(x.sign.shape)} signs")
        elif isinstance(x, Tensor):
            axes, shape = 3, x.shape
            if x.dtype != weight.dtype and not _autocast_is_on(x.device.type):
                raise TypeError(f"the input is {x.dtype}, but the parameters are {weight.dtype}")
            if x.dim() and x.shape[-1] != self.input_size:
                raise ValueError(f"input_size is {self.input_size}, but x has {tuple(x.shape)}")
        else:
            raise TypeError(f"the input must be a tensor or Tokens, not {said(input)}")
        if len(shape) not in (axes - 1, axes):
            raise ValueError(f"the input has {axes} axes ({axes - 1} unbatched): {tuple(shape)}")
        batched = len(shape) == axes
        if not batched:
            x = apply(x, lambda t: t.unsqueeze(1))
        elif self.batch_first:
            x = apply(x, lambda t: t.transpose(0, 1))
        return x, batched

    def _unpack(self, state: State | None, batch: int, batched: bool) -> list[State]:
        """For each layer and direction the parts of its state, (B, width)."""
        weight = self._weight
        if state is None:
            device, dtype = weight.device, state_dtype(weight.dtype)
            return [
                tuple(
                    torch.zeros(batch, width, device=device, dtype=dtype)
                    for width in layer.state_sizes
                )
                for layer in self.layers
            ]
        shapes = [(len(self.layers), *[batch] * batched, width) for width in self.state_sizes]
        given: object = said(state)
        if isinstance(state, Sequence) and len(state) <= 2 * len(shapes):
            given = [tuple(p.shape) if isinstance(p, Tensor) else said(p) for p in state]
        if given != shapes:
            raise ValueError(f"the state is a tuple of the shapes {shapes}, not {given}")
        parts = [part if batched else part.unsqueeze(1) for part in state]
        return [
            tuple(
                part[k, :, :width].to(state_dtype(part.dtype))
                for part, width in zip(parts, layer.state_sizes, strict=True)
            )
            for k, layer in enumerate(self.layers)
        ]

    def _pack(self, ends: list[State], batched: bool) -> State:
        parts = []
        for width, part in zip(self.state_sizes, zip(*ends, strict=True), strict=True):
            whole = torch.stack([F.pad(end, (0, width - end.shape[-1])) for end in part])
            parts.append(whole if batched else whole.squeeze(1))
        return tuple(parts)

    def extra_repr(self) -> str:
        parts = [str(self.input_size), str(self.hidden_size)]
        defaults = {
            "num_layers": 1,
            "batch_first": False,
            "bidirectional": False,
            "dropout": 0.0,
            "algorithm": "auto",
        }
        for name, default in defaults.items():
            if (value := getattr(self, name)) != default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)


def not_by_autocast(device_type: str) -> AbstractContextManager:
    """In it autocast narrows nothing. Devices such as "meta" have no autocast to switch off."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _autocast_is_on(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _picked(states: list[State], order: Tensor | None) -> list[State]:
    """The states of sequences in another order; None: in the same."""
    if order is None:
        return states
    return [tuple(part[order] for part in state) for state in states]
