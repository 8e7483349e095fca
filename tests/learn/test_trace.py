"""Traced scans give the states of the loop, and their counts equal the closed forms."""

import random

import pytest

from lrscan.learn.machines import counts, trace

LENGTHS = range(1, 258)


def inputs(n):
    numbers = random.Random(n)
    a = [numbers.randint(-2, 2) for _ in range(n)]
    return a, [numbers.randint(-9, 9) for _ in range(n)]


def loop(a, x, h):
    return [h := a_t * h + x_t for a_t, x_t in zip(a, x, strict=True)]


def every_trace(n):
    a, x = inputs(n)
    for name in ("serial", "Hillis-Steele", "Blelloch"):
        yield trace.ALGORITHMS[name](a, x, 7), counts.cost(name, n), loop(a, x, 7)
    for p in {1, 2, min(3, n), min(16, n), n}:
        if p <= n:
            for carries, name in (("chain", "blocked"), ("tree", "blocked, tree")):
                traced = trace.blocked(a, x, 7, processors=p, carries=carries)
                yield traced, counts.cost(name, n, p), loop(a, x, 7)


@pytest.mark.parametrize("n", LENGTHS)
def test_every_scan_equals_the_loop_and_its_closed_form(n):
    for traced, expected, states in every_trace(n):
        assert traced.states == states, traced.algorithm
        assert (traced.rounds, traced.work) == expected, traced.algorithm
        assert sum(traced.active) == traced.work
        assert traced.depth <= traced.rounds


@pytest.mark.parametrize("n", [1, 2, 3, 9, 64, 257])
def test_rounds_on_few_lanes_stay_within_brents_bound(n):
    for traced, _, _ in every_trace(n):
        assert traced.rounds_on(1) == traced.work
        for lanes in (1, 2, 3, 7, 32, 1000):
            bound = counts.brent(traced.work, traced.rounds, lanes)
            assert traced.rounds_on(lanes) <= bound + 1e-9


@pytest.mark.parametrize("n", [2, 9, 64])
def test_a_dependence_points_to_the_latest_writer(n):
    for traced, _, _ in every_trace(n):
        written = {}
        for event in traced.events:
            for cell, source in zip(event.reads, event.sources, strict=True):
                assert source < event.round
                latest = max((r for r in written.get(cell, ()) if r < event.round), default=0)
                assert source in (latest, 0)
            written.setdefault(event.writes, []).append(event.round)


@pytest.mark.parametrize("processors", [0, 10])
def test_an_impossible_number_of_processors_is_refused(processors):
    with pytest.raises(ValueError, match=f"processors is {processors}, expected 1 to 9"):
        trace.blocked([1] * 9, [1] * 9, processors=processors)


def test_wrong_arguments_are_refused_by_value():
    with pytest.raises(ValueError, match="carries is 'ring'"):
        trace.blocked([1], [1], processors=1, carries="ring")
    with pytest.raises(ValueError, match="n is 0"):
        counts.cost("serial", 0)
    with pytest.raises(ValueError, match="algorithm is 'quick'"):
        counts.cost("quick", 3)


def test_the_machine_refuses_races_and_busy_lanes():
    pair, state = trace.Cell("pair", 0), trace.Cell("state", 0)
    machine = trace.Machine("wrong", [1, 2], [3, 4])
    with pytest.raises(RuntimeError, match="two lanes write"), machine.round("a race"):
        machine.move(0, pair, state)
        machine.move(1, pair, state)
    with pytest.raises(RuntimeError, match="lane 0 has two operations"), machine.round("busy"):
        machine.compose(0, pair, trace.Cell("pair", 1), trace.Cell("pair", 1))
        machine.compose(0, pair, trace.Cell("pair", 1), trace.Cell("pair", 2))
    with pytest.raises(RuntimeError, match="outside a round"):
        trace.Machine("wrong", [1], [1]).move(0, pair, state)
