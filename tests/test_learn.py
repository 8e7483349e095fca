"""Traced scans are the loop, and count their rounds as their closed forms say."""

import pytest

from lrscan.learn import trace


@pytest.mark.parametrize("steps", [1, 2, 9, 64])
def test_pieces_cover_time_and_equal_the_loop(steps):
    a = [(-1) ** t * (t % 3) for t in range(steps)]
    x = [t - 4 for t in range(steps)]
    for processors in range(1, steps + 1):
        pieces = trace.blocked(a, x, 7, processors=processors)
        assert [p.start for p in pieces] == [0, *(p.stop for p in pieces[:-1])]
        assert pieces[-1].stop == steps
        assert [h for p in pieces for h in p.states] == trace.serial(a, x, 7)
        longest = max(p.stop - p.start for p in pieces)
        assert trace.blocked_rounds(steps, processors) == 2 * longest + len(pieces) - 1


@pytest.mark.parametrize("processors", [0, 10])
def test_a_number_of_processors_that_cannot_be_is_refused(processors):
    with pytest.raises(ValueError, match=f"processors is {processors}, expected 1 to 9"):
        trace.blocked([1] * 9, [1] * 9, processors=processors)
