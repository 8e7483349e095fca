"""Values on a GPU in LLVM: their conversion from and to planes, and the tests of values.

Numba's type of a value is the type of one number, or a tuple of numbers. A complex number has two
planes, its real and imaginary part. A real number is its own single plane.
"""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import described
from lrscan.core.machine_types import memory_type

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()


def widen(builder, kind, plane):
    """Convert a plane from the type in memory to the type of the arithmetic."""
    number = described(kind).number
    if number == "bfloat16":  # the upper half of a float32
        bits = builder.shl(builder.zext(plane, I32), ir.Constant(I32, 16))
        return builder.bitcast(bits, F32)
    return builder.fpext(plane, F32) if number == "float16" else plane


def narrow(builder, kind, plane):
    """Convert a plane to the type in memory, rounded to nearest, ties to even."""
    number = described(kind).number
    if number == "bfloat16":
        # LLVM does not know this instruction. lrscan.cuda.bfloat16 replaces it before sm_80.
        conversion = ir.FunctionType(I16, [F32])
        code = ir.InlineAsm(conversion, "cvt.rn.bf16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(code, [plane])
    return builder.fptrunc(plane, memory_type(kind)) if number == "float16" else plane


def planes_in(kind):
    """Return how many planes a value of a kind has, over all its numbers."""
    return described(kind).planes * described(kind).numbers


def numbers_from(context, builder, number, planes):
    """Return numbers of Numba's type ``number``, given one plane each, or two if complex."""
    if not isinstance(number, types.Complex):
        return planes
    found = []
    for real, imaginary in zip(planes[::2], planes[1::2], strict=True):
        value = context.make_complex(builder, number)
        value.real, value.imag = real, imaginary
        found.append(value._getvalue())
    return found


def value_from(context, builder, value, planes):
    """Return a value of Numba's type ``value``, given the planes of its numbers."""
    if not isinstance(value, types.BaseTuple):
        return numbers_from(context, builder, value, planes)[0]
    numbers = numbers_from(context, builder, value.dtype, planes)
    return cgutils.pack_array(builder, numbers)


def numbers_of(builder, value, given):
    """Return (Numba's type of the numbers, the numbers) of a value of Numba's type ``value``."""
    if not isinstance(value, types.BaseTuple):
        return value, [given]
    return value.dtype, cgutils.unpack_tuple(builder, given)


def planes_of(context, builder, value, given):
    """Return the planes of a value of Numba's type ``value``, number after number."""
    number, numbers = numbers_of(builder, value, given)
    if not isinstance(number, types.Complex):
        return list(numbers)
    parts = (context.make_complex(builder, number, value=one) for one in numbers)
    return [plane for part in parts for plane in (part.real, part.imag)]


def _compared(context, builder, value, given, comparison, ordered=True):
    """Compare each plane of a value with zero, and return the results."""
    compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
    return [
        compare(comparison, plane, ir.Constant(plane.type, 0.0))
        for plane in planes_of(context, builder, value, given)
    ]


@intrinsic
def finite(typingctx, value):
    def lower(context, builder, signature, args):
        planes = planes_of(context, builder, value, args[0])
        nothing = [builder.fsub(plane, plane) for plane in planes]  # or NaN
        zeros = [builder.fcmp_ordered("==", n, ir.Constant(n.type, 0.0)) for n in nothing]
        return functools.reduce(builder.and_, zeros)

    return types.boolean(value), lower


@intrinsic
def nonzero(typingctx, value):
    def lower(context, builder, signature, args):
        zeros = _compared(context, builder, value, args[0], "==")
        return builder.not_(functools.reduce(builder.and_, zeros))

    return types.boolean(value), lower


@intrinsic
def is_nan(typingctx, value):
    def lower(context, builder, signature, args):
        nans = _compared(context, builder, value, args[0], "uno", ordered=False)
        return functools.reduce(builder.or_, nans)

    return types.boolean(value), lower


@intrinsic
def zero_or_nan(typingctx, value):
    def lower(context, builder, signature, args):
        either = _compared(context, builder, value, args[0], "==", ordered=False)
        if len(either) == 1:
            return either[0]
        zeros = functools.reduce(builder.and_, _compared(context, builder, value, args[0], "=="))
        nans = _compared(context, builder, value, args[0], "uno", ordered=False)
        return builder.or_(zeros, functools.reduce(builder.or_, nans))

    return types.boolean(value), lower
