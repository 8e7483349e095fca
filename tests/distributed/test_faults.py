"""A fault on one rank raises an error on the others that names the rank and the operation."""

import os
import re
import time

import pytest
import torch
from projects import LONGEST_S, wait_until
from ranks import Failure, Ranks

import lrscan
from lrscan import distributed
from lrscan.distributed import operator

TIMEOUT_S = 10  # no rank is that late by chance


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(3, tmp_path_factory.mktemp("ranks"), TIMEOUT_S)
    ranks.results(warm_up)
    yield ranks
    ranks.close()


def warm_up(group):
    """Import modules and compile kernels, so that no rank is late because of them."""
    for dtype in (torch.float32, torch.float64):
        a, x = torch.ones(2, 4, 2, dtype=dtype)
        operator.reduced(a, x, 0, False, "auto")
        operator.outgoing_gradient(a, torch.ones((), dtype=dtype).expand(4, 2), 0, False, "auto")
        lrscan.linear_recurrence(a, x)


def odd_one_out(group, own, others):
    """Call the operator with other arguments on rank 1 than on the others."""
    given = {"shape": (4, 2), "dtype": torch.float32, "dim": 0, "reverse": False}
    given |= own if group.rank() == 1 else others
    x = torch.ones(given.pop("shape"), dtype=given.pop("dtype"))
    return distributed.linear_recurrence(x, x, group=group, **given)


DISAGREEMENTS = {
    "columns": ({"shape": (4, 3)}, {}, r"columns: rank 0: \(2,\), rank 1: \(3,\), rank 2: \(2,\)"),
    "axes": ({"shape": (4, 2, 1)}, {}, r"columns: .*rank 1: \(2, 1\)"),
    "dtype": ({"dtype": torch.float64}, {}, r"dtype: .*rank 1: torch.float64"),
    "dim": ({"dim": 1, "shape": (2, 4)}, {}, r"dim: rank 0: 0, rank 1: 1"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_that_disagree_all_say_so_before_data_moves(ranks, name):
    *given, message = DISAGREEMENTS[name]
    for failure in ranks.run(odd_one_out, *given):
        assert failure.kind == "ValueError"
        assert "the ranks disagree on" in failure.message
        assert re.search(message, failure.message), failure.message
    after = ranks.results(odd_one_out, {}, {})
    assert [h.shape for h in after] == [(4, 2)] * 3


def test_ranks_that_disagree_on_the_direction_say_so(ranks):
    for failure in ranks.run(odd_one_out, {"reverse": True}, {}):
        assert failure.kind == "ValueError" and "disagree on direction" in failure.message


def test_arguments_refused_on_one_rank_are_an_error_on_all(ranks):
    results = ranks.run(odd_one_out, {"dtype": torch.int64}, {})
    assert results[1].kind == "TypeError" and "torch.int64" in results[1].message
    for failure in (results[0], results[2]):
        assert failure.kind == "RankError" and failure.ranks == (1,)
        assert "linear_recurrence: rank 1 refused its arguments" in failure.message
    ranks.results(odd_one_out, {}, {})


def late(group, gave_up):
    """Call on rank 1 only after rank 0 has stopped waiting for it, and made a file that says so."""
    ones = torch.ones(4, 2)
    if group.rank() == 1:
        wait_until(gave_up.exists)
    try:
        distributed.linear_recurrence(ones, ones, group=group)
    except distributed.RankError as error:
        gave_up.touch()
        return Failure(error)


def test_a_late_rank_is_named_with_the_operation_within_the_timeout(ranks, tmp_path):
    failure, _ = ranks.run(late, tmp_path / "gave up", size=2)
    assert failure.kind == "RankError" and failure.ranks == (1,)
    assert "'agreement on linear_recurrence'" in failure.message
    assert "rank 1 of 2 did not take part, nor in any exchange before" in failure.message


def dead(group):
    """Take part in forward on all ranks, and end rank 2 before backward."""
    a = torch.full((4, 2), 0.5, requires_grad=True)
    h = distributed.linear_recurrence(a, torch.ones(4, 2), group=group)
    if group.rank() == 2:
        os._exit(1)
    begun = time.monotonic()
    try:
        h.sum().backward()
    except distributed.RankError as error:
        assert time.monotonic() - begun < TIMEOUT_S + LONGEST_S  # torch's own timeout is 30 minutes
        return Failure(error)


def test_a_dead_rank_is_named_with_the_operation_within_the_timeout(ranks):
    *failures, gone = ranks.run(dead)
    assert gone is None
    for failure in failures:
        assert failure.kind == "RankError" and failure.ranks == (2,)
        assert "'exchange of linear_recurrence, backward'" in failure.message
        assert "its last exchange was 'exchange of linear_recurrence'" in failure.message


def test_without_a_process_group_there_is_a_clear_error():
    with pytest.raises(RuntimeError, match="init_process_group"):
        distributed.linear_recurrence(torch.ones(2), torch.ones(2))
