"""The conversion to bfloat16 that replaces the hardware's, run instruction by instruction."""

import re

import pytest
import torch

pytest.importorskip("numba.cuda")
from lrscan.cuda.bfloat16 import without_bfloat16  # noqa: E402

INSTRUCTIONS = {
    "mov.b32": lambda a: a,
    "shr.u32": lambda a, n: a >> n,
    "and.b32": lambda a, b: a & b,
    "add.u32": lambda a, b: (a + b) % 2**32,
    "setp.nan.f32": lambda a, b: torch.tensor([a, b]).to(torch.uint32).view(torch.float32).isnan(),
    "selp.b32": lambda a, b, p: a if p.any() else b,
    "cvt.u16.u32": lambda a: a % 2**16,
}


def run(ptx, registers):
    """Execute PTX without branches on a dictionary of registers, and return it."""
    for operation, operands in re.findall(r"^\s*([a-z]\S+) ([^;{}]+);", ptx, re.M):
        target, *sources = operands.split(", ")
        values = [registers[s] if s in registers else int(s, 0) for s in sources]
        registers[target] = INSTRUCTIONS[operation](*values)
    return registers


def test_bfloat16_without_hardware_rounds_as_torch_does():
    ptx = without_bfloat16("cvt.rn.bf16.f32 %rs1, %f1;")
    assert "bf16" not in ptx
    edges = [0, 1, 0x7FFF, 0x8000, 0x8001, 0x18000, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F800000, 0x3F808000]
    drawn = torch.randint(2**31, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    for bits in [sign | b for b in edges + drawn for sign in (0, 2**31)]:
        found = run(ptx, {"%f1": bits})["%rs1"]
        value = torch.tensor([bits]).to(torch.uint32).view(torch.float32)
        expected = value.to(torch.bfloat16)
        got = torch.tensor([found]).to(torch.uint16).view(torch.bfloat16)
        assert torch.equal(got, expected) or (got.isnan() and expected.isnan()), hex(bits)


def test_a_nan_stays_a_nan():
    ptx = without_bfloat16("cvt.rn.bf16.f32 %rs1, %f1;")
    for bits in (0x7F800001, 0x7FFFFFFF, 0xFF800001, 0x7FC00000):
        assert run(ptx, {"%f1": bits})["%rs1"] == 0x7FFF
