"""Sequences longer than memory: a net worked through in pieces of time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrscan.distributed.parallel import splits
from lrscan.nn.inputs import Input, Tokens, pieces


def in_pieces(
    net: nn.Module,
    input: Input,
    state: tuple[Tensor, ...] | None = None,
    *,
    steps: int,
    reduce: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A call of a net, with its backward pass, that holds the activations of one piece only.

    The state is carried from piece to piece and its gradient back, so the result is that of one
    call. Forward keeps the states between pieces; backward evaluates each piece again. So a step
    of training costs one more forward pass, and its memory, beside the input, grows with ``steps``
    and with the number of pieces, not with T:

        logit, state = in_pieces(net, tokens, steps=65_536)  # the last output
        loss, state = in_pieces(net, x, steps=4096, reduce=cross_entropy)  # of every step

    glibc keeps freed blocks of under 32 MiB and may lose memory to gaps between them: with
    MALLOC_MMAP_THRESHOLD_=65536 in the environment a CPU run gives each block back.

    Args:
        net:    of this module, not bidirectional, time first
        input:  (T, B, m), or Tokens of (T, B); T of at least 1
        state:  before the first step, as the net takes it; None: zero
        steps:  how many a piece has; the last one may have fewer
        reduce: from the output (up to ``steps``, B, n) of a piece, and the number of its first
                step, to a tensor; None: the output of the last step

    Returns:
        The sum over pieces of what ``reduce`` returned, or the last output (B, n); and the state
        after the last step.

    Raises:
        ValueError: steps, the net or the length of the input does not fit
        RuntimeError: inside :func:`lrscan.distributed.sequence_parallel`

    Source: the recomputation is that of Chen et al. 2016 (arXiv:1604.06174), with pieces of time
    in the place of layers.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive int, not {steps!r}")
    for name in ("bidirectional", "batch_first"):
        if getattr(net, name):
            raise ValueError(f"a net with {name}=True cannot be worked through in pieces of time")
    length = len(input.index if isinstance(input, Tokens) else input)
    if not length:
        raise ValueError("the input has no steps")
    if splits():
        raise RuntimeError("in_pieces takes a whole sequence, not one that is split over ranks")
    random = bool(net.dropout and net.training)

    def evaluate(piece: Input, state: tuple[Tensor, ...] | None, first: int):
        output, state = net(piece, state)
        # A copy: a view would keep every step of the piece alive.
        return (output[-1].clone() if reduce is None else reduce(output, first)), state

    total = None
    for number, piece in enumerate(pieces(input, steps)):
        result, state = checkpoint(
            evaluate, piece, state, number * steps, use_reentrant=False, preserve_rng_state=random
        )
        total = result if reduce is None or total is None else total + result
    return total, state
