"""Implementation of :mod:`lrscan.cuda.memory` for a GPU, as Numba intrinsics.

Addresses in global memory are integers, in bytes. So one compiled kernel serves every layout, and
bfloat16 needs no type of its own.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import described
from lrscan.core.machine_types import memory_type, numba_type
from lrscan.cuda.memory.alignment import access_bytes
from lrscan.cuda.memory.device_values import (
    I16,
    I32,
    I64,
    finite,
    is_nan,
    narrow,
    nonzero,
    numbers_from,
    numbers_of,
    planes_in,
    planes_of,
    value_from,
    widen,
    zero_or_nan,
)
from lrscan.cuda.memory.device_words import (
    assembly,
    complete,
    load_words,
    store_words,
    take_ticket,
    value_of,
    words_of,
)

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

_GLOBAL = 1  # LLVM's address space of global memory


def _pointer(builder, address, pointee, offset=0):
    if offset:
        address = builder.add(address, ir.Constant(I64, offset))
    return builder.inttoptr(address, pointee.as_pointer(_GLOBAL))


# ---------------------------------------------------------------- global memory


@intrinsic(prefer_literal=True)
def load(typingctx, kind, address):
    name = kind.literal_value
    size, value = described(name).bytes, numba_type(name)

    def lower(context, builder, signature, args):
        planes = []
        for plane in range(planes_in(name)):
            pointer = _pointer(builder, args[1], memory_type(name), plane * size)
            planes.append(widen(builder, name, builder.load(pointer, align=size)))
        return value_from(context, builder, value, planes)

    return value(kind, types.int64), lower


@intrinsic(prefer_literal=True)
def store(typingctx, kind, address, value):
    name = kind.literal_value
    size, value = described(name).bytes, numba_type(name)

    def lower(context, builder, signature, args):
        for i, plane in enumerate(planes_of(context, builder, value, args[2])):
            pointer = _pointer(builder, args[1], memory_type(name), i * size)
            builder.store(narrow(builder, name, plane), pointer, align=size)
        return context.get_dummy_value()

    return types.none(kind, types.int64, value), lower


def _accesses(kind, count):
    """Return (planes per access, number of accesses) for ``count`` values."""
    width = access_bytes(kind, count) // described(kind).bytes
    return width, count * planes_in(kind) // width


def _unpacked(builder, kind, vector):
    """Return the planes of a vector that was read. A 32-bit word has two 16-bit planes."""
    planes = []
    for lane in range(vector.type.count):
        plane = builder.extract_element(vector, ir.Constant(I32, lane))
        if plane.type != I32:
            planes.append(widen(builder, kind, plane))
            continue
        high = builder.lshr(plane, ir.Constant(I32, 16))
        for part in (plane, high):
            half = builder.trunc(part, I16)
            planes.append(widen(builder, kind, builder.bitcast(half, memory_type(kind))))
    return planes


def _packed(builder, kind, vector_type, planes):
    """Return planes as a vector to be written, the inverse of :func:`_unpacked`."""
    planes = [narrow(builder, kind, plane) for plane in planes]
    if vector_type.element == I32:
        bits = [builder.zext(builder.bitcast(plane, I16), I32) for plane in planes]
        planes = [
            builder.or_(low, builder.shl(high, ir.Constant(I32, 16)))
            for low, high in zip(bits[::2], bits[1::2], strict=True)
        ]
    vector = ir.Constant(vector_type, ir.Undefined)
    for lane, plane in enumerate(planes):
        vector = builder.insert_element(vector, plane, ir.Constant(I32, lane))
    return vector


def _vector_type(kind, width):
    """Return the vector type of an access to ``width`` planes.

    16-bit planes go in pairs, because LLVM would split a vector of eight of them.
    """
    if described(kind).bytes == 2 and width % 2 == 0:
        return ir.VectorType(I32, width // 2)
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
        numbers = numbers_from(context, builder, number, planes)
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
        planes = [p for n in found for p in planes_of(context, builder, number, n)]
        for access in range(accesses):
            own = planes[access * width : (access + 1) * width]
            vector = _packed(builder, name, _vector_type(name, width), own)
            pointer = _pointer(builder, args[2], vector.type, access * width * size)
            builder.store(vector, pointer, align=width * size)
        return context.get_dummy_value()

    return types.none(kind, count, types.int64, array, types.int64), lower


# ---------------------------------------------------------------- arrays of numbers


def _first(builder, i, each):
    """Return the index of the first number of value i, with ``each`` numbers per value."""
    return builder.mul(i, ir.Constant(I64, each))


def _first_shared(builder, first, i, each):
    """Return the same index, counted from the number ``first``, in 32-bit arithmetic."""
    index = builder.mul(builder.trunc(i, I32), ir.Constant(I32, each))
    return builder.add(builder.trunc(first, I32), index)


def _places(context, builder, array, given, first, count):
    data = context.make_array(array)(context, builder, given).data
    for i in range(count):
        index = builder.add(first, ir.Constant(first.type, i))
        yield builder.gep(data, [index if first.type == I64 else builder.zext(index, I64)])


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
        _, numbers = numbers_of(builder, value, args[2])
        _write(context, builder, array, args[0], _first(builder, args[1], len(numbers)), numbers)
        return context.get_dummy_value()

    return types.none(array, types.int64, value), lower


@intrinsic
def put_shared(typingctx, array, first, i, value):
    def lower(context, builder, signature, args):
        _, numbers = numbers_of(builder, value, args[3])
        first = _first_shared(builder, args[1], args[2], len(numbers))
        _write(context, builder, array, args[0], first, numbers)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, value), lower


# ---------------------------------------------------------------- indices


@intrinsic
def divide(typingctx, n, m):
    def lower(context, builder, signature, args):
        n, m = (builder.trunc(arg, I32) for arg in args)
        parts = [builder.udiv(n, m), builder.urem(n, m)]
        return cgutils.pack_array(builder, [builder.zext(part, I64) for part in parts])

    return types.UniTuple(types.int64, 2)(types.int64, types.int64), lower


@intrinsic
def opaque(typingctx, n):
    def lower(context, builder, signature, args):
        n = context.cast(builder, args[0], signature.args[0], types.int64)
        return assembly(builder, I64, "mov.b64 $0, $1;", "=l,l", [n])

    return types.int64(n), lower


@intrinsic(prefer_literal=True)
def padded(typingctx, i, shift):
    def lower(context, builder, signature, args):
        i = builder.trunc(args[0], I32)
        skipped = builder.lshr(i, ir.Constant(I32, shift.literal_value))
        return builder.zext(builder.add(i, skipped), I64)

    return types.int64(types.int64, shift), lower
