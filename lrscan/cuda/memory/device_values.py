"""Values on a GPU, as LLVM sees them: numbers and planes, and what is asked of them.

Numba's type of a value is that of one number, or a tuple of them. A complex number has two planes,
a real one itself.
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
    """From the type in memory to that of the arithmetic."""
    number = described(kind).number
    if number == "bfloat16":  # the upper half of a float32
        bits = builder.shl(builder.zext(plane, I32), ir.Constant(I32, 16))
        return builder.bitcast(bits, F32)
    return builder.fpext(plane, F32) if number == "float16" else plane


def narrow(builder, kind, plane):
    """Back again, rounded to nearest, ties to even."""
    number = described(kind).number
    if number == "bfloat16":
        # The hardware's own, which LLVM does not know; before sm_80 lrscan.cuda.bfloat16 stands in.
        conversion = ir.FunctionType(I16, [F32])
        code = ir.InlineAsm(conversion, "cvt.rn.bf16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(code, [plane])
    return builder.fptrunc(plane, memory_type(kind)) if number == "float16" else plane


def planes_in(kind):
    """Planes of a value of a kind, of all its numbers."""
    return described(kind).planes * described(kind).numbers


def numbers_from(context, builder, number, planes):
    """Numbers of Numba's type ``number`` from their planes: one each, or two."""
    if not isinstance(number, types.Complex):
        return planes
    found = []
    for real, imaginary in zip(planes[::2], planes[1::2], strict=True):
        value = context.make_complex(builder, number)
        value.real, value.imag = real, imaginary
        found.append(value._getvalue())
    return found


def value_from(context, builder, value, planes):
    """A value of Numba's type ``value`` from the planes of its numbers."""
    if not isinstance(value, types.BaseTuple):
        return numbers_from(context, builder, value, planes)[0]
    numbers = numbers_from(context, builder, value.dtype, planes)
    return cgutils.pack_array(builder, numbers)


def numbers_of(builder, value, given):
    """(Numba's type of its numbers, the numbers) of a value of Numba's type ``value``."""
    if not isinstance(value, types.BaseTuple):
        return value, [given]
    return value.dtype, cgutils.unpack_tuple(builder, given)


def planes_of(context, builder, value, given):
    """The planes of the numbers of a value of Numba's type ``value``."""
    number, numbers = numbers_of(builder, value, given)
    if not isinstance(number, types.Complex):
        return list(numbers)
    parts = (context.make_complex(builder, number, value=one) for one in numbers)
    return [plane for part in parts for plane in (part.real, part.imag)]


def _compared(context, builder, value, given, comparison, ordered=True):
    """How each plane of a value compares with zero."""
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
