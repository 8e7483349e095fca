"""The table of dtypes, compared with torch's own properties of each."""

import pytest
import torch

from lrscan.core import dtypes
from lrscan.core.dtypes import DTYPES, KINDS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_table_agrees_with_torch(dtype):
    kind = KINDS[dtypes.kind_of(dtype)]
    assert kind.size == dtype.itemsize
    assert kind.planes == 1 + dtype.is_complex
    assert kind.state == dtypes.kind_of(dtypes.state_dtype(dtype)) and kind.state in KINDS
    assert (dtype in dtypes.HALF) == (torch.finfo(dtype).bits == 16)
    if dtype.is_complex:
        assert torch.complex(*torch.zeros(2, dtype=dtypes.REAL[dtype])).dtype == dtype
    assert dtypes.double_dtype(dtype).is_complex == dtype.is_complex


def test_a_state_is_never_narrower_than_its_inputs():
    for dtype in DTYPES:
        assert torch.promote_types(dtype, dtypes.state_dtype(dtype)) == dtypes.state_dtype(dtype)
    assert dtypes.state_dtype(torch.int64) == torch.float32  # a model may be given an integer state
