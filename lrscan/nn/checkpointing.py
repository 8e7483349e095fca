"""Sequences longer than memory: evaluation of a net in chunks of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrscan.core.checks import said
from lrscan.core.time_axis import current
from lrscan.core.torch_internals import transforms_are_active
from lrscan.nn.inputs import Input, Tokens, chunks, extent
from lrscan.nn.snapshot import Snapshot

# Elements (steps x batch x hidden units) per chunk. A long sequence is evaluated in such chunks.
# Only their outputs are kept; backward evaluates each chunk again. On a CPU a chunk stays in the
# cache, and the next chunk reuses its memory, whereas one long tensor would be mapped anew.
CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**28}
# A sequence of at most this many chunks is evaluated whole, and nothing is evaluated twice. With
# math.inf every sequence is.
PIECES_KEPT = 8


def chunk_steps(x: Input, hidden_size: int) -> int | None:
    """Return the number of steps per chunk for an input, or None to evaluate it whole."""
    # An exported or traced graph serves every number of steps, so it cannot contain the cuts.
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return None
    steps, batch = extent(x)
    device = (x.index if isinstance(x, Tokens) else x).device.type
    elements = CHUNK_ELEMENTS.get(device, 2**28)
    if not current().whole or steps * batch * hidden_size <= PIECES_KEPT * elements:
        return None
    return max(1, elements // (batch * hidden_size))


def checkpointed(
    net: nn.Module,
    function: Callable[[Any, Input, Any, int], tuple[Tensor, Any]],
    x: Input,
    state: Any,
    steps: int | list[int],
) -> tuple[list[Tensor], Any]:
    """Evaluate ``function(net, chunk, state, first step)`` chunk by chunk, with checkpoints.

    Each call returns its output and a state, which the next call receives. Backward evaluates each
    chunk again, with the same random numbers and with the net as it is now, see
    :class:`Snapshot`. Under the transforms of torch.func this is impossible, so there everything
    is kept.

    Args:
        net: the first argument of ``function``
        function: called once per chunk
        x: the input, with time first
        state: the state before the first step
        steps: number of steps per chunk, or a list with the number of steps of each chunk

    Returns:
        The outputs of all chunks, and the state after the last one.
    """
    compiling = torch.compiler.is_compiling()
    transformed = not compiling and transforms_are_active()
    once = transformed or not torch.is_grad_enabled()
    snapshot = None if once or compiling else Snapshot(net)
    outputs, first = [], 0
    for chunk in chunks(x, steps):
        given = chunk, state, first
        first += extent(chunk)[0]
        if once:
            output, state = function(net, *given)
        elif snapshot is None:
            output, state = checkpoint(function, net, *given, use_reentrant=False)
        else:
            evaluate = snapshot.evaluation(function)
            output, state = checkpoint(evaluate, *given, use_reentrant=False)
        outputs.append(output)
    return outputs, state


def in_pieces(
    net: nn.Module,
    input: Input,
    state: tuple[Tensor, ...] | None = None,
    *,
    steps: int,
    reduce: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Call a net on a long sequence and hold the activations of only one chunk of time at once.

    The state is carried forward from chunk to chunk, and its gradient backward, so the result
    equals that of one call. Forward keeps the states between chunks; backward evaluates each chunk
    again. A training step therefore costs one more forward pass. Apart from the input, its memory
    grows with ``steps`` and with the number of chunks, but not with T.

    Note:
        glibc keeps freed blocks of under 32 MiB and may lose memory to gaps between them. With
        ``MALLOC_MMAP_THRESHOLD_=65536`` in the environment, a process on a CPU returns each block
        to the system.

    Args:
        net: called as ``net(chunk, state)``; returns (output, state after the chunk). The state is
            None or tensors in tuples. The models here, ``nn.LSTM``, and networks that contain them
            can all be called like this. A step may depend on earlier steps only through the state,
            so nothing may be bidirectional, and time is the first axis. The state of an
            ``nn.Sequential`` is a tuple with the states of its recurrent parts; parts without a
            state (embedding, dropout, read-out) have no entry
        input: (T, B, m), Tokens of (T, B), or any other tensor with time first; T is at least 1
        state: state before the first step, as the net takes it; None for zero
        steps: number of steps per chunk; the last chunk may have fewer
        reduce: maps the output of a chunk, (up to ``steps``, B, n), and the number of its first
            step to a tensor; None for the output of the last step

    Returns:
        The sum over all chunks of the values of ``reduce``, or without ``reduce`` the last output
        (B, n); and the state after the last step.

    Raises:
        TypeError: the input is neither a tensor nor Tokens, or the net does not return a pair
        ValueError: ``steps``, the net or the length of the input does not fit
        RuntimeError: called inside :func:`lrscan.distributed.sequence_parallel`

    Example:
        >>> import torch
        >>> from lrscan.nn import GILR, in_pieces
        >>> net, x = GILR(3, 4), torch.randn(100, 2, 3)
        >>> last, state = in_pieces(net, x, steps=32)  # the output of the last step
        >>> torch.allclose(last, net(x)[0][-1], atol=1e-6)
        True
        >>> total, state = in_pieces(net, x, steps=32, reduce=lambda output, first: output.sum())
        >>> torch.allclose(total, net(x)[0].sum(), atol=1e-4)
        True

    Source: the recomputation is that of Chen et al. 2016 (arXiv:1604.06174), with chunks of time
    instead of layers.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive int, not {said(steps)}")
    _check_causal(net)
    if not isinstance(input, Tensor | Tokens):
        raise TypeError(f"the input must be a tensor or Tokens, not {type(input).__name__}")
    length = len(input.index if isinstance(input, Tokens) else input)
    if not length:
        raise ValueError("the input has no steps; it needs at least one")
    if current().split:
        raise RuntimeError("in_pieces needs the whole sequence, but it is split over ranks")

    def evaluate(net: nn.Module, chunk: Input, state: Any, first: int) -> tuple[Tensor, Any]:
        output, state = _call(net, chunk, state)
        # Clone the last step: a view would keep every step of the chunk in memory.
        return (output[-1].clone() if reduce is None else reduce(output, first)), state

    results, state = checkpointed(net, evaluate, input, state, steps)
    return results[-1] if reduce is None else sum(results[1:], results[0]), state


def _check_causal(net: nn.Module) -> None:
    """Raise ValueError if a part of a net reads time backwards or has it on another axis."""
    for where, module in net.named_modules():
        for name in ("bidirectional", "batch_first"):
            if getattr(module, name, False):
                part = f"module {where!r} of the net" if where else "the net"
                raise ValueError(
                    f"{part} has {name}=True, so it cannot be evaluated in chunks of time"
                )


def _call(net: nn.Module, chunk: Any, state: Any) -> tuple[Tensor, Any]:
    """Return (output, state) of a net; the state of a Sequential holds those of its parts."""
    if isinstance(net, nn.Sequential):
        recurrent = [part for part in net if _has_state(part)]
        states = [None] * len(recurrent) if state is None else list(state)
        if len(states) != len(recurrent):
            raise ValueError(
                f"the state of a Sequential with {len(recurrent)} recurrent parts must be a tuple "
                f"of their {len(recurrent)} states, not of {len(states)}"
            )
        given, ends = iter(states), []
        for part in net:
            if _has_state(part):
                chunk, end = _call(part, chunk, next(given))
                ends.append(end)
            else:
                chunk = part(chunk)
        return chunk, tuple(ends)
    returned = net(chunk, state)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise TypeError(
            f"{type(net).__name__} returned {type(returned).__name__}: in_pieces calls "
            f"net(chunk, state), at first with state None; it must return (output, state after "
            f"the chunk)"
        )
    return returned


def _has_state(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return any(map(_has_state, module))
    return isinstance(module, nn.RNNBase) or hasattr(module, "state_sizes")
