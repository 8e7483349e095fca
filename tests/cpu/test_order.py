"""The order in which the CPU kernel goes through a tile."""

import pytest
import torch

from lrscan.core import sweep
from lrscan.cpu import dispatch


class Chosen(Exception):
    """Raised to end a sweep before its kernel is compiled."""


@pytest.mark.parametrize(
    ("shape", "dim", "order"),
    [
        ((100, 1024), 0, "rows"),  # many strips
        ((512, 512), 0, "rows"),  # steps fall into few sets of a cache
        ((500, 528), 0, "strips"),
        ((4000, 528), 0, "rows"),  # more than an L2 cache holds
        ((65_536, 112), 0, "strips"),  # seven strips
        ((512, 512), 1, "times"),
    ],
)
def test_rows_are_chosen_where_a_cache_would_not_keep_the_lines(shape, dim, order, monkeypatch):
    def note(recipe):
        raise Chosen(recipe.order)

    monkeypatch.setattr(dispatch, "sweep_kernel", note)
    sweep._prepared.cache_clear()
    a = torch.ones(shape)
    with pytest.raises(Chosen, match=order):
        sweep.forward(a, a, None, dim, False, "auto")
