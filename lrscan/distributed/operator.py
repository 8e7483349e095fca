"""Recurrence over chunks of time on different ranks, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan.core import gradients, sweep
from lrscan.core.autograd import plain
from lrscan.core.checks import check, converted
from lrscan.core.dtypes import double_dtype, state_dtype
from lrscan.core.torch_internals import outside_the_compiler
from lrscan.distributed.agreement import Header, agree, refuse
from lrscan.distributed.exchange import Peers
from lrscan.distributed.mean import check_summed

# The number of elements of ``a`` that are multiplied at once. torch copies them to float64.
_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
# The number of steps that are multiplied first, so few that their product rarely underflows.
_STEPS = 256


def linear_recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    dim: int = 0,
    reverse: bool = False,
    algorithm: str = "auto",
) -> Tensor:
    """``h[t] = a[t] * h[t-1] + x[t]`` along ``dim``, over the chunks of all ranks of a group.

    Every rank holds one chunk of time, rank 0 the first. A chunk acts on the state before it as::

        h -> A h + B        A = product of a[t],  B = last state of the chunk, started from zero

    Each rank reduces its chunk to A and B. The ranks exchange these pairs. From the pairs of the
    chunks before its own, each rank computes the state from which it scans its chunk. Let g be the
    gradient at h. A chunk acts on the gradient from later chunks in the same way::

        g -> conj(A) g + D  D = conj(a[0]) g[0] of the chunk, without any gradient from later chunks

    Forward exchanges two values per column and rank, and backward does too. Every rank of the group
    must call the function, and either all ranks or none must call backward. If a rank's loss does
    not depend on its chunk, add ``0 * h.sum()`` to it.

    Args:
        a, x:      this rank's steps, as in :func:`lrscan.linear_recurrence`. Chunks may differ in
                   length, and may be empty
        h0:        state before the first step of the first chunk. It is read on rank 0 (on the last
                   rank with ``reverse``), which gets its gradient, and ignored on the others
        group:     the ranks over which time is split, in their order; None for all processes
        dim:       the axis of time
        reverse:   if True, run from the last step of the last rank to the first step of rank 0
        algorithm: the algorithm of the scan on each rank, as in :func:`lrscan.linear_recurrence`

    Returns:
        This rank's chunk of h. It agrees with the result of one process for all chunks to within
        rounding, as long as the products of ``a`` over the chunks fit the range of float64. The
        pairs are exchanged in float64 or complex128. With half precision, a chunk starts from a
        float32 state. Only first derivatives are supported.

    Raises:
        TypeError: this rank's arguments do not fit, as on one process
        ValueError: the same; or the ranks disagree on columns, dtype, axis or direction. Then every
            rank raises it, before data moves
        RankError: a rank refused its arguments, died, or did not take part within the timeout of
            the group. The message names the rank and the operation
        RuntimeError: there is no process group; or a DistributedDataParallel over these ranks
            averages gradients, see :func:`summed`

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from lrscan import distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> distributed.linear_recurrence(torch.full((4,), 0.5), torch.ones(4))
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
        >>> dist.destroy_process_group()

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 2.2, with ranks instead of blocks.
    """
    return recurrence(a, x, h0, Peers(group, reverse is True), dim, reverse, algorithm, False)[0]


@outside_the_compiler
def recurrence(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None,
    peers: Peers,
    dim: int,
    reverse: bool,
    algorithm: str,
    want_end: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return this rank's chunk of h and, if ``want_end``, the state after the last chunk.

    That state is the same on every rank.
    """
    check_summed(peers)
    first = peers.position == 0
    h0 = h0 if first else None
    try:
        a, x, h0 = converted(a, x, h0)
        dim = check(a, x, h0, dim, reverse, algorithm)
    except (TypeError, ValueError):
        refuse(peers, "linear_recurrence", x.device if isinstance(x, Tensor) else None)
        raise
    shape = sweep.broadcast_shape(a, x)
    columns = sweep.state_shape(shape, dim, None)
    differentiated = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (a, x, h0)
    )
    header = Header(
        "linear_recurrence",
        x.dtype,
        dim,
        peers.turned,
        want_end,
        columns,
        shape[dim],
        differentiated,
    )
    agreed = agree(peers, header, x.device)
    with torch.no_grad():
        product, end = reduced(a, x, dim, reverse, algorithm)
        if h0 is not None:
            end = folded(product.unsqueeze(0), torch.stack([h0.expand(columns).to(end.dtype), end]))
    headers = agreed()
    # Backward is an exchange too. If one rank takes part in it, all must.
    token = x.new_zeros((), dtype=torch.float32).requires_grad_(
        torch.is_grad_enabled() and any(own.gradient for own in headers)
    )
    pair = torch.stack([product, end])
    return _Split.apply(a, x, h0, token, pair, peers, dim, reverse, algorithm, want_end)


