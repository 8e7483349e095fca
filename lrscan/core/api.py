"""The operator: its arguments, checked, and its way to a backend."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import lrscan.core.torch_library  # noqa: F401  (the operator of torch's dispatcher, for compile)
from lrscan.core.autograd import intercepted, needs_derivatives, one_step, recurrence
from lrscan.core.checks import check, converted, lengths_on_the_host, said
from lrscan.core.dtypes import HALF, state_dtype


def linear_recurrence(
    a: Tensor | complex,
    x: Tensor,
    h0: Tensor | None = None,
    *,
    dim: int = 0,
    reverse: bool = False,
    algorithm: str = "auto",
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """``h[t] = a[t] * h[t-1] + x[t]`` along ``dim``, elementwise, in parallel over time.

    A coefficient of exactly zero is not multiplied: it forgets whatever was before, NaN and
    infinity too, as :func:`torch.addmm` does with a beta of zero. So a zero begins a sequence, and
    what is in one reaches no other, neither forward nor in a gradient.

    Differentiable in ``a``, ``x`` and ``h0``, to any order. Forward mode may be over or under
    reverse mode, but neither over itself nor within ``torch.compile``. With g the gradient at h
    through all later steps:

        g[t] = dh[t] + conj(a[t+1]) * g[t+1]      dx = g
        da[t] = conj(h[t-1]) * g[t]               dh0 = conj(a[0]) * g[0]

    (so ``da`` at a coefficient of zero is NaN if the state before is not finite; what is computed
    from it by differentiating once more multiplies zeros as torch does).

    Args:
        a:         coefficients, broadcastable with ``x``; or one number for all of them
        x:         inputs, any shape with an axis of time; T may be 0
        h0:        state before the first step, broadcastable to the shape of the result without
                   ``dim``; zero if None
        dim:       the axis of time
        reverse:   run from the last step to the first
        algorithm: "serial" (one thread a column), "blocked" (Algorithm 1 of the paper), on CUDA
                   also "single_pass" (chained scan with look-back) and "serial_paper" (a plain
                   loop, the paper's baseline), or "auto" (by shape)
        cu_seqlens: None for one sequence; for N sequences that lie end to end along ``dim``, their
                   cumulative lengths, (N + 1) of int32 or int64, which begin with 0 and do not
                   fall. Sequence n is made of the steps from ``cu_seqlens[n]`` up to
                   ``cu_seqlens[n+1]``; it may be empty, starts from its own ``h0``, which then has
                   N in the place of time, and is reversed on its own. Steps from
                   ``cu_seqlens[-1]`` on are left out: h is zero there, and so is the gradient of
                   ``a`` and ``x``, whatever these hold. The host reads the lengths: on a GPU that
                   waits for the device, unless they are on the CPU

    ``a``, ``x`` and ``h0`` have one dtype: float64, float32, float16, bfloat16, complex64 or
    complex128. Half precision is accumulated in float32; with it ``a`` and ``h0`` may be float32,
    which is what a carried state should be; so is a number for ``a``. With a complex ``x``, ``a``
    and ``h0`` may be real, of the same precision: they are widened to complex copies, and their
    gradients are real. Under autocast, floating dtypes that differ become the widest of them. All
    layouts are read in place; an axis that ``a`` or ``x`` is broadcast over is not
    materialised, nor is its gradient. Of DTensors the columns may be sharded, but not time.

    Returns:
        h, of the broadcast shape of ``a`` and ``x``, and with the dtype of ``x``. Within rounding
        of the serial loop as long as that does not overflow; the same inputs give the same bits
        on every run, with ``algorithm`` given or the number of threads unchanged.

    Raises:
        TypeError:  an argument of the wrong type, or a dtype that is not supported
        ValueError: shapes, devices, ``dim``, ``algorithm`` or ``cu_seqlens`` that do not fit
        NotImplementedError: a derivative in forward mode over itself or within ``torch.compile``

    Source: Martin and Cundy 2018, arXiv:1709.04057, sections 2.2 and 2.3.
    """
    cu_seqlens = None if cu_seqlens is None else lengths_on_the_host(cu_seqlens)
    a, x, h0 = converted(a, x, h0)
    dim = check(a, x, h0, dim, reverse, algorithm, cu_seqlens)
    return recurrence(a, x, h0, dim, reverse, algorithm, cu_seqlens)


def linear_recurrence_step(a: Tensor | complex, x: Tensor, h: Tensor) -> Tensor:
    """One time step, ``a * h + x``, for streaming; ``x`` where ``a`` is exactly zero.

    Args:
        a: coefficient of this step, broadcastable with ``x``; or a number
        x: input of this step
        h: state before it

    Returns:
        The state after it, equal to what :func:`linear_recurrence` gives for a sequence of one
        step that starts from ``h``. A half-precision ``x`` may have a float32 ``h``; the result
        then is float32, so that a carried state is not rounded at every step.

    Raises:
        TypeError:  an argument that is no tensor, or of a dtype that does not fit
        ValueError: shapes or devices that do not fit
    """
    a, x, before = converted(a, x, h)
    if before is None:  # which check takes for a state of zero
        raise TypeError("h must be a tensor, not None")
    one_a, one_x = (t.unsqueeze(0) if isinstance(t, Tensor) else t for t in (a, x))
    check(one_a, one_x, before, 0, False, "auto", state="h")
    dtype = torch.promote_types(x.dtype, before.dtype)
    if x.dtype in HALF:
        wide = state_dtype(x.dtype)
        a, x, before = a.to(wide), x.to(wide), before.to(wide)
    if needs_derivatives(a, x, before):  # to torch a zero has gradients of NaN
        return one_step(a, x, before).to(dtype)
    after = torch.addcmul(x, a, before)
    seen = torch.compiler.is_compiling() or intercepted(a, x, before)
    known = x.device.type == "cpu" and not seen
    if not (known and math.isfinite(abs(after.sum().item()))):  # then no zero had to forget
        after = torch.where(a == 0, x, after)
    return after.to(dtype)


def packed_linear_recurrence(
    a: Tensor | complex,
    x: Tensor,
    cu_seqlens: Tensor,
    h0: Tensor | None = None,
    *,
    dim: int = 0,
    reverse: bool = False,
    algorithm: str = "auto",
) -> Tensor:
    """:func:`linear_recurrence` of many sequences: the same with ``cu_seqlens`` in third place."""
    cu_seqlens = lengths_on_the_host(cu_seqlens)
    return linear_recurrence(
        a, x, h0, dim=dim, reverse=reverse, algorithm=algorithm, cu_seqlens=cu_seqlens
    )


def reset_where(a: Tensor, mask: Tensor) -> Tensor:
    """``a`` with zeros where ``mask`` is true: a sequence starts there, and forgets all before.

    A coefficient of exactly zero forgets NaN and infinity too, see :func:`linear_recurrence`. Where
    sequences begin at the same steps in all columns, ``cu_seqlens`` does the same, and gives each
    its own ``h0``.

    Args:
        a:    coefficients
        mask: bool, broadcastable with ``a``, with an axis for each of its axes or more, or with
              none: a mask over the first of three is ``mask[:, None, None]``

    Returns:
        A new tensor of the broadcast shape. No gradient flows to ``a`` where it was reset.

    Raises:
        TypeError:  ``a`` is not a tensor, or ``mask`` not one of bool
        ValueError: their shapes do not broadcast, or ``mask`` has fewer axes than ``a``
    """
    if not isinstance(a, Tensor):
        raise TypeError(f"a must be a tensor, not {said(a)}")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else said(mask)
        raise TypeError(f"mask must be a tensor of torch.bool, not {found}")
    if 0 < mask.dim() < a.dim():  # torch would align the last axes
        index = ", ".join([":"] * mask.dim() + ["None"] * (a.dim() - mask.dim()))
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, fewer axes than a {tuple(a.shape)}; write "
            f"mask[{index}] if its axes are the first ones of a"
        )
    try:
        torch.broadcast_shapes(a.shape, mask.shape)
    except RuntimeError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, which does not broadcast with a {tuple(a.shape)}"
        ) from None
    return torch.where(mask, 0, a)
