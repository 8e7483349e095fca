"""Memory access for Numba's CPU target: loads and stores of values, and what threads share.

Addresses are plain integers in bytes, so one compiled kernel serves every layout of a tensor, and
element types that NumPy does not have (bfloat16) need no detour. The numbers of a value lie side by
side, and so do the planes of a number.
"""

from __future__ import annotations

import itertools
import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lrscan.core.dtypes import described
from lrscan.core.machine_types import memory_type
from lrscan.cpu.compile import inlined
from lrscan.cpu.structures import INT64_BYTES, parts
from lrscan.cpu.vector import (
    F32,
    I32,
    count_of,
    indices,
    number_of,
    pack,
    planes_of,
    value_type,
)

_I16, _I64 = ir.IntType(16), ir.IntType(64)
LINE = 64  # bytes of a cache line


def _widen(builder, kind, value):
    """From the type in memory to the type of the arithmetic."""
    lanes = value.type.count
    if described(kind).number == "bfloat16":  # the upper half of a float32
        bits = builder.zext(value, ir.VectorType(I32, lanes))
        bits = builder.shl(bits, ir.Constant(bits.type, [16] * lanes))
        return builder.bitcast(bits, ir.VectorType(F32, lanes))
    arithmetic = memory_type(described(kind).state)
    if value.type.element != arithmetic:
        return builder.fpext(value, ir.VectorType(arithmetic, lanes))
    return value


def _narrow(builder, kind, value):
    """Back again, rounded to nearest, ties to even."""
    lanes = value.type.count
    if described(kind).number == "bfloat16":
        integers = ir.VectorType(I32, lanes)

        def number(n):
            return ir.Constant(integers, [n] * lanes)

        bits = builder.bitcast(value, integers)
        odd = builder.and_(builder.lshr(bits, number(16)), number(1))
        rounded = builder.add(bits, builder.add(odd, number(0x7FFF)))
        quiet_nan = builder.or_(bits, number(0x00400000))
        is_nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.lshr(builder.select(is_nan, quiet_nan, rounded), number(16))
        return builder.trunc(rounded, ir.VectorType(_I16, lanes))
    memory = memory_type(kind)
    if value.type.element != memory:
        return builder.fptrunc(value, ir.VectorType(memory, lanes))
    return value


def _pointer(builder, address, pointee, offset=0):
    """A pointer to what lies so many bytes behind an address."""
    address = builder.add(address, ir.Constant(_I64, offset))
    return builder.inttoptr(address, pointee.as_pointer())


