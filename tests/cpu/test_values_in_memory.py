"""Values and structures in memory: a read returns what was written."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numba import njit

from lrscan.core.dtypes import described
from lrscan.cpu.memory import load, reader, store
from lrscan.cpu.structures import int64s_of, length, offset_of

LANES, FIRST = 4, 8
# The value in each lane, if lane 0 is at value FIRST.
SPACINGS = {
    "unit": [8, 9, 10, 11],
    "mirror": [8, 7, 6, 5],
    "mirror 2": [8, 9, 6, 7],
    "same": [8, 8, 8, 8],
    "strided": [8, 10, 12, 14],
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["float32", "float32_3", "bfloat16_4", "complex64_2", "float64_5"])
def test_lanes_are_spaced_as_the_spacing_says(kind, spacing):
    info = described(kind)
    dtype = getattr(torch, info.number)
    source = torch.randn(20, info.numbers).to(dtype)
    together, apart = torch.zeros_like(source), torch.zeros_like(source)
    stride, written = 2 * info.size, spacing if spacing != "same" else "unit"

    @njit
    def gather(source, to):
        store(kind, "unit", to, 0, load(kind, LANES, spacing, source, stride))

    @njit
    def scatter(source, to):
        store(kind, written, to, stride, load(kind, LANES, "unit", source, 0))

    at = FIRST * info.size
    gather(source.data_ptr() + at, together.data_ptr())
    scatter(together.data_ptr(), apart.data_ptr() + at)
    assert torch.equal(together[:LANES], source[SPACINGS[spacing]])
    assert not together[LANES:].any()
    expected = torch.zeros_like(source)
    expected[SPACINGS[written]] = together[:LANES]
    assert torch.equal(apart, expected)


class Pair(NamedTuple):
    left: int
    right: int


class Both(NamedTuple):
    first: Pair
    last: int


def test_a_kernel_reads_the_structure_that_the_host_wrote():
    read = reader(Both)

    @njit
    def backwards(address):
        both = read(address)
        return both.last, both.first.right, both.first.left

    memory = np.array(int64s_of(Both(Pair(1, 2), 3)), np.int64)
    assert length(Both) == len(memory) == 3
    assert backwards(memory.ctypes.data) == (3, 2, 1)
    assert memory[offset_of(Both, "last") // memory.itemsize] == 3
    with pytest.raises(AttributeError, match="middle"):
        offset_of(Both, "middle")
