"""The recurrence over pieces of time that lie on different ranks, and its gradients."""

# As for lrscan.autograd: torch builds the operator at run time, and its signatures count.
# mypy: ignore-errors

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lrscan import gradients, sweep
from lrscan.arguments import HALF, check
from lrscan.autograd import plain
from lrscan.distributed.agreement import Header, agree, refuse
from lrscan.distributed.exchange import Peers
from lrscan.ops import _widened

# Elements of the parts in which a piece is reduced, and the fewest steps of one.
_PART, _FEWEST_STEPS = {"cpu": 2**16, "cuda": 2**26}, 16


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
    """``h[t] = a[t] * h[t-1] + x[t]`` along ``dim``, over the pieces of all ranks of a group.

    Every rank holds one piece of time, rank 0 the first. A piece acts on the state before it as

        h -> A h + B        A = product of a[t],  B = the piece's last state, started from zero

    so each rank reduces its piece to A and B, they are exchanged, and each rank scans its piece
    from the state that the pieces before it lead to. With g the gradient at h, a piece acts on
    the gradient that arrives from later pieces in the same way:

        g -> conj(A) g + D        D = conj(a[0]) g[0] of the piece, with none arriving

    A call exchanges two values a column and rank, and its backward one. All ranks of the group
    have to call it, and all or none have to call backward: where a rank's loss does not depend on
    its piece, ``0 * h.sum()`` does.

    Args:
        a, x:      this rank's steps, as in :func:`lrscan.linear_recurrence`; pieces may differ in
                   length, and may be empty
        h0:        state before the first step of all: that of rank 0 (of the last rank with
                   ``reverse``) counts, and gets the gradient; on other ranks it is not read
        group:     the ranks among which time is split, in their order; None: all processes
        dim:       the axis of time
        reverse:   from the last step of the last rank to the first of rank 0
        algorithm: of the scans on each rank, as in :func:`lrscan.linear_recurrence`

    Returns:
        This rank's piece of h: within rounding what one process computes from all pieces, as long
        as products of a over the pieces fit the range of float64. Half precision is exchanged in
        float32. First derivatives only.

    Raises:
        TypeError, ValueError: this rank's arguments do not fit, as on one process; or the ranks
                               disagree on columns, dtype, axis or direction, which is found
                               before data moves, on every rank
        RankError:             a rank refused its arguments, or did not come within the group's
                               timeout, or died; the message names it and the operation
        RuntimeError:          there is no process group

    Source: Martin and Cundy 2018, arXiv:1709.04057, section 2.2, with a rank in the place of a
    block.
    """
    return recurrence(a, x, h0, Peers(group, reverse is True), dim, reverse, algorithm, False)[0]


@torch.compiler.disable
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
    """This rank's piece of h, and on every rank the state after the last step of all if wanted."""
    first = peers.position == 0
    h0 = h0 if first else None
    try:
        if isinstance(a, Tensor) and isinstance(x, Tensor):
            a, x, h0 = _widened(a, x, h0)
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
        "linear_recurrence", x.dtype, dim, peers.turned, want_end, columns, shape[dim],
        differentiated,
    )  # fmt: skip
    agreed = agree(peers, header, x.device)
    with torch.no_grad():
        start = x.new_zeros(columns, dtype=carried(x.dtype)) if h0 is None else h0.expand(columns)
        pair = reduced(a, x, start.to(carried(x.dtype)), dim, reverse, algorithm)
    headers = agreed()
    # Backward is an exchange too: if one rank takes part in it, all do.
    token = x.new_zeros((), dtype=torch.float32).requires_grad_(
        torch.is_grad_enabled() and any(own.gradient for own in headers)
    )
    pair = torch.stack(pair)
    return _Split.apply(a, x, h0, token, pair, peers, dim, reverse, algorithm, want_end)


