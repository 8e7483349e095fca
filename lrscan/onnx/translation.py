"""Translation of the operator to ONNX, in onnxscript. :mod:`lrscan.onnx` returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from onnxscript import BFLOAT16, FLOAT, FLOAT16, INT64, graph, script, values
from onnxscript import opset18 as op
from onnxscript.onnx_types import TensorType

# The tensors of the graph have any shape, but share one dtype.
Value = TypeVar("Value", bound=TensorType)


def linear_recurrence(a, x, h0, dim: int, reverse: bool, algorithm: str, cu_seqlens):
    """Build the graph of :func:`lrscan.linear_recurrence`.

    The exporter knows how many axes each tensor has, and which of them have size one. Other sizes
    may be open.
    """
    if cu_seqlens is not None:
        raise NotImplementedError(
            "cu_seqlens has no translation to ONNX; begin each sequence with a coefficient of "
            "zero, which lrscan.reset_where(a, mask) sets, or pad the sequences to one length"
        )
    axes = max(len(a.shape), len(x.shape))
    dim %= axes
    one = op.Constant(value_ints=[1])

    def size(axis):
        """Return the size of an axis of the result, which is that of a if x is broadcast."""
        for given in (x, a):
            own = axis - axes + len(given.shape)
            if own >= 0 and given.shape[own] != 1:
                return op.Shape(given, start=own, end=own + 1)
        return one

    time = [size(dim) if axis == dim else one for axis in range(axes)]
    columns = [size(axis) for axis in range(axes) if axis != dim]
    operands = []
    for given in (a, x):
        whole = len(given.shape) == axes and given.shape[dim] != 1
        operands.append(given if whole else op.Expand(given, op.Concat(*time, axis=0)))
    operands.append(op.CastLike(0.0, x) if h0 is None else h0)
    if columns:
        operands[2] = op.Expand(operands[2], op.Concat(*columns, axis=0))
    half = x.dtype in (FLOAT16.dtype, BFLOAT16.dtype)
    if half:
        operands = [op.Cast(operand, to=FLOAT.dtype) for operand in operands]
    order = [dim, *(axis for axis in range(axes) if axis != dim)]
    if dim:
        operands[:2] = [op.Transpose(operand, perm=order) for operand in operands[:2]]
    swap = [1, 0, *range(2, axes + 1)]
    h = blocks(*operands, swap=swap, one=[int(reverse)], two=[int(reverse)] * 2)
    if dim:
        h = op.Transpose(h, perm=[order.index(axis) for axis in range(axes)])
    return op.Cast(h, to=x.dtype) if half else h


@script(values.Opset("lrscan", 1), default_opset=op)
def blocks(
    a: Value,
    x: Value,
    h0: Value,
    swap: Sequence[int],
    one: Sequence[int],
    two: Sequence[int],
) -> Value:
    """Compute the recurrence along the first axis, in K blocks of L steps.

    K and L are both about the square root of T. Each step handles all blocks at once. Every block
    starts from a state of zero and keeps the product p of its coefficients. Then the state before
    each block follows from p and h at the last steps of the blocks::

        h[k, t] = a[k, t] * h[k, t-1] + x[k, t]        p[k, t] = a[k, t] * p[k, t-1]
        before[k+1] = p[k, last] * before[k] + h[k, last]
        h[k, t] += p[k, t] * before[k]

    This multiplies by coefficients of zero. Also, a product may overflow although no state does.
    Both lead to a last state that is not finite. In that case the steps run one after the other.

    Args:
        a: (T, ...), broadcasts with x
        x: (T, ...), broadcasts with a
        h0: the state before the first step, with the shape of one step of the result
        swap: the permutation of axes from (K, L, ...) to (L, K, ...)
        one: the direction of one operand of Scan: [0] or, for reverse, [1]
        two: the directions of two operands: [0, 0] or [1, 1]

    Source: Martin and Cundy 2018, arXiv:1709.04057, Algorithm 1, with blocks instead of threads.
    """
    T = op.Shape(x, start=0, end=1)
    some = op.Max(T, op.Constant(value_ints=[1]))
    L = op.Cast(op.Ceil(op.Sqrt(op.Cast(some, to=FLOAT.dtype))), to=INT64.dtype)
    K = (some + L - 1) / L
    a_step = op.Shape(a, start=1)
    x_step = op.Shape(x, start=1)
    # Steps with a = 1 and x = 0 change nothing. They fill the last block.
    ones = op.Expand(op.CastLike(1.0, a), op.Concat(K * L - T, a_step, axis=0))
    zeros = op.Expand(op.CastLike(0.0, x), op.Concat(K * L - T, x_step, axis=0))
    a_all = op.Concat(a, ones, axis=0)
    x_all = op.Concat(x, zeros, axis=0)
    a_blocks = op.Reshape(a_all, op.Concat(K, L, a_step, axis=0), allowzero=1)
    x_blocks = op.Reshape(x_all, op.Concat(K, L, x_step, axis=0), allowzero=1)

    @graph()
    def within(h, p, a_t, x_t):
        h_t = a_t * h + x_t
        p_t = a_t * p
        return h_t, p_t, op.Identity(h_t), op.Identity(p_t)

    @graph()
    def across(before, p, h):
        after = p * before + h
        return after, op.Identity(before)

    @graph()
    def forgetting(h, a_t, x_t):
        h_t = op.Where(a_t == op.CastLike(0.0, a_t), x_t, a_t * h + x_t)
        return h_t, op.Identity(h_t)

    h_none = op.Expand(op.CastLike(0.0, x), op.Concat(K, op.Shape(h0), axis=0))
    p_none = op.Expand(op.CastLike(1.0, a), op.Concat(K, a_step, axis=0))
    h_last, p_last, h_own, p_own = op.Scan(
        h_none,
        p_none,
        op.Transpose(a_blocks, perm=swap),
        op.Transpose(x_blocks, perm=swap),
        body=within,
        num_scan_inputs=2,
        scan_input_directions=two,
        scan_output_directions=two,
    )
    end, before = op.Scan(
        h0,
        p_last,
        h_last,
        body=across,
        num_scan_inputs=2,
        scan_input_directions=two,
        scan_output_directions=one,
    )
    if op.ReduceSum(end - end, keepdims=0) == op.CastLike(0.0, end):  # infinity minus itself is NaN
        whole = op.Transpose(h_own + p_own * before, perm=swap)
        h = op.Reshape(whole, op.Concat(K * L, op.Shape(h0), axis=0), allowzero=1)
    else:
        _, h = op.Scan(
            h0,
            a_all,
            x_all,
            body=forgetting,
            num_scan_inputs=2,
            scan_input_directions=two,
            scan_output_directions=one,
        )
    return op.Slice(h, [0], T, [0])
