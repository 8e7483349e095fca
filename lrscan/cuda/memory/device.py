"""The bodies of :mod:`lrscan.cuda.memory` on a GPU, as Numba intrinsics.

Addresses are integers, in bytes, of global memory: one compiled kernel serves every layout, and
bfloat16 needs no type of its own.
"""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import described
from lrscan.core.machine_types import memory_type, numba_type
from lrscan.cuda.memory.alignment import access_bytes

__all__ = [
    "complete",
    "divide",
    "finite",
    "get",
    "get_shared",
    "is_nan",
    "load",
    "load_vector",
    "load_words",
    "nonzero",
    "opaque",
    "padded",
    "put",
    "put_shared",
    "store",
    "store_vector",
    "store_words",
    "take_ticket",
    "value_of",
    "words_of",
    "zero_or_nan",
]

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_GLOBAL = 1  # LLVM's address space of global memory
_FLAG = 1 << 32


def _pointer(builder, address, pointee, offset=0):
    if offset:
        address = builder.add(address, ir.Constant(_I64, offset))
    return builder.inttoptr(address, pointee.as_pointer(_GLOBAL))


def _widen(builder, kind, plane):
    number = described(kind).number
    if number == "bfloat16":  # the upper half of a float32
        bits = builder.shl(builder.zext(plane, _I32), ir.Constant(_I32, 16))
        return builder.bitcast(bits, _F32)
    return builder.fpext(plane, _F32) if number == "float16" else plane


