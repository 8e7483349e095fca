"""Gates for Numba's CPU target: exp, sigmoid and tanh of float32 vectors, by one polynomial.

::

    exp(x) = 2^n * exp(r)        n = round(x / log 2), |r| <= log(2) / 2

Errors are below 4 units in the last place. A NaN stays NaN. Beyond a magnitude of 87, exp leaves
the range of float32, so such arguments are clamped to 87 or -87.

Source: the polynomial for exp(r), and log 2 in two parts, are those of expf in Moshier's Cephes
library.
"""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from lrscan.cpu.compile import inlined
from lrscan.cpu.vector import FUSE, I32, constant, pack, planes_of

_LARGEST = 87.0
# Adding this number and subtracting it again rounds to an integer. In between, that integer is in
# the lowest bits.
_ROUNDS = 1.5 * 2.0**23
_LOG_2 = (0.693359375, -2.12194440e-4)
_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


class _Builder:
    """Arithmetic with constants, on vectors with a fixed number of lanes."""

    def __init__(self, builder, plane):
        self.builder, self.plane = builder, plane

    def constant(self, number):
        return ir.Constant(self.plane, [number] * self.plane.count)

    def add(self, p, q):
        return self.builder.fadd(p, q, flags=FUSE)

    def multiply(self, p, q):
        return self.builder.fmul(p, q, flags=FUSE)

    def clamped(self, x):
        for comparison, bound in (("<", -_LARGEST), (">", _LARGEST)):
            outside = self.builder.fcmp_ordered(comparison, x, self.constant(bound))
            x = self.builder.select(outside, self.constant(bound), x)
        return x

    def parts_of_exp(self, x):
        """Return 2^n and exp(r) - 1."""
        integers = ir.VectorType(I32, self.plane.count)
        x = self.clamped(x)
        shifted = self.add(
            self.multiply(x, self.constant(1.4426950408889634)), self.constant(_ROUNDS)
        )
        n = self.builder.fsub(shifted, self.constant(_ROUNDS))
        r = x
        for part in _LOG_2:
            r = self.add(r, self.multiply(n, self.constant(-part)))
        value = self.constant(_POLYNOMIAL[0])
        for coefficient in _POLYNOMIAL[1:]:
            value = self.add(self.multiply(value, r), self.constant(coefficient))
        value = self.add(self.multiply(value, self.multiply(r, r)), r)
        exponent = self.builder.shl(
            self.builder.bitcast(shifted, integers), ir.Constant(integers, [23] * integers.count)
        )
        one = ir.Constant(integers, [0x3F800000] * integers.count)
        return self.builder.bitcast(self.builder.add(exponent, one), self.plane), value


def _is_float32(u):
    return (u.bits, u.planes) == (32, 1)


@intrinsic
def exp(typingctx, u):
    """Return exp(u)."""

    def lower(context, builder, signature, args):
        at = _Builder(builder, u.plane)
        scale, value = at.parts_of_exp(*planes_of(builder, u, args[0]))
        return pack(builder, u, [at.add(at.multiply(scale, value), scale)])

    return (u(u), lower) if _is_float32(u) else None


@intrinsic
def tanh(typingctx, u):
    """Return (exp(2 u) - 1) / (exp(2 u) + 1), without cancellation near zero."""

    def lower(context, builder, signature, args):
        at = _Builder(builder, u.plane)
        (x,) = planes_of(builder, u, args[0])
        scale, value = at.parts_of_exp(at.add(x, x))
        less_one = at.add(at.multiply(scale, value), at.add(scale, at.constant(-1.0)))
        return pack(builder, u, [builder.fdiv(less_one, at.add(less_one, at.constant(2.0)))])

    return (u(u), lower) if _is_float32(u) else None


@intrinsic
def reciprocal(typingctx, u):
    """Return 1 / u."""

    def lower(context, builder, signature, args):
        at = _Builder(builder, u.plane)
        return pack(builder, u, [builder.fdiv(at.constant(1.0), *planes_of(builder, u, args[0]))])

    return (u(u), lower) if _is_float32(u) else None


def make_sigmoids(lanes):
    """Return a function from u to (sigmoid(u), sigmoid(-u)), both accurate to the last places."""

    zero, one = constant("float32", lanes, 0), constant("float32", lanes, 1)

    @inlined
    def sigmoids(u):
        e = exp(zero() - u)
        s = reciprocal(one() + e)
        return s, e * s

    return sigmoids
