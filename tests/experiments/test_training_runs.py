"""Training on problem 2b: the search, the runs, their summaries and their figures."""

import json
import math

import pytest
import torch
from rich.console import Console
from training_records import trained

from lrscan.evidence import records
from lrscan.experiments import long_memory, problem_2b, problem_2b_search, show, training_runs
from lrscan.experiments.resume import Paused
from lrscan.train import DIVERGED, PAUSED, Settings
from lrscan.train.settings import Classifier

pytestmark = pytest.mark.usefixtures("recording")
CPU = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "device_type": "cpu"}
CPU |= {"profile": "quick", "versions": {"torch": "2", "numba": "0"}, "threads": {"torch": 2}}


def test_one_seed_of_everything_is_trained_before_the_next(monkeypatch):
    """Within a seed, the GILR-LSTM is trained first."""
    search()
    order = []
    monkeypatch.setattr(training_runs, "train_all", lambda name, runs, *_: order.extend(runs))
    given = {"device": "cpu", "hidden": 4, "batch": 2, "iterations": 1, "sequences": 2}
    given |= {"seeds": [5, 6], "grown_lengths": []}
    problem_2b.measure(**given, lengths=[16, 32], apart_lengths=[], matched=False)
    models_and_lengths = [("GILRLSTM", 16), ("GILRLSTM", 32), ("LSTM", 16), ("LSTM", 32)]
    expected = [(seed, *one) for seed in (5, 6) for one in models_and_lengths]
    assert [(run.seed, run.model, run.steps) for run in order] == expected
    order.clear()
    long_memory.measure(
        **given,
        lengths=[16, 32],
        lstm_lengths=[16],
        distractors="any",
        rate=1e-3,
        initialisations=["graded"],
    )
    del expected[3], expected[6]
    assert [(run.seed, run.model, run.steps) for run in order] == expected


def search(**changed):
    given = {"device": "cpu", "seed": 7, "names": ["GILRLSTM", "LSTM"], "lengths": [8]}
    given |= {"hidden": 4, "batch": 2, "initialisations": ["chrono"]}
    given |= {"rates": [0.01, 0.02], "iterations": 3, "sequences": 16, "grown_lengths": []}
    return problem_2b_search.measure(**given | changed)


def small_runs(**changed):
    """Return the smallest parameters of problem_2b.measure, with changes."""
    given = {"device": "cpu", "lengths": [8], "grown_lengths": [], "apart_lengths": []}
    given |= {"seeds": [0], "hidden": 4, "batch": 2, "iterations": 2, "sequences": 16}
    return given | {"matched": False} | changed


def test_a_search_is_the_same_for_both_models_and_the_runs_take_what_it_found(monkeypatch):
    searched = search(lengths=[16, 8], rates=[0.01, 0.02, 0.03, 0.04, 0.05])
    found = training_runs.outcomes(searched)
    assert set(found["iterations"]) == {3}
    for _, runs in found.groupby("model"):
        once = runs[(runs["T"] == 8) & (runs["seed"] == 7)]
        assert sorted(once["rate"]) == [0.01, 0.02, 0.03, 0.04, 0.05]
        finalists = set(problem_2b_search.ranked(once)["rate"][:4])
        again = runs.drop(once.index)
        assert set(again["rate"]) == finalists and len(finalists) == 4
        assert again.groupby(["T", "seed"]).size().to_dict() == dict.fromkeys(
            [(8, 8), (8, 9), (16, 7), (16, 8), (16, 9)], 4
        )
    measured = problem_2b.measure(**small_runs(names=["GILRLSTM"], lengths=[8, 16], seeds=[0, 1]))
    runs = training_runs.outcomes(measured)
    assert list(runs["T"]) == [8, 8, 16, 16] and list(runs["seed"]) == [0, 1, 0, 1]
    best = problem_2b_search.chosen(searched).query("model == 'GILRLSTM'").set_index("T")["rate"]
    assert (runs["rate"] == runs["T"].map(best)).all()
    for table in (runs, found):
        assert table["held_out"].between(table["low"], table["high"]).all()


def test_runs_without_a_search_are_refused():
    with pytest.raises(FileNotFoundError, match="problem_2b_search"):
        problem_2b.measure(**small_runs(names=["LSTM"]))