def _narrow(builder, kind, plane):
    """Back again, rounded to nearest, ties to even."""
    number = described(kind).number
    if number == "bfloat16":
        # The hardware's own, which LLVM does not know; before sm_80 lrscan.cuda.bfloat16 stands in.
        conversion = ir.FunctionType(_I16, [_F32])
        code = ir.InlineAsm(conversion, "cvt.rn.bf16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(code, [plane])
    return builder.fptrunc(plane, memory_type(kind)) if number == "float16" else plane


def _planes(kind):
    """Planes of a value of a kind, of all its numbers."""
    return described(kind).planes * described(kind).numbers


def _numbers_from(context, builder, number, planes):
    """Numbers of Numba's type ``number`` from their planes: one each, or two."""
    if not isinstance(number, types.Complex):
        return planes
    found = []
    for real, imaginary in zip(planes[::2], planes[1::2], strict=True):
        value = context.make_complex(builder, number)
        value.real, value.imag = real, imaginary
        found.append(value._getvalue())
    return found


def _value_from(context, builder, value, planes):
    """A value of Numba's type ``value`` from the planes of its numbers."""
    if not isinstance(value, types.BaseTuple):
        return _numbers_from(context, builder, value, planes)[0]
    numbers = _numbers_from(context, builder, value.dtype, planes)
    return cgutils.pack_array(builder, numbers)


def _numbers_of(builder, value, given):
    """(Numba's type of its numbers, the numbers) of a value of Numba's type ``value``."""
    if not isinstance(value, types.BaseTuple):
        return value, [given]
    return value.dtype, cgutils.unpack_tuple(builder, given)


def _planes_of(context, builder, value, given):
    """The planes of the numbers of a value of Numba's type ``value``."""
    number, numbers = _numbers_of(builder, value, given)
    if not isinstance(number, types.Complex):
        return list(numbers)
    parts = (context.make_complex(builder, number, value=one) for one in numbers)
    return [plane for part in parts for plane in (part.real, part.imag)]


# ---------------------------------------------------------------- global memory


@intrinsic(prefer_literal=True)
def load(typingctx, kind, address):
    name = kind.literal_value
    size, value = described(name).bytes, numba_type(name)

    def lower(context, builder, signature, args):
        planes = []
        for plane in range(_planes(name)):
            pointer = _pointer(builder, args[1], memory_type(name), plane * size)
            planes.append(_widen(builder, name, builder.load(pointer, align=size)))
        return _value_from(context, builder, value, planes)

    return value(kind, types.int64), lower


@intrinsic(prefer_literal=True)
def store(typingctx, kind, address, value):
    name = kind.literal_value
    size, value = described(name).bytes, numba_type(name)

    def lower(context, builder, signature, args):
        for i, plane in enumerate(_planes_of(context, builder, value, args[2])):
            pointer = _pointer(builder, args[1], memory_type(name), i * size)
            builder.store(_narrow(builder, name, plane), pointer, align=size)
        return context.get_dummy_value()

    return types.none(kind, types.int64, value), lower


def _accesses(kind, count):
    """(planes in an access, accesses) of so many values."""
    width = access_bytes(kind, count) // described(kind).bytes
    return width, count * _planes(kind) // width


def _unpacked(builder, kind, vector):
    """The planes of a vector as it was read; two halves come in a word of 32 bits."""
    planes = []
    for lane in range(vector.type.count):
        plane = builder.extract_element(vector, ir.Constant(_I32, lane))
        if plane.type != _I32:
            planes.append(_widen(builder, kind, plane))
            continue
        high = builder.lshr(plane, ir.Constant(_I32, 16))
        for part in (plane, high):
            half = builder.trunc(part, _I16)
            planes.append(_widen(builder, kind, builder.bitcast(half, memory_type(kind))))
    return planes


def _packed(builder, kind, vector_type, planes):
    """Back again: a vector to be written."""
    planes = [_narrow(builder, kind, plane) for plane in planes]
    if vector_type.element == _I32:
        bits = [builder.zext(builder.bitcast(plane, _I16), _I32) for plane in planes]
        planes = [
            builder.or_(low, builder.shl(high, ir.Constant(_I32, 16)))
            for low, high in zip(bits[::2], bits[1::2], strict=True)
        ]
    vector = ir.Constant(vector_type, ir.Undefined)
    for lane, plane in enumerate(planes):
        vector = builder.insert_element(vector, plane, ir.Constant(_I32, lane))
    return vector


def _vector_type(kind, width):
    """What so many planes are accessed as. Halves go in pairs: LLVM splits a vector of eight."""
    if described(kind).bytes == 2 and width % 2 == 0:
        return ir.VectorType(_I32, width // 2)
    return ir.VectorType(memory_type(kind), width)


@intrinsic(prefer_literal=True)
def load_vector(typingctx, kind, count, address, array, i):
    name, number = kind.literal_value, array.dtype
    size, each = described(name).bytes, described(name).numbers
    width, accesses = _accesses(name, count.literal_value)

    def lower(context, builder, signature, args):
        vector = _vector_type(name, width)
        planes = []
        for access in range(accesses):
            pointer = _pointer(builder, args[2], vector, access * width * size)
            planes += _unpacked(builder, name, builder.load(pointer, align=width * size))
        numbers = _numbers_from(context, builder, number, planes)
        _write(context, builder, array, args[3], _first(builder, args[4], each), numbers)
        return context.get_dummy_value()

    return types.none(kind, count, types.int64, array, types.int64), lower


@intrinsic(prefer_literal=True)
def store_vector(typingctx, kind, count, address, array, i):
    name, number = kind.literal_value, array.dtype
    size, each = described(name).bytes, described(name).numbers
    numbers = count.literal_value * each
    width, accesses = _accesses(name, count.literal_value)

    def lower(context, builder, signature, args):
        first = _first(builder, args[4], each)
        found = _read(context, builder, array, args[3], first, numbers)
        planes = [p for n in found for p in _planes_of(context, builder, number, n)]
        for access in range(accesses):
            own = planes[access * width : (access + 1) * width]
            vector = _packed(builder, name, _vector_type(name, width), own)
            pointer = _pointer(builder, args[2], vector.type, access * width * size)
            builder.store(vector, pointer, align=width * size)
        return context.get_dummy_value()

    return types.none(kind, count, types.int64, array, types.int64), lower


# ---------------------------------------------------------------- arrays of numbers


def _first(builder, i, each):
    """The index of the first number of value i, each of so many."""
    return builder.mul(i, ir.Constant(_I64, each))


def _first_shared(builder, first, i, each):
    """The same of those that begin with the number ``first``, in arithmetic of 32 bits."""
    index = builder.mul(builder.trunc(i, _I32), ir.Constant(_I32, each))
    return builder.add(builder.trunc(first, _I32), index)


def _places(context, builder, array, given, first, count):
    data = context.make_array(array)(context, builder, given).data
    for i in range(count):
        index = builder.add(first, ir.Constant(first.type, i))
        yield builder.gep(data, [index if first.type == _I64 else builder.zext(index, _I64)])


def _read(context, builder, array, given, first, count):
    places = _places(context, builder, array, given, first, count)
    return [context.unpack_value(builder, array.dtype, place) for place in places]


def _write(context, builder, array, given, first, numbers):
    places = _places(context, builder, array, given, first, len(numbers))
    for place, number in zip(places, numbers, strict=True):
        context.pack_value(builder, array.dtype, number, place)


def _got(context, builder, value, array, given, first):
    count = value.count if isinstance(value, types.BaseTuple) else 1
    numbers = _read(context, builder, array, given, first, count)
    return cgutils.pack_array(builder, numbers) if count > 1 else numbers[0]


@intrinsic(prefer_literal=True)
def get(typingctx, kind, array, i):
    value, each = numba_type(kind.literal_value), described(kind.literal_value).numbers

    def lower(context, builder, signature, args):
        return _got(context, builder, value, array, args[1], _first(builder, args[2], each))

    return value(kind, array, types.int64), lower


@intrinsic(prefer_literal=True)
def get_shared(typingctx, kind, array, first, i):
    value, each = numba_type(kind.literal_value), described(kind.literal_value).numbers

    def lower(context, builder, signature, args):
        first = _first_shared(builder, args[2], args[3], each)
        return _got(context, builder, value, array, args[1], first)

    return value(kind, array, types.int64, types.int64), lower


@intrinsic
def put(typingctx, array, i, value):
    def lower(context, builder, signature, args):
        _, numbers = _numbers_of(builder, value, args[2])
        _write(context, builder, array, args[0], _first(builder, args[1], len(numbers)), numbers)
        return context.get_dummy_value()

    return types.none(array, types.int64, value), lower


@intrinsic
def put_shared(typingctx, array, first, i, value):
    def lower(context, builder, signature, args):
        _, numbers = _numbers_of(builder, value, args[3])
        first = _first_shared(builder, args[1], args[2], len(numbers))
        _write(context, builder, array, args[0], first, numbers)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, value), lower


# ---------------------------------------------------------------- values


def _compared(context, builder, value, given, comparison, ordered=True):
    """How each plane of a value compares with zero."""
    compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
    return [
        compare(comparison, plane, ir.Constant(plane.type, 0.0))
        for plane in _planes_of(context, builder, value, given)
    ]


@intrinsic
def finite(typingctx, value):
    def lower(context, builder, signature, args):
        planes = _planes_of(context, builder, value, args[0])
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
        zeros = functools.reduce(
            builder.and_, _compared(context, builder, value, args[0], "==")
        )
        nans = _compared(context, builder, value, args[0], "uno", ordered=False)
        return builder.or_(zeros, functools.reduce(builder.or_, nans))

    return types.boolean(value), lower


# ---------------------------------------------------------------- what blocks share


def _assembly(builder, result, text, constraints, args):
    """Inline assembly that is neither moved, merged nor dropped.

    Numba's own cache-hinted loads are not marked so: a loop that polls with one is turned into a
    single load before an endless loop.
    """
    kind = ir.FunctionType(result, [arg.type for arg in args])
    code = ir.InlineAsm(kind, text, f"{constraints},~{{memory}}", side_effect=True)
    return builder.call(code, args)


@intrinsic
def take_ticket(typingctx, address):
    def lower(context, builder, signature, args):
        text = "atom.add.relaxed.gpu.global.u64 $0, [$1], 1;"
        return _assembly(builder, _I64, text, "=l,l", args)

    return types.int64(types.int64), lower


@intrinsic(prefer_literal=True)
def load_words(typingctx, address, count):
    words = types.UniTuple(types.int64, count.literal_value)

    def lower(context, builder, signature, args):
        found = []
        for i in range(len(words)):
            at = builder.add(args[0], ir.Constant(_I64, 8 * i))
            text = "ld.relaxed.gpu.global.u64 $0, [$1];"
            found.append(_assembly(builder, _I64, text, "=l,l", [at]))
        return cgutils.pack_array(builder, found)

    return words(types.int64, count), lower


@intrinsic
def store_words(typingctx, address, words):
    def lower(context, builder, signature, args):
        for i, word in enumerate(cgutils.unpack_tuple(builder, args[1])):
            at = builder.add(args[0], ir.Constant(_I64, 8 * i))
            text = "st.relaxed.gpu.global.u64 [$0], $1;"
            _assembly(builder, ir.VoidType(), text, "l,l", [at, word])
        return context.get_dummy_value()

    return types.none(types.int64, words), lower


@intrinsic
def complete(typingctx, words):
    def lower(context, builder, signature, args):
        together = functools.reduce(builder.and_, cgutils.unpack_tuple(builder, args[0]))
        flag = builder.and_(together, ir.Constant(_I64, _FLAG))
        return builder.icmp_unsigned("!=", flag, ir.Constant(_I64, 0))

    return types.boolean(words), lower


@intrinsic
def words_of(typingctx, value):
    number = value.dtype if isinstance(value, types.BaseTuple) else value
    bits = (value.count if isinstance(value, types.BaseTuple) else 1) * number.bitwidth
    result = types.UniTuple(types.int64, bits // 32)

    def lower(context, builder, signature, args):
        words = []
        for plane in _planes_of(context, builder, value, args[0]):
            if plane.type == _F32:
                words.append(builder.zext(builder.bitcast(plane, _I32), _I64))
            else:
                whole = builder.bitcast(plane, _I64)
                words.append(builder.and_(whole, ir.Constant(_I64, 0xFFFFFFFF)))
                words.append(builder.lshr(whole, ir.Constant(_I64, 32)))
        flagged = [builder.or_(word, ir.Constant(_I64, _FLAG)) for word in words]
        return cgutils.pack_array(builder, flagged)

    return result(value), lower


@intrinsic(prefer_literal=True)
def value_of(typingctx, kind, words):
    name = kind.literal_value
    value = numba_type(name)

    def lower(context, builder, signature, args):
        parts = [builder.trunc(w, _I32) for w in cgutils.unpack_tuple(builder, args[1])]
        if described(name).bytes == 4:
            planes = [builder.bitcast(part, _F32) for part in parts]
        else:
            planes = []
            for low, high in zip(parts[::2], parts[1::2], strict=True):
                high = builder.shl(builder.zext(high, _I64), ir.Constant(_I64, 32))
                bits = builder.or_(builder.zext(low, _I64), high)
                planes.append(builder.bitcast(bits, _F64))
        return _value_from(context, builder, value, planes)

    return value(kind, words), lower


# ---------------------------------------------------------------- numbers to count with


@intrinsic
def divide(typingctx, n, m):
    def lower(context, builder, signature, args):
        n, m = (builder.trunc(arg, _I32) for arg in args)
        parts = [builder.udiv(n, m), builder.urem(n, m)]
        return cgutils.pack_array(builder, [builder.zext(part, _I64) for part in parts])

    return types.UniTuple(types.int64, 2)(types.int64, types.int64), lower


@intrinsic
def opaque(typingctx, n):
    def lower(context, builder, signature, args):
        n = context.cast(builder, args[0], signature.args[0], types.int64)
        return _assembly(builder, _I64, "mov.b64 $0, $1;", "=l,l", [n])

    return types.int64(n), lower


@intrinsic(prefer_literal=True)
def padded(typingctx, i, shift):
    def lower(context, builder, signature, args):
        i = builder.trunc(args[0], _I32)
        skipped = builder.lshr(i, ir.Constant(_I32, shift.literal_value))
        return builder.zext(builder.add(i, skipped), _I64)

    return types.int64(types.int64, shift), lower
