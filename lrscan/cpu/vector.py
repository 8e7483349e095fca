"""Short vectors for Numba's CPU target: a type that compiles to the machine's vector registers.

Numba leaves vectorisation to LLVM's loop vectoriser, which cannot see through a recurrence. Here
a vector is a value of its own. It has ``+``, ``*`` and ``conjugate``, so that
:mod:`lrscan.core.algebra` compiles for it unchanged, and moves between lanes for scans within a
register. LLVM lowers it to whatever the processor has (SSE, AVX, AVX-512, NEON).

A vector has a ``kind``, the element type in memory, and a number of lanes. Arithmetic is done in
float32 or float64: half-precision kinds are widened on load and rounded once on store. A complex
vector is held as two planes, real and imaginary. Loads and stores are in
:mod:`lrscan.cpu.memory`.
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, overload, overload_method, register_model

from lrscan.core import dtypes


class Kind(NamedTuple):
    """A kind of :mod:`lrscan.core.dtypes` as LLVM knows it.

    ``memory`` is its type in memory, ``arithmetic`` the one that it is computed in; ``planes`` and
    ``bytes`` are as there.
    """

    memory: ir.Type
    arithmetic: ir.Type
    planes: int
    bytes: int


F32, F64, I16, I32, I64 = (
    ir.FloatType(),
    ir.DoubleType(),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
)

_NUMBERS = {
    "float64": F64,
    "float32": F32,
    "float16": ir.HalfType(),
    "bfloat16": I16,
    "complex64": F32,
    "complex128": F64,
}
KINDS = {
    name: Kind(_NUMBERS[name], _NUMBERS[kind.state], kind.planes, kind.bytes)
    for name, kind in dtypes.KINDS.items()
}

# Multiply-add may be fused; nothing else about the arithmetic may change.
FUSE = ("contract",)


class Vector(types.Type):
    """``lanes`` numbers of ``planes`` planes of ``bits``-bit floats."""

    def __init__(self, bits: int, planes: int, lanes: int):
        self.bits, self.planes, self.lanes = bits, planes, lanes
        super().__init__(name=f"Vector({bits}, {planes}, {lanes})")

    @classmethod
    def of(cls, kind: str, lanes: int) -> Vector:
        return cls(64 if KINDS[kind].arithmetic is F64 else 32, KINDS[kind].planes, lanes)

    @property
    def plane(self) -> ir.Type:
        return ir.VectorType(F64 if self.bits == 64 else F32, self.lanes)


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.plane, fe_type.planes))


def planes_of(builder, vector_type, value):
    return [builder.extract_value(value, p) for p in range(vector_type.planes)]


def pack(builder, vector_type, planes):
    value = ir.Constant(ir.ArrayType(vector_type.plane, vector_type.planes), ir.Undefined)
    for p, plane in enumerate(planes):
        value = builder.insert_value(value, plane, p)
    return value


def _constant(vector_type, number):
    return ir.Constant(vector_type.plane, [number] * vector_type.lanes)


def indices(values):
    return ir.Constant(ir.VectorType(I32, len(values)), list(values))


# ---------------------------------------------------------------- arithmetic


def _plane_by_plane(u, instruction):
    """How to lower an instruction that takes each plane of two vectors by itself."""

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
    """Whether no lane holds an infinity or a NaN."""

    def lower(context, builder, signature, args):
        finite = ir.Constant(ir.IntType(u.lanes), -1)
        for plane in planes_of(builder, u, args[0]):
            difference = builder.fsub(plane, plane)
            zero = builder.fcmp_ordered("==", difference, _constant(u, 0.0))
            finite = builder.and_(finite, builder.bitcast(zero, ir.IntType(u.lanes)))
        return builder.icmp_unsigned("==", finite, ir.Constant(ir.IntType(u.lanes), -1))

    return types.boolean(u), lower


@intrinsic
def remembered(typingctx, u, v):
    """:func:`lrscan.core.algebra.remembered`, lane by lane: ``v``, or zero where ``u`` is zero."""

    def lower(context, builder, signature, args):
        zeros = [
            builder.fcmp_ordered("==", plane, _constant(u, 0.0))
            for plane in planes_of(builder, u, args[0])
        ]
        forgets = functools.reduce(builder.and_, zeros)
        planes = planes_of(builder, v, args[1])
        kept = [builder.select(forgets, _constant(v, 0.0), plane) for plane in planes]
        return pack(builder, v, kept)

    return (v(u, v), lower) if u == v else None


# ---------------------------------------------------------------- lanes


@intrinsic(prefer_literal=True)
def fill(typingctx, kind, lanes, number):
    """A vector with the same real ``number`` (a literal integer) in every lane."""
    vector = Vector.of(kind.literal_value, lanes.literal_value)

    def lower(context, builder, signature, args):
        planes = [_constant(vector, float(number.literal_value)), _constant(vector, 0.0)]
        return pack(builder, vector, planes[: vector.planes])

    return vector(kind, lanes, number), lower


@intrinsic(prefer_literal=True)
def shift(typingctx, u, filler, distance):
    """Move every lane up by ``distance`` places; the lowest ones come from ``filler``."""
    by = min(distance.literal_value, u.lanes)

    def lower(context, builder, signature, args):
        order = indices([*range(u.lanes, u.lanes + by), *range(u.lanes - by)])
        pairs = zip(planes_of(builder, u, args[0]), planes_of(builder, u, args[1]), strict=True)
        return pack(builder, u, [builder.shuffle_vector(p, q, order) for p, q in pairs])

    return u(u, u, distance), lower


@intrinsic(prefer_literal=True)
def repeat_last(typingctx, u, count, lanes):
    """A vector of ``lanes`` lanes: the last ``count`` of ``u``, again and again."""
    wide, last = Vector(u.bits, u.planes, lanes.literal_value), count.literal_value

    def lower(context, builder, signature, args):
        order = indices([u.lanes - last + lane % last for lane in range(wide.lanes)])
        planes = planes_of(builder, u, args[0])
        return pack(builder, wide, [builder.shuffle_vector(p, p, order) for p in planes])

    return wide(u, count, lanes), lower