def test_a_run_with_the_best_settings_continues_where_it_was_paused(monkeypatch):
    search(names=["GILRLSTM"])
    given = small_runs(names=["GILRLSTM"], iterations=6, resume=True)
    problem_2b.measure(**given)
    real = training_runs.train
    monkeypatch.setattr(training_runs, "train", lambda *a, **kw: real(*a, **kw | {"seconds": 1e-9}))
    for _ in range(5):
        with pytest.raises(Paused):
            problem_2b.measure(**given | {"seeds": [0, 1]})
    ended = training_runs.outcomes(problem_2b.measure(**given | {"seeds": [0, 1]}))
    assert list(ended["iterations"]) == [6, 6]


def test_runs_with_and_without_a_curriculum_are_searched_separately():
    searched = search(grown_lengths=[256, 128], rates=[0.01])
    found = training_runs.outcomes(searched)
    tasks = {(8, 0), (128, 128), (256, 128)}
    assert set(zip(found["T"], found["start_steps"], strict=True)) == tasks
    measured = problem_2b.measure(
        **small_runs(
            names=["GILRLSTM", "LSTM"], grown_lengths=[256], apart_lengths=[16], matched=True
        )
    )
    assert set(measured.table["steps"]) == {8, 16, 128}
    assert set(measured.table.query("steps == 16")["distractors"]) == {"apart"}
    wider = problem_2b.matched_hidden("LSTM", "GILRLSTM", 4)
    table = problem_2b.convergence(measured)
    assert set(table[table["model"] == "LSTM"]["C"]) == {4, wider}
    assert len(problem_2b.sooner(measured)) == len(table[table["model"] == "LSTM"]) == 6
    titles = [panel.get_title(loc="left") for panel in problem_2b.plot(measured).axes]
    assert titles == ["T = 8", "T = 16, distractors apart", "T = 256, doubled from 128"]
    search(grown_lengths=[], rates=[0.01])
    with pytest.raises(ValueError, match="no runs of 'GILRLSTM' with a curriculum"):
        problem_2b.measure(**small_runs(lengths=[], grown_lengths=[256]))


def test_a_matched_lstm_has_the_fewest_units_that_suffice():
    def parameters(model, hidden):
        net = Classifier(Settings(model=model, hidden=hidden), torch.device("cpu"))
        return sum(one.numel() for one in net.parameters())

    units = problem_2b.matched_hidden("LSTM", "GILRLSTM", 32)
    assert parameters("LSTM", units - 1) < parameters("GILRLSTM", 32) <= parameters("LSTM", units)


def test_the_first_to_learn_is_chosen_and_a_failure_only_where_all_failed():
    trained(CPU, "s", ("GILRLSTM", 64, 0, 30), ("LSTM", 64, 0, None), rate=1e-3)
    measured = trained(CPU, "s", ("GILRLSTM", 64, 0, 20), ("LSTM", 64, 0, None), rate=2e-3)
    best = problem_2b_search.chosen(measured).set_index("model")
    assert best.loc["GILRLSTM", "rate"] == 2e-3 and best.loc["GILRLSTM", "iterations"] == 20
    assert best.loc["LSTM", "learned"] == 0 and best.loc["LSTM", "iterations"] == math.inf


def test_settings_are_ranked_by_how_many_seeds_learned_and_then_by_their_median():
    def rate(value, *at):
        seeds = [("GILRLSTM", 64, seed, iterations) for seed, iterations in enumerate(at)]
        return trained(CPU, "s", *seeds, rate=value)

    rate(1e-3, 10)  # one seed only, and the luckiest run
    rate(2e-3, 20, 30, None)
    rate(3e-3, 50, 90, 60)
    measured = rate(4e-3, 40, 80, 80)
    table = problem_2b_search.ranked(training_runs.outcomes(measured))
    assert list(table["rate"]) == [3e-3, 4e-3, 2e-3, 1e-3]
    assert list(table["iterations"]) == [60, 80, 30, 10]
    assert list(table["learned"]) == [3, 3, 2, 1]


def test_recorded_runs_are_kept_when_a_measurement_resumes(monkeypatch):
    first = search()
    trained_again = []

    def train(settings, **options):
        trained_again.append(settings)
        return real(settings, **options)

    real = training_runs.train
    monkeypatch.setattr(training_runs, "train", train)
    again = search(resume=True)
    assert not trained_again and again.table.equals(first.table)
    search(rates=[0.01, 0.03], resume=True)
    assert [(one.rate, one.seed) for one in trained_again] == [
        *[(0.03, 7)] * 2,
        *[(0.03, 8), (0.03, 9)] * 2,
    ]
    trained_again.clear()
    search()
    assert len(trained_again) == 12
    assert set(records.read("problem_2b_search", "cpu-2-core").table["rate"]) == {0.01, 0.02}


