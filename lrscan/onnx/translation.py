"""What the operator is in ONNX, in onnxscript; :mod:`lrscan.onnx` hands it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from onnxscript import BFLOAT16, FLOAT, FLOAT16, INT64, graph, script, values
from onnxscript import opset18 as op
from onnxscript.onnx_types import TensorType

# Tensors of the graph that is made: of any shape, but of one dtype.
Value = TypeVar("Value", bound=TensorType)


def linear_recurrence(a, x, h0, dim: int, reverse: bool, algorithm: str, cu_seqlens):
    """:func:`lrscan.linear_recurrence`; of the tensors the axes are known, and sizes of one."""
    if cu_seqlens is not None:
        raise NotImplementedError(
            "cu_seqlens has no translation to ONNX: begin each sequence with a coefficient of "
            "zero, as lrscan.reset_where(a, mask) makes them, or pad the sequences to one length"
        )
    axes = max(len(a.shape), len(x.shape))
    dim %= axes
    one = op.Constant(value_ints=[1])

    def size(axis):
        """Of the result: where x is broadcast it is that of a."""
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
    """The recurrence along the first axis, in K blocks of L steps, both about the root of T.

    Each step is of all blocks at once, each from a state of zero, and keeps the product p of its
    block's coefficients; then the states before blocks follow from p and h of their last steps:

        h[k, t] = a[k, t] * h[k, t-1] + x[k, t]        p[k, t] = a[k, t] * p[k, t-1]
        before[k+1] = p[k, last] * before[k] + h[k, last]
        h[k, t] += p[k, t] * before[k]

    That multiplies by coefficients of zero, and a product may overflow where no state does. Both
    leave a last state that is not finite; then the steps are taken one after the other.

    Args:
        a:        (T, ...), broadcastable with x
        h0:       of the shape of a step of the result
        swap:     the axes of (K, L, ...) as (L, K, ...)
        one, two: the direction, 0 or 1, of one operand and of two

    Source: Martin and Cundy 2018, arXiv:1709.04057, Algorithm 1, a block in the place of a thread.
    """
    T = op.Shape(x, start=0, end=1)
    some = op.Max(T, op.Constant(value_ints=[1]))
    L = op.Cast(op.Ceil(op.Sqrt(op.Cast(some, to=FLOAT.dtype))), to=INT64.dtype)
    K = (some + L - 1) / L
    a_step = op.Shape(a, start=1)
    x_step = op.Shape(x, start=1)
    # Steps that change nothing fill the last block.
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
    if op.ReduceSum(end - end, keepdims=0) == op.CastLike(0.0, end):  # infinity less itself is NaN
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