class _Split(torch.autograd.Function):
    """Exchange of the pairs and the scan of this rank's piece; backward the same from the end."""

    @staticmethod
    def forward(ctx, a, x, h0, token, pair, peers, dim, reverse, algorithm, want_end):
        ctx.options = (peers, dim, reverse, algorithm)
        ctx.x_shape = x.shape
        ctx.set_materialize_grads(False)
        pairs = peers.gather(pair, "exchange of linear_recurrence")()
        products, ends = pairs.unbind(1)
        start = h0
        if peers.position:
            start = folded(products[1 : peers.position], ends[: peers.position])
            start = start.to(carried(x.dtype))
        h = sweep.forward(*map(plain, (a, x, start)), dim, reverse, algorithm)
        end = folded(products[1:], ends).to(carried(x.dtype)) if want_end else None
        # A copy: a view would keep the products of all ranks.
        later = products[peers.position + 1 :].clone()
        ctx.save_for_backward(a, h, start, later)
        return h, end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dh, dend):
        peers, dim, reverse, algorithm = ctx.options
        a, h, start, later = (plain(t) for t in ctx.saved_tensors)
        dh = torch.zeros_like(h) if dh is None else plain(dh)
        columns = sweep.state_shape(h.shape, dim, None)
        kind = {"dtype": carried(h.dtype), "device": h.device}
        # s[t] = conj(a[t]) g[t] runs as s[t] = conj(a[t]) s[t+1] + conj(a[t]) dh[t].
        conj = a.conj().resolve_conj()
        none = torch.zeros(columns, **kind)
        _, leaving = reduced(conj, dh, none, dim, not reverse, algorithm, weighted=True)
        at_end = leaving.new_zeros(columns) if dend is None else dend.to(leaving.dtype)
        told = peers.gather(
            torch.stack([leaving, at_end]), "exchange of linear_recurrence, backward"
        )()
        leaving, at_end = told.unbind(1)
        arriving = folded(
            later.conj().flip(0),
            torch.cat([at_end.sum(0, keepdim=True), leaving[peers.position + 1 :].flip(0)]),
        ).to(kind["dtype"])
        steps = h.shape[dim]
        if steps:
            dh = dh.clone(memory_format=torch.contiguous_format)
            dh.select(dim, 0 if reverse else -1).add_(arriving)
        wanted = ctx.needs_input_grad[:3]
        da, dx, dh0 = gradients.backward(
            a, h, start, dh, ctx.x_shape, dim, reverse, algorithm, None, wanted
        )
        if dh0 is not None and not steps:
            dh0 = arriving.sum_to_size(dh0.shape).to(dh0.dtype)
        return da, dx, dh0, *[None] * 7


def carried(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a state between pieces: float32 at least."""
    return torch.float32 if dtype in HALF else dtype


def reduced(
    a: Tensor,
    x: Tensor,
    start: Tensor,
    dim: int,
    reverse: bool,
    algorithm: str,
    *,
    weighted: bool = False,
) -> tuple[Tensor, Tensor]:
    """(A, B) of a piece: the product of its coefficients, and its last state from ``start``.

    Worked through in parts that fit a cache, so no state but the last is kept. With ``weighted``
    the inputs are a * x. Both come in float64 or complex128, so that products keep in range.
    """
    wide = torch.complex128 if x.dtype.is_complex else torch.float64
    shape = sweep.broadcast_shape(a, x)
    a = a.reshape((1,) * (len(shape) - a.dim()) + a.shape)
    along = [shape[dim] if axis == dim else -1 for axis in range(a.dim())]
    a = plain(a).expand(along)
    x = plain(x).expand(shape)
    product, end = torch.ones((), dtype=wide, device=x.device), start
    part = _PART.get(x.device.type, 2**26) // max(start.numel(), 1)
    size = max(part, _FEWEST_STEPS)
    begins = range(0, shape[dim], size) if start.numel() else ()
    for begin in reversed(begins) if reverse else begins:
        extent = min(size, shape[dim] - begin)
        a_part, x_part = (t.narrow(dim, begin, extent).to(start.dtype) for t in (a, x))
        product = product * a_part.prod(dim, dtype=wide)
        x_part = a_part * x_part if weighted else x_part
        h = sweep.forward(a_part, x_part, end, dim, reverse, algorithm)
        end = h.select(dim, 0 if reverse else -1)
    return product.expand(start.shape).contiguous(), end.to(wide)


def folded(products: Tensor, ends: Tensor) -> Tensor:
    """ends[0], carried through the pieces (products[k], ends[k + 1]) one after the other."""
    state = ends[0]
    for product, end in zip(products, ends[1:], strict=True):
        # A state of zero stays one, even where the product is out of range.
        state = torch.where(state == 0, state, product * state) + end
    return state
