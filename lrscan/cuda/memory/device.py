"""The bodies of :mod:`lrscan.cuda.memory` on a GPU, as Numba intrinsics.

Addresses are integers, in bytes, of global memory: one compiled kernel serves every layout, and
bfloat16 needs no type of its own.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import KINDS
from lrscan.cuda.kinds import STATES

__all__ = [
    "divide",
    "fresh",
    "load",
    "load_vector",
    "load_word",
    "padded",
    "rolled",
    "store",
    "store_vector",
    "store_word",
    "take_ticket",
    "value_of",
    "words_of",
]

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_GLOBAL = 1  # LLVM's address space of global memory
_FLAG = 1 << 32

_NUMBERS = {
    "float16": ir.HalfType(),
    "bfloat16": _I16,
    "float32": _F32,
    "float64": _F64,
    "complex64": _F32,
    "complex128": _F64,
}


def _pointer(builder, address, pointee, offset=0):
    if offset:
        address = builder.add(address, ir.Constant(_I64, offset))
    return builder.inttoptr(address, pointee.as_pointer(_GLOBAL))


def _widen(builder, kind, number):
    if kind == "bfloat16":  # the upper half of a float32
        bits = builder.shl(builder.zext(number, _I32), ir.Constant(_I32, 16))
        return builder.bitcast(bits, _F32)
    return builder.fpext(number, _F32) if kind == "float16" else number


def _narrow(builder, kind, number):
    """Back again, rounded to nearest, ties to even."""
    if kind == "bfloat16":
        # The hardware's own, which LLVM does not know; before sm_80 lrscan.cuda.bfloat16 stands in.
        kind = ir.FunctionType(_I16, [_F32])
        code = ir.InlineAsm(kind, "cvt.rn.bf16.f32 $0, $1;", "=h,f", side_effect=False)
        return builder.call(code, [number])
    return builder.fptrunc(number, _NUMBERS[kind]) if kind == "float16" else number


def _combine(context, builder, kind, numbers):
    """A state from its real number, or its two."""
    if KINDS[kind].planes == 1:
        return numbers[0]
    value = context.make_complex(builder, STATES[KINDS[kind].state])
    value.real, value.imag = numbers
    return value._getvalue()


def _split(context, builder, state, value):
    if not isinstance(state, types.Complex):
        return [value]
    parts = context.make_complex(builder, state, value=value)
    return [parts.real, parts.imag]


@intrinsic(prefer_literal=True)
def load(typingctx, kind, address):
    name = kind.literal_value
    info = KINDS[name]
    state = STATES[info.state]

    def lower(context, builder, signature, args):
        numbers = []
        for plane in range(info.planes):
            pointer = _pointer(builder, args[1], _NUMBERS[name], plane * info.bytes)
            numbers.append(_widen(builder, name, builder.load(pointer, align=info.bytes)))
        return _combine(context, builder, name, numbers)

    return state(kind, types.int64), lower


@intrinsic(prefer_literal=True)
def store(typingctx, kind, address, value):
    name = kind.literal_value
    info = KINDS[name]
    state = STATES[info.state]

    def lower(context, builder, signature, args):
        for plane, number in enumerate(_split(context, builder, state, args[2])):
            pointer = _pointer(builder, args[1], _NUMBERS[name], plane * info.bytes)
            builder.store(_narrow(builder, name, number), pointer, align=info.bytes)
        return context.get_dummy_value()

    return types.none(kind, types.int64, state), lower


def _pieces(info, count):
    """(numbers in an access, accesses) of so many elements, 16 bytes an access at most."""
    numbers = count * info.planes
    width = min(numbers, 16 // info.bytes)
    return width, numbers // width


def _unpacked(builder, kind, vector):
    """The numbers of a vector as it was read; two halves come in a word of 32 bits."""
    numbers = []
    for lane in range(vector.type.count):
        number = builder.extract_element(vector, ir.Constant(_I32, lane))
        if number.type != _I32:
            numbers.append(_widen(builder, kind, number))
            continue
        high = builder.lshr(number, ir.Constant(_I32, 16))
        for part in (number, high):
            half = builder.trunc(part, _I16)
            numbers.append(_widen(builder, kind, builder.bitcast(half, _NUMBERS[kind])))
    return numbers


def _packed(builder, kind, vector_type, numbers):
    """Back again: a vector to be written."""
    numbers = [_narrow(builder, kind, number) for number in numbers]
    if vector_type.element == _I32:
        bits = [builder.zext(builder.bitcast(number, _I16), _I32) for number in numbers]
        numbers = [
            builder.or_(low, builder.shl(high, ir.Constant(_I32, 16)))
            for low, high in zip(bits[::2], bits[1::2], strict=True)
        ]
    vector = ir.Constant(vector_type, ir.Undefined)
    for lane, number in enumerate(numbers):
        vector = builder.insert_element(vector, number, ir.Constant(_I32, lane))
    return vector


def _vector_type(kind, width):
    """What so many numbers are accessed as. Halves go in pairs: LLVM splits a vector of eight."""
    if KINDS[kind].bytes == 2 and width % 2 == 0:
        return ir.VectorType(_I32, width // 2)
    return ir.VectorType(_NUMBERS[kind], width)


@intrinsic(prefer_literal=True)
def load_vector(typingctx, kind, count, address, array, at):
    name, length = kind.literal_value, count.literal_value
    info = KINDS[name]
    width, accesses = _pieces(info, length)

    def lower(context, builder, signature, args):
        vector = _vector_type(name, width)
        numbers = []
        for access in range(accesses):
            pointer = _pointer(builder, args[2], vector, access * width * info.bytes)
            packed = builder.load(pointer, align=width * info.bytes)
            numbers += _unpacked(builder, name, packed)
        data = context.make_array(array)(context, builder, args[3]).data
        for i in range(length):
            own = numbers[i * info.planes : (i + 1) * info.planes]
            place = builder.gep(data, [builder.add(args[4], ir.Constant(_I64, i))])
            value = _combine(context, builder, name, own)
            context.pack_value(builder, array.dtype, value, place)
        return context.get_dummy_value()

    return types.none(kind, count, types.int64, array, types.int64), lower


@intrinsic(prefer_literal=True)
def store_vector(typingctx, kind, count, address, array, at):
    name, length = kind.literal_value, count.literal_value
    info = KINDS[name]
    width, accesses = _pieces(info, length)

    def lower(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[3]).data
        numbers = []
        for i in range(length):
            place = builder.gep(data, [builder.add(args[4], ir.Constant(_I64, i))])
            value = context.unpack_value(builder, array.dtype, place)
            numbers += _split(context, builder, array.dtype, value)
        for access in range(accesses):
            own = numbers[access * width : (access + 1) * width]
            vector = _packed(builder, name, _vector_type(name, width), own)
            pointer = _pointer(builder, args[2], vector.type, access * width * info.bytes)
            builder.store(vector, pointer, align=width * info.bytes)
        return context.get_dummy_value()

    return types.none(kind, count, types.int64, array, types.int64), lower


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


@intrinsic
def load_word(typingctx, address):
    def lower(context, builder, signature, args):
        return _assembly(builder, _I64, "ld.relaxed.gpu.global.u64 $0, [$1];", "=l,l", args)

    return types.int64(types.int64), lower


@intrinsic
def store_word(typingctx, address, word):
    def lower(context, builder, signature, args):
        text = "st.relaxed.gpu.global.u64 [$0], $1;"
        _assembly(builder, ir.VoidType(), text, "l,l", args)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), lower


@intrinsic
def words_of(typingctx, value):
    parts = [_I32] if value.bitwidth == 32 else [_I32, _I32]
    if isinstance(value, types.Complex):
        parts = [_I32] * (value.bitwidth // 32)
    result = types.UniTuple(types.int64, len(parts))

    def lower(context, builder, signature, args):
        words = []
        for number in _split(context, builder, value, args[0]):
            if number.type is _F32 or isinstance(number.type, ir.FloatType):
                words.append(builder.zext(builder.bitcast(number, _I32), _I64))
            else:
                bits = builder.bitcast(number, _I64)
                words.append(builder.and_(bits, ir.Constant(_I64, 0xFFFFFFFF)))
                words.append(builder.lshr(bits, ir.Constant(_I64, 32)))
        flagged = [builder.or_(word, ir.Constant(_I64, _FLAG)) for word in words]
        return cgutils.pack_array(builder, flagged)

    return result(value), lower


@intrinsic(prefer_literal=True)
def value_of(typingctx, kind, words):
    name = kind.literal_value
    state = STATES[name]

    def lower(context, builder, signature, args):
        parts = [builder.trunc(w, _I32) for w in cgutils.unpack_tuple(builder, args[1])]
        if KINDS[name].bytes == 4:
            numbers = [builder.bitcast(part, _F32) for part in parts]
        else:
            numbers = []
            for low, high in zip(parts[::2], parts[1::2], strict=True):
                high = builder.shl(builder.zext(high, _I64), ir.Constant(_I64, 32))
                bits = builder.or_(builder.zext(low, _I64), high)
                numbers.append(builder.bitcast(bits, _F64))
        return _combine(context, builder, name, numbers)

    return state(kind, words), lower


@intrinsic
def divide(typingctx, n, m):
    def lower(context, builder, signature, args):
        n, m = (builder.trunc(arg, _I32) for arg in args)
        parts = [builder.udiv(n, m), builder.urem(n, m)]
        return cgutils.pack_array(builder, [builder.zext(part, _I64) for part in parts])

    return types.UniTuple(types.int64, 2)(types.int64, types.int64), lower


@intrinsic
def fresh(typingctx, n):
    def lower(context, builder, signature, args):
        n = context.cast(builder, args[0], signature.args[0], types.int64)
        return _assembly(builder, _I64, "mov.b64 $0, $1;", "=l,l", [n])

    return types.int64(n), lower


@intrinsic
def rolled(typingctx):
    def lower(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        code = ir.InlineAsm(kind, r".pragma \22nounroll\22;", "", side_effect=True)
        builder.call(code, [], attrs=("convergent",))
        return context.get_dummy_value()

    return types.none(), lower


@intrinsic(prefer_literal=True)
def padded(typingctx, i, shift):
    def lower(context, builder, signature, args):
        i = builder.trunc(args[0], _I32)
        skipped = builder.lshr(i, ir.Constant(_I32, shift.literal_value))
        return builder.zext(builder.add(i, skipped), _I64)

    return types.int64(types.int64, shift), lower
