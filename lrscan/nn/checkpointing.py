"""Sequences longer than memory: a net worked through in chunks of time."""

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
from lrscan.nn.snapshot import Kept

# Elements (steps x batch x hidden units) of a chunk. A longer sequence is worked through in such
# chunks, of which only the outputs are kept: backward evaluates each again. On a CPU a chunk stays
# in the cache, and its memory is used again where one long tensor would be mapped anew.
CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**28}
# A sequence of up to so many chunks is taken whole, and nothing is evaluated twice: with math.inf
# every one.
PIECES_KEPT = 8


def chunk_steps(x: Input, hidden_size: int) -> int | None:
    """Steps of the chunks in which an input is best worked through; None: it is taken whole."""
    # With one graph for every number of steps.
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
    """The outputs of ``function(net, chunk, state, first step)`` for chunks of ``steps`` steps, or
    of each of these numbers.

    The state that it returns too goes to the next chunk; the last one is returned. Backward
    evaluates each chunk again, with the same random numbers and with the net as it is now, see
    :class:`Kept`. torch.func cannot do so: under its transforms all is kept.
    """
    compiling = torch.compiler.is_compiling()
    transformed = not compiling and transforms_are_active()
    once = transformed or not torch.is_grad_enabled()
    kept = None if once or compiling else Kept(net)
    outputs, first = [], 0
    for chunk in chunks(x, steps):
        given = chunk, state, first
        first += extent(chunk)[0]
        if once:
            output, state = function(net, *given)
        elif kept is None:
            output, state = checkpoint(function, net, *given, use_reentrant=False)
        else:
            evaluate = kept.evaluation(function)
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
    """A call of a net, with its backward pass, that holds the activations of one chunk only.

    The state is carried from chunk to chunk and its gradient back, so the result is that of one
    call. Forward keeps the states between chunks; backward evaluates each chunk again. So a step
    of training costs one more forward pass, and its memory, beside the input, grows with ``steps``
    and with the number of chunks, not with T:

        logit, state = in_pieces(net, tokens, steps=65_536)  # the last output
        loss, state = in_pieces(net, x, steps=4096, reduce=cross_entropy)  # of every step

    glibc keeps freed blocks of under 32 MiB and may lose memory to gaps between them: with
    MALLOC_MMAP_THRESHOLD_=65536 in the environment a CPU run gives each block back.

    Args:
        net:    called as ``net(chunk, state)``, with a state of None or of tensors in tuples, to
                return (output, state after it), as the models here, ``nn.LSTM`` and whole networks
                made of them do. A step must depend on earlier ones through the state alone:
                nothing bidirectional, and time on the first axis. Of an ``nn.Sequential`` of
                recurrent parts and others (embedding, dropout, read-out) the state is a tuple with
                the states of the recurrent ones
        input:  (T, B, m), Tokens of (T, B), or whatever has time first; T of at least 1
        state:  before the first step, as the net takes it; None: zero
        steps:  how many a chunk has; the last one may have fewer
        reduce: from the output (up to ``steps``, B, n) of a chunk, and the number of its first
                step, to a tensor; None: the output of the last step

    Returns:
        The sum over chunks of what ``reduce`` returned, or the last output (B, n); and the state
        after the last step.

    Raises:
        TypeError:  the input is no tensor and no Tokens, or the net returns no pair
        ValueError: steps, the net or the length of the input does not fit
        RuntimeError: inside :func:`lrscan.distributed.sequence_parallel`

    Source: the recomputation is that of Chen et al. 2016 (arXiv:1604.06174), with chunks of time
    in the place of layers.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive int, not {said(steps)}")
    _check_causal(net)
    if not isinstance(input, Tensor | Tokens):
        raise TypeError(f"the input must be a tensor or Tokens, not {type(input).__name__}")
    length = len(input.index if isinstance(input, Tokens) else input)
    if not length:
        raise ValueError("the input has no steps")
    if current().split:
        raise RuntimeError("in_pieces takes a whole sequence, not one that is split over ranks")

    def evaluate(net: nn.Module, chunk: Input, state: Any, first: int) -> tuple[Tensor, Any]:
        output, state = _call(net, chunk, state)
        # A copy: a view would keep every step of the chunk alive.
        return (output[-1].clone() if reduce is None else reduce(output, first)), state

    results, state = checkpointed(net, evaluate, input, state, steps)
    return results[-1] if reduce is None else sum(results[1:], results[0]), state


def _check_causal(net: nn.Module) -> None:
    """No part of a net reads time backwards, or has it on another axis."""
    for where, module in net.named_modules():
        for name in ("bidirectional", "batch_first"):
            if getattr(module, name, False):
                part = f"a net whose {where} has" if where else "a net with"
                raise ValueError(f"{part} {name}=True cannot be worked through in chunks of time")


def _call(net: nn.Module, chunk: Any, state: Any) -> tuple[Tensor, Any]:
    """(output, state) of a net; of a Sequential through its parts, with a tuple of their states."""
    if isinstance(net, nn.Sequential):
        recurrent = [part for part in net if _has_state(part)]
        states = [None] * len(recurrent) if state is None else list(state)
        if len(states) != len(recurrent):
            raise ValueError(
                f"the state of a Sequential with {len(recurrent)} recurrent parts is a tuple of "
                f"their states, not of {len(states)}"
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
            f"net(chunk, state), for state None at first, which returns (output, state after it)"
        )
    return returned


def _has_state(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return any(map(_has_state, module))
    return isinstance(module, nn.RNNBase) or hasattr(module, "state_sizes")