def test_runs_that_gave_up_continue_when_there_are_more_iterations():
    first = training_runs.outcomes(search(resume=True))
    assert set(first["status"]) == {"not learned"}
    more = search(iterations=5, resume=True)
    ended = training_runs.outcomes(more)
    assert set(ended["iterations"]) == {5} and list(ended["run"]) == list(first["run"])
    assert len(more.table) == 5 * len(first)
    assert search(iterations=4, resume=True).table.equals(more.table)


def test_a_run_from_before_a_setting_existed_is_replaced_when_it_continues():
    path = search(resume=True).path.with_suffix(".json")
    origin = json.loads(path.read_text())
    for one in origin["measurements"]:
        del one["parameters"]["label_smoothing"]
    path.write_text(records.json_text(origin))
    ended = training_runs.outcomes(search(iterations=5, resume=True))
    assert set(ended["iterations"]) == {5} and ended["run"].is_unique


def test_a_measurement_pauses_between_runs_and_in_one():
    with pytest.raises(Paused, match="4 pieces of problem_2b_search are left") as paused:
        search(resume=True, until=-math.inf)
    assert paused.value.measured is None
    search(rates=[0.01], resume=True)
    with pytest.raises(Paused) as paused:
        search(resume=True, until=-math.inf)
    assert paused.value.left == 2 and set(paused.value.measured.table["rate"]) == {0.01}


def test_a_run_that_diverges_at_once_is_an_error(monkeypatch):
    class Run:
        status, iteration = DIVERGED, 1

    monkeypatch.setattr(training_runs, "train", lambda *args, **options: Run)
    with pytest.raises(RuntimeError, match="diverged at its first iteration"):
        search()
    assert PAUSED != DIVERGED


def test_table_3_counts_failures_and_averages_what_learned():
    measured = trained(
        CPU,
        "t",
        ("GILRLSTM", 64, 0, 10),
        ("GILRLSTM", 64, 1, 20),
        ("LSTM", 64, 0, 40),
        ("LSTM", 64, 1, None),
        ("LSTM", 128, 0, None),
        ("GILRLSTM", 128, 0, 10),
    )
    table = problem_2b.convergence(measured).set_index(["T", "model"])
    ours, rival = table.loc[64, "GILRLSTM"], table.loc[64, "LSTM"]
    assert (ours["runs"], ours["learned"], ours["iterations"]) == (2, 2, 15.0)
    assert ours["iterations_std"] == pytest.approx(50**0.5)
    assert (ours["median_seconds"], ours["at_least"]) == (10.0, False)
    assert (rival["runs"], rival["learned"], rival["most_iterations"]) == (2, 1, 50)
    assert (rival["iterations"], rival["held_out"]) == (40.0, 0.5)
    failed = table.loc[128, "LSTM"]
    assert math.isnan(failed["iterations"])
    assert (failed["median_seconds"], failed["at_least"]) == (50.0, True)
    assert failed["ms_per_iteration"] == 1000


def test_time_to_learn_splits_into_its_factors_and_counts_failures():
    measured = trained(
        CPU,
        "t",
        ("GILRLSTM", 64, 0, 10),
        ("GILRLSTM", 64, 1, 20),
        ("LSTM", 64, 0, 15),
        ("LSTM", 64, 1, None),
        ("LSTM", 64, 2, None),
        ("LSTM", 128, 0, None),
        ("GILRLSTM", 128, 0, 10),
        ("LSTM", 256, 0, 10),
        ("GILRLSTM", 256, 0, None),
    )
    rows = problem_2b.sooner(measured).set_index("T")
    factors = ["by_iterations", "by_time_per_iteration", "by_means"]
    assert list(rows.loc[64, factors]) == pytest.approx([1.0, 1.0, 1.0])
    assert (rows.loc[64, "by_medians"], rows.loc[64, "at_least_of_lstm"]) == (5.0, True)
    assert rows.loc[64, "pairs"] == pytest.approx(5 / 6)  # but (20, 15)
    assert math.isnan(rows.loc[128, "by_means"]) and rows.loc[128, "by_time_per_iteration"] == 1
    assert (rows.loc[256, "by_medians"], rows.loc[256, "pairs"]) == (0, 0)


