"""Broadcast inputs: they are read in place, and their gradients are summed part by part."""

import math
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recurrences import check, draw
from torch._subclasses import FakeTensorMode

from lrscan import linear_recurrence, linear_recurrence_reference
from lrscan.core import gradients, sweep

MAP_NORESERVE = 0x4000  # Linux; Python has no name for it before 3.13

# (shape of a, of x, of h0, dim)
SHAPES = [
    ((1, 4), (40, 4), (4,), 0),
    ((4,), (40, 4), None, 0),
    ((), (33,), (), 0),
    ((37, 1), (37, 5), (5,), 0),
    ((37, 5), (1, 5), (1,), 0),
    ((2, 1, 3), (2, 50, 3), (3,), 1),
    ((50, 1, 1), (50, 3, 4), (3, 4), 0),
    ((1, 3, 1), (21, 3, 4), (1, 4), 0),
    ((2, 2, 1, 1, 2), (2, 2, 3, 20, 2), None, 3),
]


@pytest.mark.parametrize("part", [3, 20, 64 * 1024])
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_equal_those_of_copies(shapes, reverse, part, monkeypatch):
    monkeypatch.setitem(gradients._SMALLEST_PART, "cpu", part)
    monkeypatch.setattr(gradients, "_SHARE", 0.0)
    *shapes, dim = shapes
    generator = torch.Generator().manual_seed(part)
    given = [
        torch.randn(shape, dtype=torch.float64, generator=generator).mul_(0.5).requires_grad_()
        for shape in shapes
        if shape is not None
    ]
    shape = torch.broadcast_shapes(given[0].shape, given[1].shape)
    full = [shape, shape, shape[:dim] + shape[dim + 1 :]]
    copies = [t.expand(s).contiguous() for t, s in zip(given, full, strict=False)]
    h = linear_recurrence(*given, dim=dim, reverse=reverse)
    expected = linear_recurrence(*copies, dim=dim, reverse=reverse)
    torch.testing.assert_close(h, expected, rtol=1e-12, atol=1e-12)
    dh = torch.randn(shape, dtype=torch.float64, generator=generator)
    got = torch.autograd.grad(h, given, dh)
    expected = torch.autograd.grad(expected, given, dh)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_the_gradient_of_a_constant_is_summed_over_a_long_sequence(monkeypatch):
    monkeypatch.setitem(gradients._SMALLEST_PART, "cpu", 64)
    a = torch.rand(3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(1000, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad(linear_recurrence(a, x).sum(), a)
    copy = a.expand(1000, 3).contiguous()
    (expected,) = torch.autograd.grad(linear_recurrence(copy, x).sum(), a)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 1])
def test_a_gpu_sums_in_few_parts(dim):
    """Each part costs the host several launches, however short it is."""
    with FakeTensorMode():
        h = torch.empty(65_536, 1024, device="cuda")
    part = gradients._part_shape(h, dim, cut_time=True)
    parts = [-(-size // own) for size, own in zip(h.shape, part, strict=True)]
    assert 2 <= math.prod(parts) <= 8


def test_a_gradient_of_no_steps_is_zero():
    a = torch.rand(1, 3, requires_grad=True)
    linear_recurrence(a, torch.rand(0, 3)).sum().backward()
    assert torch.equal(a.grad, torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_of_half_precision_are_accumulated_in_float32(dtype):
    a = torch.zeros(1, dtype=dtype, requires_grad=True)
    linear_recurrence(a, torch.ones(5001, dtype=dtype)).sum().backward()
    assert a.grad == torch.tensor(5000).to(dtype)  # a sum of ones in half precision stops growing


_PEAK = """
import re, sys, torch
from lrscan import linear_recurrence
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
broadcast = sys.argv[1] == "broadcast"
def step(steps, columns):
    a = torch.rand(1 if broadcast else steps, columns, requires_grad=True)
    x = torch.rand(steps, columns, requires_grad=True)
    h = linear_recurrence(a, x)
    dh = torch.rand_like(h)
    before = peak()
    h.backward(dh)
    return peak() - before, x.numel() * 4
step(1 << 15, 128)
extra, size = step(1 << 18, 128)
print(extra / size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("a", "gradients"), [("whole", 2), ("broadcast", 1)])
def test_backward_needs_the_gradients_and_little_more(a, gradients):
    """Peak memory of a process, in units of one input of 128 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, a], capture_output=True, text=True, check=True
    )
    assert gradients * 0.9 <= float(done.stdout) <= gradients + 0.05


def test_more_elements_than_int32_counts():
    """Rows 2**30 elements apart, in memory that is reserved but never touched."""
    apart, steps, columns = 2**30 + 16, 5, 3
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    size = 4 * (apart * (steps - 1) + columns)
    room = [
        torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=torch.float32).as_strided(
            (steps, columns), (apart, 1)
        )
        for _ in range(6)
    ]
    a, x, h, dh, da, dx = room
    drawn = draw((steps, columns), torch.float32, 0)
    for far, near in zip((a, x, dh), (drawn[0], drawn[1], drawn[3]), strict=True):
        far.copy_(near)
    h0 = drawn[2]
    dh0 = torch.empty_like(h0)
    for algorithm in ("serial", "blocked"):
        sweep.forward(a, x, h0, 0, False, algorithm, out=h)
        sweep.backward(a, h, h0, dh, 0, False, algorithm, None, (da, dx, dh0))
        check([h, da, dx, dh0], a, x, h0, dh, 0, False)


def test_more_steps_than_int32_counts():
    """A constant input and one output element that every step overwrites."""
    steps = 2**31 + 3
    a, x = torch.tensor(0.5).expand(steps), torch.tensor(1.0).expand(steps)
    last = torch.zeros(1)
    sweep.forward(a, x, None, 0, False, "serial", out=last.expand(steps))
    exact = linear_recurrence_reference(a[:100], x[:100])[-1]
    torch.testing.assert_close(last[0].double(), exact, rtol=1e-6, atol=0)
