"""Timed training steps: Table 2, the heat map, and the time of a step over length."""

import math

import pytest
import torch
from projects import make_project

from lrscan.evidence import paper, records
from lrscan.experiments import lstm_throughput, step_time, training_speedup
from lrscan.experiments.models import MODELS

CPU = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "device_type": "cpu"}
CPU |= {"profile": "quick", "versions": {"torch": "2", "numba": "0"}, "threads": {"torch": 2}}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setenv("LRSCAN_RECORD", "1")
    return root


def table_2(**changed):
    given = {"device": "cpu", "seed": 0, "events": 32, "lengths": [4, 16], "widths": [3, 5]}
    given |= {"inputs": [3, 2], "names": ["SRU", "GILR-LSTM"], "runs": 1}
    return training_speedup.measure(**given | changed)


def test_every_cell_of_table_2_is_timed_with_every_algorithm():
    measured = table_2()
    cells = measured.table.groupby(["model", "C", "T", "B"])["algorithm"].agg(set)
    assert len(cells) == 8 and all(c == {"serial", "blocked", "auto"} for c in cells)
    assert set(zip(measured.table["T"], measured.table["B"], strict=True)) == {(4, 8), (16, 2)}
    ours = training_speedup.summarise(measured)
    assert set(ours["algorithm"]) == {"blocked", "auto"} and (ours["speedup"] > 0).all()
    figure = training_speedup.plot(measured)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [f"{width} units, over a tuned loop" for width in (3, 5)]


@pytest.mark.parametrize("left", [0, 3])
def test_a_figure_of_a_partial_record_says_so(left):
    measured = table_2()
    records.say_left(measured.provenance["measurements"][-1], left)
    figure = training_speedup.plot(measured)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert ("partial: 3 left to measure" in texts) == bool(left)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"lengths": [5]}, "32.*5"), ({"names": ["GRU"]}, "GRU"), ({"inputs": [3]}, "longer|shorter")],
)
def test_a_table_2_that_cannot_be_measured_is_refused(changed, named):
    with pytest.raises(ValueError, match=named):
        table_2(**changed)


def test_an_algorithm_with_other_gradients_is_not_timed():
    same = (torch.ones(()), torch.ones(3))
    training_speedup._check_agreement("SRU", {"serial": lambda: same, "blocked": lambda: same})
    for wrong in ((torch.ones(()), torch.tensor([1, 1, 1.01])), (torch.tensor(math.nan), same[1])):
        with pytest.raises(RuntimeError, match="SRU: blocked and serial"):
            training_speedup._check_agreement(
                "SRU", {"serial": lambda: same, "blocked": lambda wrong=wrong: wrong}
            )


def test_switching_the_algorithm_switches_the_surrogate_too():
    net = MODELS["GILR-LSTM"](3, 4, 2)
    seen = []
    step = training_speedup._with_algorithm(
        net, "blocked", lambda: seen.append([net.algorithm, net.layers[0].surrogate.algorithm])
    )
    step()
    assert seen == [["blocked", "blocked"]]


def test_the_heat_map_compares_at_equal_minibatch():
    times = [("LSTM", 100, 1, 100.0), ("LSTM", 200, 1, 100.0), ("LSTM", 100, 4, 100.0)]
    times += [("GILR-LSTM", 100, 1, 10.0), ("GILR-LSTM", 100, 4, 400.0)]
    rows = [
        {"model": m, "T": T, "B": B, "C": 8, "median_ms": ms, "runs": 3} for m, T, B, ms in times
    ]
    measured = records.write("lstm_throughput", rows, CPU)
    table = lstm_throughput.summarise(measured).set_index(["model", "T", "B"])
    assert table.loc["LSTM", 200, 1]["thousand_events_per_s"] == 2.0
    # 10 thousand events per second, over the LSTM's best at minibatch 1, which is 2 thousand.
    assert table.loc["GILR-LSTM", 100, 1]["ratio"] == 5.0
    assert table.loc["GILR-LSTM", 100, 4]["ratio"] == 0.25
    assert lstm_throughput.plot(measured).axes


def test_the_heat_map_leaves_out_what_is_too_large():
    measured = lstm_throughput.measure(
        device="cpu",
        seed=0,
        hidden=4,
        lengths=[8, 16],
        minibatches=[1, 4],
        most_events=32,
        lstm_lengths=[8],
        runs=1,
    )
    cells = set(zip(*(measured.table[name] for name in ("model", "T", "B")), strict=True))
    assert cells == {
        ("GILR-LSTM", 8, 1),
        ("GILR-LSTM", 8, 4),
        ("GILR-LSTM", 16, 1),
        ("LSTM", 8, 1),
        ("LSTM", 8, 4),
    }


def test_the_papers_heat_map_has_its_claim():
    theirs = paper.heatmap()
    longest = theirs[(theirs["T"] == 131_072) & (theirs["B"] == 1)]
    assert longest["ratio"].item() == pytest.approx(503 / 14.3)


def test_a_steps_reference_is_in_proportion_to_its_length():
    measured = step_time.measure(device="cpu", seed=0, step_lengths=[32, 8], hidden=4, runs=1)
    short, long = measured.table.sort_values("T").to_dict("records")
    assert (short["T"], long["T"]) == (8, 32)
    assert short["reference_ms"] == short["median_ms"]
    assert long["reference_ms"] == 4 * short["median_ms"]
