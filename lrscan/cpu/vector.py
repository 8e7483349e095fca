"""Short vectors for Numba's CPU target: a type that compiles to the machine's vector registers.

Numba leaves vectorisation to LLVM's loop vectoriser, which cannot vectorise a recurrence. Here a
vector is a value of its own. It has ``+``, ``*`` and ``conjugate``, so
:mod:`lrscan.core.algebra` compiles for it unchanged. It also has moves between lanes, for scans
within a register. LLVM lowers it to the instructions of the processor (SSE, AVX, AVX-512, NEON).

A *value* has a kind (:mod:`lrscan.core.dtypes`) and a number of lanes. If the kind is one number,
it is a :class:`Vector`. Otherwise it is a tuple of vectors, one per number::

    "float32"      Vector           lane:  0   1   2   3
    "float32_2"    (Vector,         number 0 of every lane
                    Vector)         number 1 of every lane

Arithmetic is done in float32 or float64. Half-precision kinds are widened on load and rounded once
on store. A complex vector is stored as two *planes*, real and imaginary; a real one as one plane.
Loads and stores are in :mod:`lrscan.cpu.memory`.
"""

from __future__ import annotations

import functools
import operator

from llvmlite import ir
from numba import types
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, overload, overload_method, register_model

from lrscan.core.dtypes import described
from lrscan.core.machine_types import memory_type

F32, F64, I32 = ir.FloatType(), ir.DoubleType(), ir.IntType(32)

# LLVM may fuse a multiply and an add. It may change nothing else about the arithmetic.
FUSE = ("contract",)


class Vector(types.Type):
    """Numba type of ``lanes`` numbers, each of ``planes`` planes of ``bits``-bit floats."""

    def __init__(self, bits: int, planes: int, lanes: int):
        self.bits, self.planes, self.lanes = bits, planes, lanes
        super().__init__(name=f"Vector({bits}, {planes}, {lanes})")

    @property
    def plane(self) -> ir.Type:
        return ir.VectorType(F64 if self.bits == 64 else F32, self.lanes)


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.plane, fe_type.planes))


# ---------------------------------------------------------------- values


def value_type(kind: str, lanes: int) -> types.Type:
    """Return the type of a value of a kind in the arithmetic."""
    one = described(kind)
    bits = 64 if memory_type(one.state) == F64 else 32
    return _several(Vector(bits, one.planes, lanes), one.numbers)


def _several(vector, count):
    return vector if count == 1 else types.UniTuple(vector, count)


def number_of(value):
    """Return the type of each number of a value, or None if the type is not that of a value."""
    number = value.dtype if isinstance(value, types.UniTuple) else value
    return number if isinstance(number, Vector) else None


def count_of(value):
    """Return the number of numbers in a value of this type."""
    return value.count if isinstance(value, types.UniTuple) else 1


def planes_of(builder, value_type, value):
    """Return the planes of all numbers of a value, number by number."""
    if isinstance(value_type, Vector):
        return [builder.extract_value(value, p) for p in range(value_type.planes)]
    numbers = [builder.extract_value(value, n) for n in range(value_type.count)]
    return [p for number in numbers for p in planes_of(builder, value_type.dtype, number)]


def pack(builder, value_type, planes):
    """Return the value that has these planes."""
    if isinstance(value_type, Vector):
        parts, whole = planes, ir.ArrayType(value_type.plane, value_type.planes)
    else:
        one = value_type.dtype.planes
        parts = [
            pack(builder, value_type.dtype, planes[n : n + one]) for n in range(0, len(planes), one)
        ]
        whole = ir.ArrayType(parts[0].type, len(parts))
    value = ir.Constant(whole, ir.Undefined)
    for p, part in enumerate(parts):
        value = builder.insert_value(value, part, p)
    return value


def _splat(plane, number):
    """Return a plane with the same number in every lane."""
    return ir.Constant(plane, [number] * plane.count)


def indices(values):
    return ir.Constant(ir.VectorType(I32, len(values)), list(values))


# ---------------------------------------------------------------- arithmetic


def _plane_by_plane(u, instruction):
    """Return the lowering of an instruction that acts on two vectors plane by plane."""

    def lower(context, builder, signature, args):
        pairs = zip(planes_of(builder, u, args[0]), planes_of(builder, u, args[1]), strict=True)
        emit = getattr(builder, instruction)
        return pack(builder, u, [emit(p, q, flags=FUSE) for p, q in pairs])

    return lower


@intrinsic
def _add(typingctx, u, v):
    return (u(u, v), _plane_by_plane(u, "fadd")) if u == v else None


@intrinsic
def _multiply(typingctx, u, v):
    def lower(context, builder, signature, args):
        p, q = planes_of(builder, u, args[0]), planes_of(builder, u, args[1])

        def times(m, n):
            return builder.fmul(m, n, flags=FUSE)

        if u.planes == 1:
            return pack(builder, u, [times(p[0], q[0])])
        real = builder.fsub(times(p[0], q[0]), times(p[1], q[1]), flags=FUSE)
        imaginary = builder.fadd(times(p[0], q[1]), times(p[1], q[0]), flags=FUSE)
        return pack(builder, u, [real, imaginary])

    return (u(u, v), lower) if u == v else None