def test_a_run_may_meet_the_paper_s_criterion_alone():
    measured = trained(CPU, "t", ("GILRLSTM", 64, 0, 20), ("GILRLSTM", 64, 1, 30))
    for one in measured.provenance["measurements"]:
        one["outcome"]["paper_at"] = 12
    measured.provenance["measurements"][1]["outcome"]["strict_at"] = None
    paper, strict = (problem_2b.convergence(measured, of).iloc[0] for of in ("paper", "strict"))
    assert (paper["learned"], paper["iterations"], paper["seconds"]) == (2, 12, 12)
    assert (strict["learned"], strict["iterations"], strict["seconds"]) == (1, 20, 20)


def test_the_command_line_shows_how_runs_ended_not_every_iteration(capsys):
    measured = trained(CPU, "t", ("GILRLSTM", 64, 0, 10), ("GILRLSTM", 64, 1, None))
    show.records(Console(width=200), measured)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(table) == 2 and "learned" in table[0] and "not learned" in table[1]


def test_a_curve_is_the_mean_over_the_same_runs_throughout():
    measured = trained(CPU, "t", ("GILRLSTM", 8192, 0, 101), ("GILRLSTM", 8192, 1, 201))
    line = training_runs.curves(measured, points=301)
    assert (line["learned"] == 2).all() and (line["smoothing"] == 5).all()
    assert (line["runs"] == 2).all()
    assert line["seconds"].iloc[0] == pytest.approx(1) and line["seconds"].iloc[-1] == 201
    # At the end of the first run, that run is at 1, less the two iterations by which a mean over
    # five lags behind. The other run, at iteration 101 of 201, is half-way between 0.5 and 1.
    at = line.iloc[(line["seconds"] - 101.0).abs().argmin()]
    first, second = 1 - 0.5 * 2 / 100, 0.75 - 0.5 * 2 / 200
    assert at["mean"] == pytest.approx((first + second) / 2, abs=0.01)
    assert at["deviation"] == pytest.approx((first - second) / 2**0.5, abs=0.01)
    assert line["mean"].iloc[-1] == pytest.approx((first + 1 - 0.5 * 2 / 200) / 2)
    alone = training_runs.curves(trained(CPU, "one", ("GILRLSTM", 64, 0, 11)))
    assert (alone["deviation"] == 0).all() and (alone["smoothing"] == 20).all()


def test_figures_of_training_show_every_length_and_failure():
    runs = [("GILRLSTM", 64, 0, 10), ("LSTM", 64, 0, None), ("GILRLSTM", 128, 0, 20)]
    measured = trained(CPU, "t", *runs)
    curves = problem_2b.plot(measured)
    assert [panel.get_title(loc="left") for panel in curves.axes] == ["T = 64", "T = 128"]
    title = curves.get_suptitle().replace("\n", " ")
    assert title.startswith("2 of 2 runs of the GILR-LSTM and 0 of 1 runs of the LSTM (torch)")
    texts = " ".join(text.get_text().replace("\n", " ") for text in curves.texts)
    assert "Moving averages of 20 iterations" in texts
    for figure in (problem_2b_search.plot(measured), long_memory.plot(measured)):
        crosses = [
            line.get_ydata()
            for panel in figure.axes
            for line in panel.lines
            if line.get_marker() == "x" and len(line.get_ydata())
        ]
        assert all(list(values) == [50] for values in crosses) and crosses
        assert any("CPU, 2 cores" in text.get_text() for text in figure.texts)


def test_growth_keeps_initialisations_apart_and_joins_what_has_three_runs():
    early = [("GILRLSTM", steps, seed, 10) for steps in (64, 128) for seed in range(3)]
    trained(CPU, "t", *early, ("GILRLSTM", 256, 0, 10), initialisation="early")
    measured = trained(CPU, "t", ("GILRLSTM", 64, 0, 40), initialisation="graded")
    figure = long_memory.plot(measured)
    of_early, _, of_graded, _ = figure.axes
    for panel, marks, joined in ((of_early, 7 * [10], [10, 10]), (of_graded, [40], [])):
        points = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
        assert points["GILRLSTM"] == marks
        lines = [list(line.get_ydata()) for line in panel.lines if line.get_linestyle() == "-"]
        assert lines == [joined]
    texts = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "512 units (64 at T = 1,048,576)" in texts