class _Split(torch.autograd.Function):
    """Exchange of the pairs and scan of this rank's chunk. Backward does the same from the end."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        x: Tensor,
        h0: Tensor | None,
        token: Tensor,
        pair: Tensor,
        peers: Peers,
        dim: int,
        reverse: bool,
        algorithm: str,
        want_end: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.options = (peers, dim, reverse, algorithm)
        ctx.x_shape = x.shape
        ctx.set_materialize_grads(False)
        exchanged = peers.gather(pair, "exchange of linear_recurrence")

        def scan(start: Tensor | None) -> Tensor:
            return sweep.forward(plain(a), plain(x), plain(start), dim, reverse, algorithm)

        start = h0
        if not peers.position:
            h = scan(start)  # needs no other rank, so it runs during the exchange
        products, ends = exchanged().unbind(1)
        if peers.position:
            start = folded(products[1 : peers.position], ends[: peers.position])
            start = start.to(state_dtype(x.dtype))
            h = scan(start)
        end = folded(products[1:], ends).to(state_dtype(x.dtype)) if want_end else None
        # A copy, because a view would keep the products of all ranks in memory.
        later = products[peers.position + 1 :].clone()
        ctx.save_for_backward(a, h, start, later)
        return h, end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor | None, dend: Tensor | None) -> tuple[Tensor | None, ...]:
        peers, dim, reverse, algorithm = ctx.options
        a, h, start, later = (plain(t) for t in ctx.saved_tensors)
        dh = torch.zeros_like(h) if dh is None else plain(dh)
        own = outgoing_gradient(a, dh, dim, reverse, algorithm)
        at_end = torch.zeros_like(own) if dend is None else dend.to(own.dtype)
        exchanged = peers.gather(
            torch.stack([own, at_end]), "exchange of linear_recurrence, backward"
        )
        dh = dh.clone(memory_format=torch.contiguous_format)  # during the exchange
        outgoing, at_end = exchanged().unbind(1)
        incoming = folded(
            later.conj().flip(0),
            torch.cat([at_end.sum(0, keepdim=True), outgoing[peers.position + 1 :].flip(0)]),
        ).to(state_dtype(h.dtype))
        steps = h.shape[dim]
        if steps:
            dh.select(dim, 0 if reverse else -1).add_(incoming)
        wanted = ctx.needs_input_grad[:3]
        da, dx, dh0 = gradients.backward(
            a, h, start, dh, ctx.x_shape, dim, reverse, algorithm, None, wanted
        )
        if dh0 is not None and not steps:
            dh0 = incoming.sum_to_size(dh0.shape).to(dh0.dtype)
        return da, dx, dh0, *[None] * 7


def outgoing_gradient(a: Tensor, dh: Tensor, dim: int, reverse: bool, algorithm: str) -> Tensor:
    """Return D of a chunk, in float64 or complex128.

    D is conj(a[0]) g[0] without a gradient from later chunks. It comes from a backward sweep that
    reads a and dh, and writes no steps.
    """
    columns = sweep.state_shape(dh.shape, dim, None)
    start = torch.zeros(columns, dtype=state_dtype(dh.dtype), device=dh.device)
    dstart = torch.zeros_like(start)
    outputs = None, None, dstart
    sweep.backward(a, dh, start, dh, dim, reverse, algorithm, None, outputs)
    return dstart.to(double_dtype(dh.dtype))


def reduced(a: Tensor, x: Tensor, dim: int, reverse: bool, algorithm: str) -> tuple[Tensor, Tensor]:
    """Return (A, B) of a chunk, in float64 or complex128, so that products stay in range.

    A is zero if a coefficient of the column is zero, and only then. Such an A forgets NaN and
    infinity.

    B is computed as a gradient is. It is the last input plus the result of a backward sweep over
    the other inputs, in the opposite direction::

        B = x[T-1] + a[T-1] (x[T-2] + a[T-2] (... x[0]))

    So this sweep writes no steps either.
    """
    shape = sweep.broadcast_shape(a, x)
    steps, wide = shape[dim], double_dtype(x.dtype)
    a = a.reshape((1,) * (len(shape) - a.dim()) + a.shape)
    a = plain(a).expand([steps if axis == dim else -1 for axis in range(a.dim())])
    x = plain(x).expand(shape)
    columns = sweep.state_shape(shape, dim, None)
    product = _product(a, dim, wide).expand(columns).contiguous()
    if not steps:
        return product, torch.zeros_like(product)
    first, last = (1, 0) if reverse else (0, 1)  # offsets of x and a; each lacks one step
    later = a.narrow(dim, last, steps - 1).conj().resolve_conj()
    earlier = x.narrow(dim, first, steps - 1)
    end = outgoing_gradient(later, earlier, dim, not reverse, algorithm)
    return product, end + x.select(dim, 0 if reverse else -1)


def _product(a: Tensor, dim: int, wide: torch.dtype) -> Tensor:
    """Return the product of a over time, in a wide dtype; zero only if an element is zero."""
    size = max(_ELEMENTS.get(a.device.type, 2**26) * a.shape[dim] // max(a.numel(), 1), 1)
    products = torch.cat([_in_chunks(chunk, dim, wide) for chunk in a.split(size, dim)], dim)
    product = products.prod(dim)
    if not _zero_or_nan(product).any():
        return product
    # A product that underflowed becomes the smallest number, with the sign of the product.
    smallest = torch.full_like(product, torch.finfo(wide).smallest_normal * torch.finfo(wide).eps)
    if not wide.is_complex:
        smallest = smallest.copysign(product)
    product = torch.where(product == 0, smallest, product)
    if _zero_or_nan(products).any():
        product = product.masked_fill(~a.all(dim), 0)
    return product


def _zero_or_nan(tensor: Tensor) -> Tensor:
    return (tensor == 0) | tensor.isnan()


def _in_chunks(a: Tensor, dim: int, wide: torch.dtype) -> Tensor:
    """Return the product of every ``_STEPS`` steps, and of the remaining steps."""
    whole = a.shape[dim] // _STEPS * _STEPS
    if whole <= _STEPS:
        return a.prod(dim, keepdim=True, dtype=wide)
    products = a.narrow(dim, 0, whole).unflatten(dim, (-1, _STEPS)).prod(dim + 1, dtype=wide)
    rest = a.narrow(dim, whole, a.shape[dim] - whole).prod(dim, keepdim=True, dtype=wide)
    return torch.cat([products, rest], dim)


def folded(products: Tensor, ends: Tensor) -> Tensor:
    """Return ends[0] after the chunks (products[k], ends[k + 1]), applied one after the other."""
    if not len(products):
        return ends[0]
    if products.isfinite().all():
        return sweep.forward(products, ends[1:], ends[0], 0, False, "auto")[-1]
    state = ends[0]
    for product, end in zip(products, ends[1:], strict=True):
        # A state of zero stays zero, even if the product is out of range.
        kept = torch.where(state == 0, state, sweep.product(product, state))
        state = kept + end
    return state
