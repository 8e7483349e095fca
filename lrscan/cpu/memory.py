"""Memory access for Numba's CPU target: loads and stores of values, and atomics for threads.

Addresses are plain integers in bytes. So one compiled kernel serves every layout of a tensor, and
element types that NumPy lacks (bfloat16) need no detour. The numbers of a value are adjacent in
memory, and so are the planes of a number.
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
    """Convert a vector from its type in memory to the type of the arithmetic."""
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
    """Convert a vector back to its type in memory, rounding to nearest, ties to even."""
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
    """Return a pointer to the place ``offset`` bytes after an address."""
    address = builder.add(address, ir.Constant(_I64, offset))
    return builder.inttoptr(address, pointee.as_pointer())


def _mirrored(spacing, lanes):
    """Return the position in memory of each lane of a vector; empty if spacing is not "mirror"."""
    name, _, together = spacing.partition(" ")
    if name != "mirror":
        return []
    n = int(together or 1)
    return [lanes - n - lane // n * n + lane % n for lane in range(lanes)]


class _Place:
    """Place of a value in memory, with methods that read and write its planes.

    ``address`` is that of lane 0. Planes have their type in memory, neither widened nor narrowed.
    """

    def __init__(self, builder, kind, lanes, address):
        self.builder, self.lanes, self.address = builder, lanes, address
        self.info, self.memory = described(kind), memory_type(kind)
        self.planes = self.info.planes * self.info.numbers

    def _moved(self, distance):
        return self.builder.add(self.address, distance)

    def _numbers(self, lane, stride):
        """Yield (plane, pointer) for every number of a lane."""
        at = self._moved(self.builder.mul(stride, ir.Constant(_I64, lane)))
        for p in range(self.planes):
            yield p, _pointer(self.builder, at, self.memory, p * self.info.bytes)

    def _dense(self, order):
        """Return a pointer to the lowest address of adjacent lanes that are in this order."""
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
        """Permute lanes from this order in memory to their own. It is its own inverse."""
        if not order:
            return planes
        return [self.builder.shuffle_vector(p, p, indices(order)) for p in planes]

    def _interleaved(self, planes):
        """Return one vector: lane 0 of all planes, then lane 1 of all, and so on."""
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
    """Return the alignment of ``lanes`` values of ``size`` bytes for a write past the cache.

    Their lowest address must be a multiple of it.
    """
    return math.gcd(size * lanes, LINE)


@intrinsic(prefer_literal=True)
def load(typingctx, kind, lanes, spacing, address, stride):
    """Read a value.

    ``address`` is that of lane 0, in bytes. ``kind``, ``lanes`` and ``spacing`` are literals::

        spacing     lane i is at
        "unit"      address + i * size of a value of one lane
        "mirror"    address - i * size of a value of one lane
        "mirror n"  as "mirror" for groups of n lanes; within a group, lanes are as in "unit"
        "same"      address
        "strided"   address + i * stride

    With 8 lanes, "mirror 2" has lanes 6 7 4 5 2 3 0 1 from the lowest address on. Time runs
    backwards there, but the columns of each step are in order.
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
    """Write a value, with lanes spaced as in :func:`load`.

    "same" is for one lane only, which it places as "unit" does.

    With " stream" appended, "unit" and "mirror" write past the cache. The lowest address must then
    be a multiple of :func:`stream_alignment`, and a :func:`fence` is needed before another thread
    reads.
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
    """Begin to load the cache line of ``address`` into the L2 cache. The address may be invalid."""

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
    """Return element ``index`` of the int64s that begin at the address ``array``."""
    return _load_int64(array + INT64_BYTES * index)


def reader(structure):
    """Return a function that reads a structure of :mod:`lrscan.cpu.structures` from an address."""

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
    """Add ``amount`` to the int64 at ``address`` atomically, and return the value before."""

    def lower(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0], _I64), args[1], "monotonic")

    return types.int64(types.int64, types.int64), lower


@intrinsic
def load_acquire(typingctx, address):
    """Read the int64 at ``address``. Later reads see all writes from before its release."""

    def lower(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0], _I64), "acquire", INT64_BYTES)

    return types.int64(types.int64), lower


@intrinsic
def store_release(typingctx, address, value):
    """Write the int64 at ``address`` after all earlier writes of this thread."""

    def lower(context, builder, signature, args):
        builder.store_atomic(args[1], _pointer(builder, args[0], _I64), "release", INT64_BYTES)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), lower


@intrinsic
def fence(typingctx):
    """Make all earlier writes visible to all threads before any later access."""

    def lower(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), lower
