"""Words and tickets in memory that all blocks share, with instructions that no compiler moves."""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import described
from lrscan.core.machine_types import numba_type
from lrscan.cuda.memory.device_values import F32, F64, I32, I64, planes_of, value_from

_FLAG = 1 << 32


def assembly(builder, result, text, constraints, args):
    """Emit inline assembly that the compiler does not move, merge or drop.

    Numba's own loads with cache hints are not marked like this. The compiler turns a loop that
    polls with one of them into a single load before an endless loop.
    """
    kind = ir.FunctionType(result, [arg.type for arg in args])
    code = ir.InlineAsm(kind, text, f"{constraints},~{{memory}}", side_effect=True)
    return builder.call(code, args)


@intrinsic
def take_ticket(typingctx, address):
    def lower(context, builder, signature, args):
        text = "atom.add.relaxed.gpu.global.u64 $0, [$1], 1;"
        return assembly(builder, I64, text, "=l,l", args)

    return types.int64(types.int64), lower


@intrinsic(prefer_literal=True)
def load_words(typingctx, address, count):
    words = types.UniTuple(types.int64, count.literal_value)

    def lower(context, builder, signature, args):
        found = []
        for i in range(len(words)):
            at = builder.add(args[0], ir.Constant(I64, 8 * i))
            text = "ld.relaxed.gpu.global.u64 $0, [$1];"
            found.append(assembly(builder, I64, text, "=l,l", [at]))
        return cgutils.pack_array(builder, found)

    return words(types.int64, count), lower


@intrinsic
def store_words(typingctx, address, words):
    def lower(context, builder, signature, args):
        for i, word in enumerate(cgutils.unpack_tuple(builder, args[1])):
            at = builder.add(args[0], ir.Constant(I64, 8 * i))
            text = "st.relaxed.gpu.global.u64 [$0], $1;"
            assembly(builder, ir.VoidType(), text, "l,l", [at, word])
        return context.get_dummy_value()

    return types.none(types.int64, words), lower


@intrinsic
def complete(typingctx, words):
    def lower(context, builder, signature, args):
        together = functools.reduce(builder.and_, cgutils.unpack_tuple(builder, args[0]))
        flag = builder.and_(together, ir.Constant(I64, _FLAG))
        return builder.icmp_unsigned("!=", flag, ir.Constant(I64, 0))

    return types.boolean(words), lower


@intrinsic
def words_of(typingctx, value):
    number = value.dtype if isinstance(value, types.BaseTuple) else value
    bits = (value.count if isinstance(value, types.BaseTuple) else 1) * number.bitwidth
    result = types.UniTuple(types.int64, bits // 32)

    def lower(context, builder, signature, args):
        words = []
        for plane in planes_of(context, builder, value, args[0]):
            if plane.type == F32:
                words.append(builder.zext(builder.bitcast(plane, I32), I64))
            else:
                whole = builder.bitcast(plane, I64)
                words.append(builder.and_(whole, ir.Constant(I64, 0xFFFFFFFF)))
                words.append(builder.lshr(whole, ir.Constant(I64, 32)))
        flagged = [builder.or_(word, ir.Constant(I64, _FLAG)) for word in words]
        return cgutils.pack_array(builder, flagged)

    return result(value), lower


@intrinsic(prefer_literal=True)
def value_of(typingctx, kind, words):
    name = kind.literal_value
    value = numba_type(name)

    def lower(context, builder, signature, args):
        parts = [builder.trunc(w, I32) for w in cgutils.unpack_tuple(builder, args[1])]
        if described(name).bytes == 4:
            planes = [builder.bitcast(part, F32) for part in parts]
        else:
            planes = []
            for low, high in zip(parts[::2], parts[1::2], strict=True):
                high = builder.shl(builder.zext(high, I64), ir.Constant(I64, 32))
                bits = builder.or_(builder.zext(low, I64), high)
                planes.append(builder.bitcast(bits, F64))
        return value_from(context, builder, value, planes)

    return value(kind, words), lower
