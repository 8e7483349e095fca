"""Conversion to bfloat16 for hardware before sm_80, which has no instruction for it."""

from __future__ import annotations

import re

_ROUNDED = r"""{ .reg .b32 bits, rounded; .reg .pred nan;
mov.b32 bits, \2;
shr.u32 rounded, bits, 16;
and.b32 rounded, rounded, 1;
add.u32 rounded, rounded, 0x7fff;
add.u32 rounded, rounded, bits;
setp.nan.f32 nan, \2, \2;
selp.b32 rounded, 0x7fffffff, rounded, nan;
shr.u32 rounded, rounded, 16;
cvt.u16.u32 \1, rounded; }"""


def without_bfloat16(ptx: str) -> str:
    """Return PTX that converts to bfloat16 with integer instructions.

    Conversion rounds to nearest, ties to even. Every NaN becomes 0x7fff.
    """
    return re.sub(r"cvt\.rn\.bf16\.f32 (\S+), (\S+);", _ROUNDED, ptx)