@intrinsic
def _subtract(typingctx, u, v):
    return (u(u, v), _plane_by_plane(u, "fsub")) if u == v else None


@intrinsic
def _conjugate(typingctx, u):
    def lower(context, builder, signature, args):
        planes = planes_of(builder, u, args[0])
        if u.planes == 2:
            planes[1] = builder.fneg(planes[1])
        return pack(builder, u, planes)

    return u(u), lower


@overload(operator.add)
def _overload_add(u, v):
    if isinstance(u, Vector) and isinstance(v, Vector):
        return lambda u, v: _add(u, v)


@overload(operator.sub)
def _overload_sub(u, v):
    if isinstance(u, Vector) and isinstance(v, Vector):
        return lambda u, v: _subtract(u, v)


@overload(operator.mul)
def _overload_mul(u, v):
    if isinstance(u, Vector) and isinstance(v, Vector):
        return lambda u, v: _multiply(u, v)


@overload_method(Vector, "conjugate")
def _overload_conjugate(u):
    return lambda u: _conjugate(u)


@intrinsic
def all_finite(typingctx, u):
    """Return True if no lane of a value holds an infinity or a NaN."""

    def lower(context, builder, signature, args):
        lanes = ir.IntType(number_of(u).lanes)
        finite = ir.Constant(lanes, -1)
        for plane in planes_of(builder, u, args[0]):
            difference = builder.fsub(plane, plane)
            zero = builder.fcmp_ordered("==", difference, _splat(plane.type, 0.0))
            finite = builder.and_(finite, builder.bitcast(zero, lanes))
        return builder.icmp_unsigned("==", finite, ir.Constant(lanes, -1))

    return (types.boolean(u), lower) if number_of(u) else None


@intrinsic
def with_trace(typingctx, trace, u):
    """Return ``trace + 0 * u``, which is finite only if every u so far was finite."""

    def lower(context, builder, signature, args):
        pairs = zip(planes_of(builder, u, args[0]), planes_of(builder, u, args[1]), strict=True)
        traced = [
            builder.fadd(p, builder.fmul(q, _splat(q.type, 0.0), flags=FUSE), flags=FUSE)
            for p, q in pairs
        ]
        return pack(builder, u, traced)

    return (u(u, u), lower) if trace == u and number_of(u) else None


@intrinsic
def remembered(typingctx, a, h):
    """Return the state that a step with coefficient ``a`` starts from, lane by lane.

    It is ``h``, or zero where all numbers of ``a`` are zero.
    """

    def lower(context, builder, signature, args):
        zeros = [
            builder.fcmp_ordered("==", plane, _splat(plane.type, 0.0))
            for plane in planes_of(builder, a, args[0])
        ]
        forgets = functools.reduce(builder.and_, zeros)
        planes = planes_of(builder, h, args[1])
        kept = [builder.select(forgets, _splat(plane.type, 0.0), plane) for plane in planes]
        return pack(builder, h, kept)

    alike = number_of(a) and number_of(a) == number_of(h)
    return (h(a, h), lower) if alike else None


# ---------------------------------------------------------------- lanes


def constant(kind: str, lanes: int, numbers):
    """Return a function without arguments that gives a value of a kind, the same in every lane.

    ``numbers`` is a number if the kind is one number, else a tuple, such as ``one`` or ``zero`` of
    an algebra.
    """
    value = value_type(kind, lanes)
    number = number_of(value)
    several = numbers if isinstance(numbers, tuple) else (numbers,)
    if len(several) != count_of(value):
        raise ValueError(f"numbers is {numbers}, but a {kind} has {count_of(value)} of them")

    @intrinsic
    def same_everywhere(typingctx):
        def lower(context, builder, signature, args):
            parts = [part for n in several for part in (n.real, n.imag)[: number.planes]]
            return pack(builder, value, [_splat(number.plane, float(part)) for part in parts])

        return value(), lower

    return same_everywhere


@intrinsic(prefer_literal=True)
def shift(typingctx, u, filler, distance):
    """Move every lane up by ``distance`` places; the lowest lanes are filled from ``filler``."""
    lanes = number_of(u).lanes
    by = min(distance.literal_value, lanes)

    def lower(context, builder, signature, args):
        order = indices([*range(lanes, lanes + by), *range(lanes - by)])
        pairs = zip(planes_of(builder, u, args[0]), planes_of(builder, u, args[1]), strict=True)
        return pack(builder, u, [builder.shuffle_vector(p, q, order) for p, q in pairs])

    return u(u, u, distance), lower


@intrinsic(prefer_literal=True)
def repeat_last(typingctx, u, count, lanes):
    """Return a value of ``lanes`` lanes that repeats the last ``count`` lanes of ``u``."""
    number, last = number_of(u), count.literal_value
    wide = _several(Vector(number.bits, number.planes, lanes.literal_value), count_of(u))

    def lower(context, builder, signature, args):
        order = indices([number.lanes - last + lane % last for lane in range(lanes.literal_value)])
        planes = planes_of(builder, u, args[0])
        return pack(builder, wide, [builder.shuffle_vector(p, p, order) for p in planes])

    return wide(u, count, lanes), lower