def _mirrored(spacing, lanes):
    """Where lane i lies within a vector in memory, for each; empty if spacing is no "mirror"."""
    name, _, together = spacing.partition(" ")
    if name != "mirror":
        return []
    n = int(together or 1)
    return [lanes - n - lane // n * n + lane % n for lane in range(lanes)]


class _Place:
    """Where the planes of a value lie in memory, and how they get there and back.

    ``address`` is that of lane 0. Planes are as they lie in memory, neither widened nor narrowed.
    """

    def __init__(self, builder, kind, lanes, address):
        self.builder, self.lanes, self.address = builder, lanes, address
        self.info, self.memory = described(kind), memory_type(kind)
        self.planes = self.info.planes * self.info.numbers

    def _moved(self, distance):
        return self.builder.add(self.address, distance)

    def _numbers(self, lane, stride):
        """(plane, pointer) of every number of a lane."""
        at = self._moved(self.builder.mul(stride, ir.Constant(_I64, lane)))
        for p in range(self.planes):
            yield p, _pointer(self.builder, at, self.memory, p * self.info.bytes)

    def _dense(self, order):
        """A pointer to the lowest address of lanes side by side, which lie in this order."""
        lowest = -order[0] * self.info.size if order else 0
        packed = ir.VectorType(self.memory, self.lanes * self.planes)
        return _pointer(self.builder, self._moved(ir.Constant(_I64, lowest)), packed)

    def read_scattered(self, stride):
        plane = ir.VectorType(self.memory, self.lanes)
        planes = [ir.Constant(plane, ir.Undefined)] * self.planes
        for lane in range(self.lanes):
            for p, pointer in self._numbers(lane, stride):
                number = self.builder.load(pointer, align=self.info.bytes)
                planes[p] = self.builder.insert_element(planes[p], number, ir.Constant(I32, lane))
        return planes

    def write_scattered(self, stride, planes):
        for lane in range(self.lanes):
            for p, pointer in self._numbers(lane, stride):
                number = self.builder.extract_element(planes[p], ir.Constant(I32, lane))
                self.builder.store(number, pointer, align=self.info.bytes)

    def read_same(self):
        planes = []
        one = ir.Constant(ir.VectorType(self.memory, 1), ir.Undefined)
        for _, pointer in self._numbers(0, ir.Constant(_I64, 0)):
            number = self.builder.load(pointer, align=self.info.bytes)
            plane = self.builder.insert_element(one, number, ir.Constant(I32, 0))
            planes.append(self.builder.shuffle_vector(plane, plane, indices([0] * self.lanes)))
        return planes

    def read_dense(self, order):
        packed = self.builder.load(self._dense(order), align=self.info.bytes)
        planes = [
            self.builder.shuffle_vector(
                packed, packed, indices(range(p, self.lanes * self.planes, self.planes))
            )
            for p in range(self.planes)
        ]
        return self._turned(planes, order)

    def write_dense(self, order, planes, streamed):
        packed = self._interleaved(self._turned(planes, order))
        align = stream_alignment(self.info.size, self.lanes) if streamed else self.info.bytes
        write = self.builder.store(packed, self._dense(order), align=align)
        if streamed:
            hint = self.builder.module.add_metadata([ir.Constant(I32, 1)])
            write.set_metadata("nontemporal", hint)

    def _turned(self, planes, order):
        """Lanes that lie in this order in memory, in their own; and back again."""
        if not order:
            return planes
        return [self.builder.shuffle_vector(p, p, indices(order)) for p in planes]

    def _interleaved(self, planes):
        """One vector: lane 0 of all planes, then lane 1 of all, and so on."""
        if len(planes) == 1:
            return planes[0]
        order = [p * self.lanes + lane for lane in range(self.lanes) for p in range(len(planes))]
        while len(planes) > 2:  # pairs become one vector each, until there are two
            if len(planes) % 2:
                planes = [*planes, ir.Constant(planes[0].type, ir.Undefined)]
            both = indices(range(2 * planes[0].type.count))
            pairs = zip(planes[::2], planes[1::2], strict=True)
            planes = [self.builder.shuffle_vector(p, q, both) for p, q in pairs]
        return self.builder.shuffle_vector(*planes, indices(order))


def stream_alignment(size: int, lanes: int) -> int:
    """What the lowest address of ``lanes`` values of ``size`` bytes is a multiple of, where they
    are written past the cache."""
    return math.gcd(size * lanes, LINE)


@intrinsic(prefer_literal=True)
def load(typingctx, kind, lanes, spacing, address, stride):
    """Read a value. ``address`` is that of lane 0, in bytes; ``kind``, ``lanes``, ``spacing``
    are literals.

    spacing     lane i is at
    "unit"      address + i * size of a value of one lane
    "mirror"    address - i * size of a value of one lane
    "mirror n"  as "mirror", n lanes at a time: they lie as in "unit", the next n before them
    "same"      address
    "strided"   address + i * stride

    "mirror 2" has, from the lowest address on, lanes 6 7 4 5 2 3 0 1 of 8: time runs down, and of
    each step the columns are as they were.
    """
    name, width, placed = kind.literal_value, lanes.literal_value, spacing.literal_value
    value = value_type(name, width)

    def lower(context, builder, signature, args):
        place, stride = _Place(builder, name, width, args[3]), args[4]
        if placed == "strided":
            planes = place.read_scattered(stride)
        elif placed == "same":
            planes = place.read_same()
        else:
            planes = place.read_dense(_mirrored(placed, width))
        return pack(builder, value, [_widen(builder, name, p) for p in planes])

    return value(kind, lanes, spacing, types.int64, types.int64), lower


@intrinsic(prefer_literal=True)
def store(typingctx, kind, spacing, address, stride, value):
    """Write a value, lanes spaced as in :func:`load`. "same" is for one lane only, which it places
    as "unit" does.

    With " stream" after it, "unit" or "mirror" writes past the cache, where the lowest address is
    a multiple of :func:`stream_alignment`. That needs a :func:`fence` before another thread reads.
    """
    name, number = kind.literal_value, number_of(value)
    if number is None or count_of(value) != described(name).numbers:
        return None
    placed = spacing.literal_value.removesuffix(" stream")
    streamed = placed != spacing.literal_value

    def lower(context, builder, signature, args):
        place, stride = _Place(builder, name, number.lanes, args[2]), args[3]
        planes = [_narrow(builder, name, p) for p in planes_of(builder, value, args[4])]
        if placed == "strided":
            place.write_scattered(stride, planes)
        else:
            place.write_dense(_mirrored(placed, number.lanes), planes, streamed)
        return context.get_dummy_value()

    return types.none(kind, spacing, types.int64, types.int64, value), lower


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


# ---------------------------------------------------------------- int64s and structures of them


@intrinsic
def _load_int64(typingctx, address):
    def lower(context, builder, signature, args):
        return builder.load(_pointer(builder, args[0], _I64))

    return types.int64(types.int64), lower


@inlined
def int64_at(array, index):
    """An element of an array of int64s that begins at an address."""
    return _load_int64(array + INT64_BYTES * index)


def reader(structure):
    """A function that reads a structure of :mod:`lrscan.cpu.structures` from an address."""

    def numba_type(structure):
        fields = [numba_type(own) if own else types.int64 for own in parts(structure).values()]
        return types.BaseTuple.from_types(fields, structure)

    whole = numba_type(structure)

    @intrinsic
    def read(typingctx, address):
        def lower(context, builder, signature, args):
            offsets = itertools.count(0, INT64_BYTES)

            def read_one(field):
                if field == types.int64:
                    return builder.load(_pointer(builder, args[0], _I64, next(offsets)))
                return context.make_tuple(builder, field, [read_one(own) for own in field.types])

            return read_one(whole)

        return whole(types.int64), lower

    return read


# ---------------------------------------------------------------- threads


@intrinsic
def fetch_add(typingctx, address, amount):
    """Add ``amount`` to the int64 at ``address``, atomically; returns the value before."""

    def lower(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0], _I64), args[1], "monotonic")

    return types.int64(types.int64, types.int64), lower


@intrinsic
def load_acquire(typingctx, address):
    """Read the int64 at ``address``; later reads see what was written before its release."""

    def lower(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0], _I64), "acquire", INT64_BYTES)

    return types.int64(types.int64), lower


@intrinsic
def store_release(typingctx, address, value):
    """Write the int64 at ``address`` after everything that this thread wrote before."""

    def lower(context, builder, signature, args):
        builder.store_atomic(args[1], _pointer(builder, args[0], _I64), "release", INT64_BYTES)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), lower


@intrinsic
def fence(typingctx):
    """Everything written before is seen by all threads before anything that comes after."""

    def lower(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), lower
