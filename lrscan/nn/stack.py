"""Base class of all models: layers, directions, batches, chunks and states as in ``nn.LSTM``."""

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
    """Layers of a recurrent net with one or two directions each, called like ``nn.LSTM``.

    A subclass creates its layers in :meth:`make_layer` and runs one in :meth:`run_layer`. A layer
    is a module for one direction, with these attributes::

        state_sizes                     width of each part of its state
        reset_parameters(**options)     draws its parameters again

    Differences from ``nn.LSTM``:

    - There is no argument ``bias``. The model defines which gates have a bias, and each of these
      has one, not two.
    - There is no ``proj_size``.
    - Arguments after ``num_layers`` are keyword-only, because their order differs.
    - The parameters have other names.
    - A tensor of integers is read as tokens.

    As in ``nn.LSTM``, dropout applies between layers.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    bidirectional: bool
    dropout: float
    layers: Any  # nn.ModuleList of these modules: layer by layer, all directions of each
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
            raise ValueError(f"dropout must be a probability, not {said(dropout)}")
        if dropout and num_layers == 1:
            message = f"dropout={dropout} applies between layers, but num_layers is 1"
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
        """Return one layer for one direction; ``placed`` holds ``device`` and ``dtype``."""
        raise NotImplementedError(f"{type(self).__name__} has no make_layer")

    def run_layer(self, layer: Any, x: Input, state: State) -> tuple[Tensor, State]:
        """Run all steps of a layer.

        Args:
            layer: one of ``layers``
            x: (T, B, input width of the layer), or tokens
            state: (B, width) tensors, one for each of ``layer.state_sizes``

        Returns:
            The outputs, (T, B, hidden_size), and the state after the last step.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run_layer")

    @property
    def algorithm(self) -> str:
        """The algorithm of :func:`lrscan.linear_recurrence`, for surrogates too."""
        return self._algorithm

    @algorithm.setter
    def algorithm(self, name: str) -> None:
        if name not in _NAMES:
            names = ", ".join(map(repr, _NAMES))
            raise ValueError(f"algorithm must be one of {names}, not {said(name)}")
        for module in self.modules():
            if isinstance(module, RecurrentStack):
                module._algorithm = name

    def reset_parameters(self, **options: Any) -> None:
        """Draw all parameters again, with the options of the layers."""
        for layer in self.layers:
            layer.reset_parameters(**options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each tensor of the state: the largest one of all layers."""
        return tuple(map(max, zip(*(layer.state_sizes for layer in self.layers), strict=True)))

    def forward(
        self, input: Input | PackedSequence, state: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run all steps of a sequence, or of a chunk of one.

        Args:
            input: (T, B, m), or (B, T, m) with ``batch_first``, or (T, m) without a batch.
                :class:`Tokens` and tensors of integers have the same shapes without the last axis.
                Sequences of unequal length, vectors or tokens, come in a ``PackedSequence``; on
                CUDA a NaN or an infinity in one of them reaches others, as in
                :func:`lrscan.packed_linear_recurrence`
            state: the state that the call for the previous chunk returned; None for zero

        Returns:
            The output, (T, B, n), or (T, B, 2 n) if bidirectional, in the layout of the input; and
            the state of each sequence after its last step (in the backward direction, before its
            first step). The state is a tuple of (layers * directions, B, width) tensors, in the
            order of ``nn.LSTM``. Layers that need less than the width are padded with zeros.

        Raises:
            TypeError, ValueError: the input or the state does not fit
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
        """Run sequences of unequal length; states are in the order before packing."""
        if current().split:
            raise RuntimeError("packed sequences cannot be split over ranks")
        if torch.compiler.is_exporting():
            raise NotImplementedError(
                "a PackedSequence cannot be exported, because its lengths decide what is computed: "
                "export the model for a tensor, and pass it the sequences one by one, or those of "
                "equal length together"
            )
        data, sizes, order, back = input
        x, batched = self._checked(data)
        if batched:
            raise ValueError(
                f"the data of a PackedSequence must be (steps, m), or (steps,) for tokens, not "
                f"{tuple(data.shape)}"
            )
        packing = Packing(sizes)
        states = _reordered(self._unpack(state, packing.sequences, True), order)
        if self.accepts_end_to_end() and not torch.compiler.is_compiling():
            run = functools.partial(packing.run_at_once, self, RecurrentStack._run_whole)
        else:
            run = functools.partial(packing.run, self._run)
        x, ends = self._evaluate(x, states, run, packing.reverse)
        output = PackedSequence(x.squeeze(1), sizes, order, back)
        return output, self._pack(_reordered(ends, back), True)

    def _evaluate(
        self, x: Input, states: list[State], run: Callable, reverse: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, list[State]]:
        """Call ``run(numbers, x, states)`` for all layers, in both directions if there are two."""
        if not self.bidirectional:
            return run(range(self.num_layers), x, states)
        ends: list[State] = []
        output: Tensor | None = None
        for _ in range(self.num_layers):
            if output is not None:
                x = self._apply_dropout(output)
            outputs = []
            for direction in range(2):
                index = len(ends)
                # The backward direction runs its layer on the reversed sequence.
                given = apply(x, reverse) if direction else x
                with turned(bool(direction)):
                    own, end = run([index], given, [states[index]])
                outputs.append(reverse(own) if direction else own)
                ends += end
            output = torch.cat(outputs, -1)
        assert output is not None  # there is a layer
        return output, ends

    def _run(
        self, numbers: Iterable[int], x: Input, states: list[State]
    ) -> tuple[Tensor, list[State]]:
        """Run layers on top of each other; return the output and their last states.

        A long x is evaluated in chunks.
        """
        steps = self.chunk_steps(x)
        if steps is None:
            return self._run_whole(numbers, x, states)

        def run_whole(
            net: RecurrentStack, x: Input, states: list[State], _: int
        ) -> tuple[Tensor, list[State]]:
            return net._run_whole(numbers, x, states)

        outputs, states = checkpointed(self, run_whole, x, states, steps)
        return torch.cat(outputs), states

    def _run_whole(
        self, numbers: Iterable[int], x: Input, states: list[State]
    ) -> tuple[Tensor, list[State]]:
        """Do the same as :meth:`_run`, with the whole input at once."""
        ends: list[State] = []
        output: Tensor | None = None
        for number, state in zip(numbers, states, strict=True):
            given = x if output is None else self._apply_dropout(output)
            output, end = self.run_layer(self.layers[number], given, state)
            ends.append(end)
        assert output is not None  # there is a layer
        return output, ends

    def accepts_end_to_end(self) -> bool:
        """Return True if the layers accept sequences end to end (``lrscan.nn.sequences``)."""
        return False

    def chunk_steps(self, x: Input) -> int | None:
        """Return the steps per chunk for x, or None to evaluate it whole.

        Backward evaluates each chunk again.
        """
        return None

    def _apply_dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def step(self, input: Input, state: State | None = None) -> tuple[Tensor, State]:
        """Run one time step, for streaming: :meth:`forward` without the axis of time.

        Args:
            input: (B, m), or (B,) for tokens
            state: the state that the previous step returned; None for zero

        Returns:
            The output, (B, n), and the state after the step.

        Raises:
            RuntimeError: the model is bidirectional, so it needs the whole sequence
        """
        if self.bidirectional:
            raise RuntimeError(
                "step: a bidirectional model needs the whole sequence and cannot run step by step"
            )
        if not isinstance(input, Tensor | Tokens):
            raise TypeError(f"the input must be a tensor or Tokens, not {said(input)}")
        axis = 1 if self.batch_first else 0
        tokens = isinstance(input, Tokens) or not input.is_floating_point()
        if (dims := (input[0] if isinstance(input, Tokens) else input).dim()) != 2 - tokens:
            shape = "(B,)" if tokens else "(B, m)"
            raise ValueError(f"step needs an input of {2 - tokens} axes, {shape}, not {dims}")
        output, state = self(apply(input, lambda t: t.unsqueeze(axis)), state)
        return output.squeeze(axis), state

    @property
    def _weight(self) -> Tensor:
        """One of the weights, for its dtype and device.

        It need not be a parameter: a replica of DataParallel has tensors instead, and so does a
        net whose weights are computed by another net.
        """
        for parameter in self.parameters():
            return parameter
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and value.is_floating_point():
                    return value
        raise RuntimeError(f"{type(self).__name__} has no weights to take a dtype from")

    def _checked(self, input: Input) -> tuple[Input, bool]:
        """Return the input with time first and a batch axis, and True if it had a batch axis."""
        x = input
        if isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex():
            x = Tokens(x)
        weight = self._weight
        if isinstance(x, Tokens):
            axes, shape = 2, x.index.shape
            if x.index.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"tokens must be int64 or int32, not {x.index.dtype}")
            if x.sign is not None and x.sign.shape != shape:
                raise ValueError(
                    f"tokens have an index of shape {tuple(shape)}, but a sign of shape "
                    f"{tuple(x.sign.shape)}"
                )
        elif isinstance(x, Tensor):
            axes, shape = 3, x.shape
            if x.dtype != weight.dtype and not _autocast_is_on(x.device.type):
                raise TypeError(f"the input is {x.dtype}, but the parameters are {weight.dtype}")
            if x.dim() and x.shape[-1] != self.input_size:
                raise ValueError(
                    f"input_size is {self.input_size}, but the input has shape {tuple(x.shape)}"
                )
        else:
            raise TypeError(f"the input must be a tensor or Tokens, not {said(input)}")
        if len(shape) not in (axes - 1, axes):
            raise ValueError(
                f"the input must have {axes} axes, or {axes - 1} without a batch, not the shape "
                f"{tuple(shape)}"
            )
        batched = len(shape) == axes
        if not batched:
            x = apply(x, lambda t: t.unsqueeze(1))
        elif self.batch_first:
            x = apply(x, lambda t: t.transpose(0, 1))
        return x, batched

    def _unpack(self, state: State | None, batch: int, batched: bool) -> list[State]:
        """Return the parts of the state, (B, width), for each layer and direction."""
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
            raise ValueError(f"the state must be tensors of the shapes {shapes}, not {given}")
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


def no_autocast(device_type: str) -> AbstractContextManager:
    """Return a context without autocast; devices such as "meta" have none to switch off."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _autocast_is_on(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _reordered(states: list[State], order: Tensor | None) -> list[State]:
    """Return the states with the sequences in another order, or as they are for None."""
    if order is None:
        return states
    return [tuple(part[order] for part in state) for state in states]
