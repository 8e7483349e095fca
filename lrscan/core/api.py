"""The public functions: they check their arguments and call a backend."""

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

    A coefficient of exactly zero forgets everything before it. It is not multiplied, so it forgets
    NaN and infinity too, as :func:`torch.addmm` does with a beta of zero. A zero therefore begins a
    new sequence. Nothing passes from one sequence to another, in h or in a gradient, with one
    exception: da at the zero itself, see below.

    h is differentiable in ``a``, ``x`` and ``h0``, to any order. Let g be the gradient at h through
    all later steps. Then::

        g[t]  = dh[t] + conj(a[t+1]) * g[t+1]
        da[t] = conj(h[t-1]) * g[t]
        dx[t] = g[t]
        dh0   = conj(a[0]) * g[0]

    At a coefficient of zero, da is NaN if the state before it is not finite. Derivatives of da
    multiply as torch does, so zero times NaN is NaN there.

    Forward mode and reverse mode combine in either order. Forward mode over forward mode is not
    supported, nor is forward mode within ``torch.compile``.

    Args:
        a:          (T, ...)   coefficients, which broadcast with ``x``; or one number for all steps
        x:          (T, ...)   inputs. T may be 0
        h0:         (...)      state before the first step, which broadcasts to one step of h;
                               (N, ...) with ``cu_seqlens``; zero if None
        dim:        the axis of time. The shapes here are for 0; otherwise T and N move to ``dim``
        reverse:    if True, run from the last step to the first
        algorithm:  "serial" (a column is done by one thread), "blocked" (Algorithm 1 of the paper)
                    or "auto" (chosen by shape). On CUDA also "single_pass" (chained scan with
                    look-back) and "serial_paper" (a plain loop, the paper's baseline)
        cu_seqlens: (N + 1,)   cumulative lengths of N packed sequences, int32 or int64; None for a
                               single sequence

    Dtypes:
        ``a``, ``x`` and ``h0`` share one dtype: float64, float32, float16, bfloat16, complex64 or
        complex128. Half precision is accumulated in float32. ``a`` and ``h0`` may then be float32,
        which a carried state should be; a number for ``a`` is taken as float32. With a complex
        ``x``, ``a`` and ``h0`` may be real, of the same precision. They are widened to complex
        copies, and their gradients are real. Under autocast, floating dtypes that differ become the
        widest of them.

    Layouts:
        Every layout is read in place. If ``a`` or ``x`` is broadcast over an axis, neither the
        input nor its gradient is materialised over that axis. DTensors may be sharded over columns,
        but not over time.

    Packed sequences:
        The sequences are adjacent along ``dim``. ``cu_seqlens`` begins with 0 and never decreases.
        Sequence n has the steps from ``cu_seqlens[n]`` up to, but not including,
        ``cu_seqlens[n+1]``. It may be empty. Each sequence starts from its own ``h0`` and is
        reversed on its own. Steps from ``cu_seqlens[-1]`` on are ignored: h is zero there, and so
        are the gradients of ``a`` and ``x``, whatever values these have. The host reads
        ``cu_seqlens``. If it is on a GPU, the host waits for that device, so prefer a tensor on the
        CPU.

    Returns:
        h, with the broadcast shape of ``a`` and ``x`` and the dtype of ``x``. It agrees with the
        serial loop to within rounding, as long as the loop does not overflow. The same inputs give
        the same bits on every run, unless ``algorithm`` is "auto" and the number of threads
        changes.

    Raises:
        TypeError: an argument has the wrong type, or a dtype is not supported
        ValueError: shapes, devices, ``dim``, ``algorithm`` or ``cu_seqlens`` do not fit
        NotImplementedError: forward mode over forward mode, or within ``torch.compile``

    Example:
        >>> import torch
        >>> from lrscan import linear_recurrence
        >>> a, x = torch.full((4,), 0.5), torch.ones(4)
        >>> linear_recurrence(a, x)
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
        >>> linear_recurrence(a, x, h0=torch.tensor(2.0))
        tensor([2., 2., 2., 2.])

    Source: Martin and Cundy 2018, arXiv:1709.04057, sections 2.2 and 2.3.
    """
    cu_seqlens = None if cu_seqlens is None else lengths_on_the_host(cu_seqlens)
    a, x, h0 = converted(a, x, h0)
    dim = check(a, x, h0, dim, reverse, algorithm, cu_seqlens)
    return recurrence(a, x, h0, dim, reverse, algorithm, cu_seqlens)


def linear_recurrence_step(a: Tensor | complex, x: Tensor, h: Tensor) -> Tensor:
    """One time step for streaming: ``a * h + x``, or ``x`` where ``a`` is exactly zero.

    Args:
        a: coefficient of this step, which broadcasts with ``x``; or a number
        x: input of this step
        h: state before this step

    Returns:
        The state after this step. It equals the result of :func:`linear_recurrence` for a sequence
        of one step that starts from ``h``. If ``x`` has half precision and ``h`` is float32, the
        result is float32, so a carried state is not rounded at every step.

    Raises:
        TypeError: an argument is not a tensor, or its dtype does not fit
        ValueError: shapes or devices do not fit

    Example:
        >>> import torch
        >>> from lrscan import linear_recurrence_step
        >>> h = torch.zeros(2)
        >>> for x in torch.tensor([[1.0, 0.0], [0.0, 4.0]]):
        ...     h = linear_recurrence_step(0.5, x, h)
        >>> h
        tensor([0.5000, 4.0000])
    """
    a, x, before = converted(a, x, h)
    if before is None:  # check() reads None as a state of zero
        raise TypeError("h must be a tensor, not None")
    one_a, one_x = (t.unsqueeze(0) if isinstance(t, Tensor) else t for t in (a, x))
    check(one_a, one_x, before, 0, False, "auto", state="h")
    dtype = torch.promote_types(x.dtype, before.dtype)
    if x.dtype in HALF:
        wide = state_dtype(x.dtype)
        a, x, before = a.to(wide), x.to(wide), before.to(wide)
    if needs_derivatives(a, x, before):  # torch has NaN gradients at a zero
        return one_step(a, x, before).to(dtype)
    after = torch.addcmul(x, a, before)
    seen = torch.compiler.is_compiling() or intercepted(a, x, before)
    known = x.device.type == "cpu" and not seen
    if not (known and math.isfinite(abs(after.sum().item()))):  # else no zero had to forget
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
    """Run :func:`linear_recurrence` on packed sequences, with ``cu_seqlens`` as third argument.

    Arguments, result and errors are those of :func:`linear_recurrence`.

    Example:
        >>> import torch
        >>> from lrscan import packed_linear_recurrence
        >>> a, x = torch.full((5,), 0.5), torch.ones(5)
        >>> packed_linear_recurrence(a, x, torch.tensor([0, 2, 5]))
        tensor([1.0000, 1.5000, 1.0000, 1.5000, 1.7500])
    """
    cu_seqlens = lengths_on_the_host(cu_seqlens)
    return linear_recurrence(
        a, x, h0, dim=dim, reverse=reverse, algorithm=algorithm, cu_seqlens=cu_seqlens
    )


def reset_where(a: Tensor, mask: Tensor) -> Tensor:
    """Return ``a`` with zeros where ``mask`` is true, so that new sequences begin there.

    A coefficient of exactly zero forgets everything before it, including NaN and infinity; see
    :func:`linear_recurrence`. If sequences begin at the same steps in all columns, ``cu_seqlens``
    does the same and gives each sequence its own ``h0``.

    Args:
        a: coefficients
        mask: bool, broadcastable with ``a``. It has no axes, or at least as many as ``a``: write a
            mask over the first of three axes as ``mask[:, None, None]``

    Returns:
        A new tensor of the broadcast shape. No gradient flows to ``a`` where it was reset.

    Raises:
        TypeError: ``a`` is not a tensor, or ``mask`` is not a bool tensor
        ValueError: the shapes do not broadcast, or ``mask`` has fewer axes than ``a``

    Example:
        >>> import torch
        >>> from lrscan import linear_recurrence, reset_where
        >>> a, x = torch.full((4,), 0.5), torch.ones(4)
        >>> begins = torch.tensor([False, False, True, False])
        >>> linear_recurrence(reset_where(a, begins), x)
        tensor([1.0000, 1.5000, 1.0000, 1.5000])
    """
    if not isinstance(a, Tensor):
        raise TypeError(f"a must be a tensor, not {said(a)}")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else said(mask)
        raise TypeError(f"mask must be a tensor of torch.bool, not {found}")
    if 0 < mask.dim() < a.dim():  # torch would align it with the last axes of a
        index = ", ".join([":"] * mask.dim() + ["None"] * (a.dim() - mask.dim()))
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, fewer axes than a, whose shape is "
            f"{tuple(a.shape)}; write mask[{index}] if its axes are the first ones of a"
        )
    try:
        torch.broadcast_shapes(a.shape, mask.shape)
    except RuntimeError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, "
            f"which does not broadcast with the shape {tuple(a.shape)} of a"
        ) from None
    return torch.where(mask, 0, a)
