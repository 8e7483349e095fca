"""The table of dtypes, held against what torch says of each."""

import pytest
import torch

from lrscan.core import dtypes
from lrscan.core.dtypes import DTYPES, KINDS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_table_is_true_of_torch(dtype):
    kind = KINDS[dtypes.kind_of(dtype)]
    assert kind.size == dtype.itemsize
    assert kind.planes == 1 + dtype.is_complex
    assert kind.state == dtypes.kind_of(dtypes.state_dtype(dtype)) and kind.state in KINDS
    assert (dtype in dtypes.HALF) == (torch.finfo(dtype).bits == 16)
    if dtype.is_complex:
        assert torch.complex(*torch.zeros(2, dtype=dtypes.REAL[dtype])).dtype == dtype
    assert dtypes.double_dtype(dtype).is_complex == dtype.is_complex


def test_a_state_is_never_narrower_than_what_it_is_made_of():
    for dtype in DTYPES:
        assert torch.promote_types(dtype, dtypes.state_dtype(dtype)) == dtypes.state_dtype(dtype)
    assert dtypes.state_dtype(torch.int64) == torch.float32  # of a state that a model is given
