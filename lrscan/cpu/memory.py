"""Memory access for Numba's CPU target: vector loads and stores, and what threads share.

Addresses are plain integers in bytes, so one compiled kernel serves every layout of a tensor, and
element types that NumPy does not have (bfloat16) need no detour.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.cpu.vector import F32, I16, I32, I64, KINDS, Vector, indices, pack, planes_of


def _widen(builder, kind, value):
    """From the type in memory to the type of the arithmetic."""
    lanes = value.type.count
    if kind.memory is I16:  # bfloat16 is the upper half of a float32
        bits = builder.zext(value, ir.VectorType(I32, lanes))
        bits = builder.shl(bits, ir.Constant(bits.type, [16] * lanes))
        return builder.bitcast(bits, ir.VectorType(F32, lanes))
    if kind.memory is not kind.arithmetic:
        return builder.fpext(value, ir.VectorType(kind.arithmetic, lanes))
    return value


def _narrow(builder, kind, value):
    """Back again, rounded to nearest, ties to even."""
    lanes = value.type.count
    if kind.memory is I16:
        integers = ir.VectorType(I32, lanes)

        def number(n):
            return ir.Constant(integers, [n] * lanes)

        bits = builder.bitcast(value, integers)
        odd = builder.and_(builder.lshr(bits, number(16)), number(1))
        rounded = builder.add(bits, builder.add(odd, number(0x7FFF)))
        quiet_nan = builder.or_(bits, number(0x00400000))
        is_nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.lshr(builder.select(is_nan, quiet_nan, rounded), number(16))
        return builder.trunc(rounded, ir.VectorType(I16, lanes))
    if kind.memory is not kind.arithmetic:
        return builder.fptrunc(value, ir.VectorType(kind.memory, lanes))
    return value


def _pointer(builder, address, pointee, offset=None):
    if offset is not None:
        address = builder.add(address, offset)
    return builder.inttoptr(address, pointee.as_pointer())


def _mirrored(spacing, lanes):
    """Where lane i lies within a vector in memory, for each; empty if spacing is no "mirror"."""
    name, _, together = spacing.partition(" ")
    if name != "mirror":
        return []
    n = int(together or 1)
    return [lanes - n - lane // n * n + lane % n for lane in range(lanes)]


@intrinsic(prefer_literal=True)
def load(typingctx, kind, lanes, spacing, address, stride):
    """Read a vector. ``address`` is that of lane 0, in bytes; ``kind``, ``lanes``, ``spacing``
    are literals.

    spacing     lane i is at
    "unit"      address + i * size of an element
    "mirror"    address - i * size of an element
    "mirror n"  as "mirror", n lanes at a time: they lie as in "unit", the next n before them
    "same"      address
    "strided"   address + i * stride
    """
    element, width = KINDS[kind.literal_value], lanes.literal_value
    vector = Vector.of(kind.literal_value, width)

    def scattered(builder, address, stride):
        planes = [ir.Constant(ir.VectorType(element.memory, width), ir.Undefined)] * element.planes
        for lane in range(width):
            at = builder.add(address, builder.mul(stride, ir.Constant(I64, lane)))
            for p in range(element.planes):
                offset = ir.Constant(I64, p * element.bytes)
                pointer = _pointer(builder, at, element.memory, offset)
                number = builder.load(pointer, align=element.bytes)
                planes[p] = builder.insert_element(planes[p], number, ir.Constant(I32, lane))
        return planes

    def dense(builder, address):
        count = width * element.planes
        packed_type = ir.VectorType(element.memory, count)
        packed = builder.load(_pointer(builder, address, packed_type), align=element.bytes)
        planes = [range(p, count, element.planes) for p in range(element.planes)]
        return [builder.shuffle_vector(packed, packed, indices(list(p))) for p in planes]

    def lower(context, builder, signature, args):
        address, stride = args[3], args[4]
        if spacing.literal_value == "unit":
            planes = dense(builder, address)
        elif order := _mirrored(spacing.literal_value, width):
            back = ir.Constant(I64, -order[0] * element.bytes * element.planes)
            planes = dense(builder, builder.add(address, back))
            planes = [builder.shuffle_vector(p, p, indices(order)) for p in planes]
        elif spacing.literal_value == "same":
            planes = []
            for p in range(element.planes):
                offset = ir.Constant(I64, p * element.bytes)
                pointer = _pointer(builder, address, element.memory, offset)
                one = ir.Constant(ir.VectorType(element.memory, 1), ir.Undefined)
                number = builder.load(pointer, align=element.bytes)
                one = builder.insert_element(one, number, ir.Constant(I32, 0))
                planes.append(builder.shuffle_vector(one, one, indices([0] * width)))
        else:
            planes = scattered(builder, address, stride)
        return pack(builder, vector, [_widen(builder, element, p) for p in planes])

    return vector(kind, lanes, spacing, types.int64, types.int64), lower


@intrinsic(prefer_literal=True)
def store(typingctx, kind, spacing, address, stride, vector):
    """Write a vector, lanes spaced as in :func:`load` (all but "same").

    With " stream" after it, "unit" or "mirror" writes past the cache, where the lowest address is
    a multiple of the vector's bytes. That needs a :func:`fence` before another thread reads.
    """
    element, width = KINDS[kind.literal_value], vector.lanes
    placed = spacing.literal_value.removesuffix(" stream")
    streamed = placed != spacing.literal_value

    def lower(context, builder, signature, args):
        address, stride = args[2], args[3]
        planes = [_narrow(builder, element, p) for p in planes_of(builder, vector, args[4])]
        if placed == "strided":
            for lane in range(width):
                at = builder.add(address, builder.mul(stride, ir.Constant(I64, lane)))
                for p, plane in enumerate(planes):
                    offset = ir.Constant(I64, p * element.bytes)
                    number = builder.extract_element(plane, ir.Constant(I32, lane))
                    pointer = _pointer(builder, at, element.memory, offset)
                    builder.store(number, pointer, align=element.bytes)
            return context.get_dummy_value()
        if order := _mirrored(placed, width):
            address = builder.add(
                address, ir.Constant(I64, -order[0] * element.bytes * element.planes)
            )
            planes = [builder.shuffle_vector(p, p, indices(order)) for p in planes]
        packed = planes[0]
        if element.planes == 2:
            order = indices([lane + p * width for lane in range(width) for p in range(2)])
            packed = builder.shuffle_vector(planes[0], planes[1], order)
        align = element.bytes * (packed.type.count if streamed else 1)
        write = builder.store(packed, _pointer(builder, address, packed.type), align=align)
        if streamed:
            write.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        return context.get_dummy_value()

    return types.none(kind, spacing, types.int64, types.int64, vector), lower


@intrinsic
def prefetch(typingctx, address):
    """Begin to bring the line of ``address``, which need not exist, into the L2 cache."""

    def lower(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        hints = [ir.Constant(I32, hint) for hint in (0, 2, 1)]  # read, keep in L2, data
        builder.call(function, [builder.inttoptr(args[0], pointer), *hints])
        return context.get_dummy_value()

    return types.none(types.int64), lower


# ---------------------------------------------------------------- threads


@intrinsic
def fetch_add(typingctx, address, amount):
    """Add ``amount`` to the int64 at ``address``, atomically; returns the value before."""

    def lower(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0], I64), args[1], "monotonic")

    return types.int64(types.int64, types.int64), lower


@intrinsic
def load_acquire(typingctx, address):
    """Read the int64 at ``address``; later reads see what was written before its release."""

    def lower(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0], I64), "acquire", 8)

    return types.int64(types.int64), lower


@intrinsic
def store_release(typingctx, address, value):
    """Write the int64 at ``address`` after everything that this thread wrote before."""

    def lower(context, builder, signature, args):
        builder.store_atomic(args[1], _pointer(builder, args[0], I64), "release", 8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), lower


@intrinsic
def fence(typingctx):
    """Everything written before is seen by all threads before anything that comes after."""

    def lower(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), lower
