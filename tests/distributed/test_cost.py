"""Cost model: it grows as it should, and reproduces the measurements to which it was fitted."""

import math

import pytest

from lrscan.distributed import cost

DEVICE, LINK = cost.Device(1e-5, 1e12), cost.Link(1e-6, 1e10)
DIRECTIONS = sorted(cost.PASSES)
T, C = 2**24, 32


def split(direction, steps=T, columns=C, ranks=4, device=DEVICE, link=LINK, **options):
    return cost.split_s(device, link, direction, steps, columns, ranks, **options)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_rank_takes_a_call_and_its_passes(direction):
    moved = cost.bytes_a_rank(direction, T, C, 1)
    assert moved == {"forward": 6, "backward": 9}[direction] * 4 * T * C
    assert split(direction, ranks=1) == pytest.approx(1e-5 + moved / 1e12, rel=1e-12)
    assert split(direction, ranks=1) > cost.whole_s(DEVICE, direction, T, C)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_fitted_device_reproduces_the_measurements(direction):
    measured = {cost.bytes_a_rank(direction, n, C, 1): s for n, s in ((64, 3e-4), (T, 7e-2))}
    device = cost.fitted_device(measured)
    for steps, seconds in zip((64, T), measured.values(), strict=True):
        assert split(direction, steps, ranks=1, device=device) == pytest.approx(seconds)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_fitted_link_reproduces_the_measurements(ranks):
    measured = {1: 2e-4, 65_536: 3e-3}
    link = cost.fitted_link(measured, ranks)
    for columns, seconds in measured.items():
        assert cost.exchange_s(link, columns, ranks) == pytest.approx(seconds)


def test_bytes_cost_nothing_if_more_of_them_took_no_longer():
    device = cost.fitted_device({10: 2.0, 20: 1.0})
    assert device.bytes_per_s == math.inf and device.call_s == 2.0
    assert cost.fitted_device({10: 1.0, 20: 3.0}).call_s == 0  # not negative
    with pytest.raises(ValueError, match=r"two or more values of bytes per rank, not \[10\]"):
        cost.fitted_device({10: 2.0})


def test_the_bytes_exchanged_do_not_depend_on_the_length():
    assert cost.bytes_exchanged(C, 4) == 3 * 2 * 8 * C
    assert cost.bytes_exchanged(C, 4, wide=16) == 2 * cost.bytes_exchanged(C, 4)
    assert cost.exchange_s(LINK, C, 1) == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_time_grows_with_steps_columns_and_latency(direction):
    now = split(direction)
    assert split(direction, 2 * T) > now and split(direction, columns=2 * C) > now
    assert split(direction, link=cost.Link(1e-3, 1e10)) > now
    assert split(direction, itemsize=8) > now


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_more_ranks_speed_up_long_sequences_and_slow_down_short_ones(direction):
    assert split(direction, ranks=8) < split(direction, ranks=4) < split(direction, ranks=2)
    assert split(direction, 16, ranks=8) > split(direction, 16, ranks=4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ranks_that_share_processors_take_proportionally_longer(direction):
    two = cost.Device(1e-5, 1e12, at_once=2)
    assert split(direction, ranks=2, device=two) == split(direction, ranks=2)
    assert split(direction, ranks=4, device=two) == 2 * split(direction, ranks=4)


def test_an_exchange_is_hidden_by_the_work_during_it():
    # The reduction hides the header of forward; the copy of dh hides the exchange of backward.
    far = cost.Link(1e-4, 1e10)
    work, around = T * C * 4 / 4 / 1e12, 3 * 1e-4
    exchange = cost.exchange_s(far, C, 4)
    assert split("forward", link=far) == pytest.approx(1e-5 + 6 * work + exchange)
    assert split("backward", link=far) == pytest.approx(1e-5 + 9 * work)
    assert 2 * work > exchange > around


def test_a_tree_has_fewer_rounds_than_a_ring():
    assert [cost.rounds(n, True) for n in (1, 2, 3, 4, 1024)] == [0, 1, 2, 2, 10]
    assert [cost.rounds(n, False) for n in (1, 2, 3, 4, 1024)] == [0, 1, 2, 3, 1023]
    tree = cost.Link(1e-6, 1e10, tree=True)
    assert split("forward", ranks=1024, link=tree) < split("forward", ranks=1024)


@pytest.mark.parametrize(
    ("direction", "ranks", "message"),
    [
        ("sideways", 2, "one of 'forward', 'backward', not 'sideways'"),
        ("forward", 0, "ranks must be at least 1, not 0"),
    ],
)
def test_an_unknown_direction_or_no_rank_is_refused(direction, ranks, message):
    with pytest.raises(ValueError, match=message):
        split(direction, ranks=ranks)
