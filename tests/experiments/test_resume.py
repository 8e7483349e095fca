"""Measurements in pieces: the order, what is kept, and what is measured again."""

import time

import pytest
from gpu_records import ORIGIN
from projects import make_project

from lrscan.evidence import records, workspace
from lrscan.experiments import lstm_throughput, throughput, training_speedup
from lrscan.experiments.cases import Case
from lrscan.experiments.kernel_speedup import in_order
from lrscan.experiments.resume import Paused, in_pieces

PIECES = [{"T": T, "C": 4} for T in (16, 64, 256)]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


class Counted:
    """Measurement that counts its calls, and may be interrupted."""

    def __init__(self, fails_at=None, reasons=()):
        self.taken, self.fails_at, self.reasons = [], fails_at, dict(reasons)

    def __call__(self, number):
        if number == self.fails_at:
            raise KeyboardInterrupt
        self.taken.append(number)
        row = PIECES[number] | {"algorithm": "auto", "median_ms": 1.0 + len(self.taken)}
        return [row, row | {"algorithm": "serial"}], self.reasons


def take(measure, origin=ORIGIN, **how):
    return in_pieces("rates", PIECES, measure, origin, **how)


def there():
    return records.read("rates", "h100", directory=workspace.records_folder())


def test_what_was_measured_before_an_interruption_is_on_disk():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=2))
    assert there().table["T"].tolist() == [16, 16, 64, 64]


def test_resuming_measures_the_rest_and_keeps_what_is_there():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=1, reasons={"one": "not installed"}))
    rest = Counted(reasons={"other": "failed"})
    found = take(rest, ORIGIN | {"measured_at": "later"}, resume=True)
    assert rest.taken == [1, 2] and found.table["T"].tolist() == [16, 16, 64, 64, 256, 256]
    (measurement,) = found.provenance["measurements"]
    assert measurement["not_available"] == {"one": "not installed", "other": "failed"}
    again = Counted()
    assert take(again, resume=True).table.equals(found.table) and not again.taken


@pytest.mark.parametrize("changed", [{"parameters": {"runs": 5}}, {"commit": "beef"}, {"seed": 1}])
def test_nothing_is_kept_of_another_measurement(changed):
    take(Counted())
    rest = Counted()
    take(rest, ORIGIN | changed, resume=True)
    assert rest.taken == [0, 1, 2]
    assert len(there().provenance["measurements"]) == 1


def test_without_resuming_all_is_measured_again():
    take(Counted())
    again = Counted()
    assert len(take(again).table) == 6 and again.taken == [0, 1, 2]


def test_no_piece_is_begun_after_its_time():
    first = Counted()
    with pytest.raises(Paused, match="2 pieces of rates are left") as paused:
        take(first, until=time.monotonic() - 1)
    assert first.taken == [0] and paused.value.measured.table["T"].tolist() == [16, 16]


def test_a_record_says_how_much_of_it_is_left():
    with pytest.raises(KeyboardInterrupt):
        take(Counted(fails_at=2))
    assert there().left == 1
    assert take(Counted(), resume=True).left == 0
    assert "left" not in there().provenance["measurements"][-1]


def test_a_piece_that_fails_does_not_keep_the_others_from_being_measured(caplog):
    class Fails(Counted):
        def __call__(self, number):
            if number == 0:
                raise ValueError("out of memory")
            return super().__call__(number)

    with pytest.raises(RuntimeError, match="1 of 3 failed, T 16, C 4 first: out of memory"):
        take(fails := Fails())
    assert fails.taken == [1, 2] and there().left == 1
    assert "T 16, C 4 failed" in caplog.text and "Traceback" in caplog.text
    rest = Counted()
    assert take(rest, resume=True).left == 0 and rest.taken == [0]


def test_pieces_for_later_are_measured_by_the_call_that_resumes():
    first = Counted()
    assert take(first, later=PIECES[1:2]).left == 1
    assert first.taken == [0, 2] and there().left == 1
    rest = Counted()
    assert take(rest, resume=True).left == 0 and rest.taken == [1]


def test_the_shapes_of_the_paper_are_measured_first_and_the_longest_among_them():
    order = in_order([16, 64, 256, 65_536, 262_144], [4, 5, 32])
    assert order[:4] == [(65_536, 4), (65_536, 32), (256, 4), (256, 32)]
    assert order[6] == (262_144, 4) and len(order) == len(set(order)) == 15


def test_cases_with_rivals_may_be_left_for_later(monkeypatch):
    seen = []
    cases = [Case("TC", 16, 2), Case("TC", 32, 2, against=("torchlpc",))]
    monkeypatch.setattr(throughput, "cpu_cases", lambda elements, compare: cases)
    row = {"algorithm": "auto", "median_ms": 1.0}
    monkeypatch.setattr(
        throughput,
        "_measure_case",
        lambda case, *_: seen.append(case) or ([row | case.identity], {}),
    )
    given = {"device": "cpu", "seed": 0, "elements": 64, "runs": 1, "compare": True}
    assert throughput.measure(**given, rivals_later=True).left == 1
    assert seen == cases[:1]
    assert throughput.measure(**given, resume=True).left == 0 and seen == cases


@pytest.mark.parametrize(
    ("experiment", "given", "first"),
    [
        (
            training_speedup,
            {
                "events": 64,
                "lengths": [16, 64],
                "widths": [4, 8],
                "inputs": [4, 4],
                "names": ["SRU", "QRNN(2)"],
            },
            {"T": 64, "C": 4, "model": "SRU"},
        ),
        (
            lstm_throughput,
            {
                "hidden": 4,
                "lengths": [16, 64],
                "minibatches": [1, 2],
                "most_events": 64,
                "lstm_lengths": [16],
            },
            {"T": 64, "B": 1, "model": "GILR-LSTM"},
        ),
    ],
    ids=["training_speedup", "lstm_throughput"],
)
def test_training_steps_are_measured_in_pieces(experiment, given, first):
    """The first piece is one that decides a claim; a call that resumes measures the rest."""
    given = given | {"device": "cpu", "seed": 0, "runs": 1}
    with pytest.raises(Paused) as paused:
        experiment.measure(**given, until=time.monotonic() - 1)
    table = paused.value.measured.table
    assert {name: table[name].iloc[0] for name in first} == first
    assert len(table[["model", "T", "B", "C"]].drop_duplicates()) == 1
    found = experiment.measure(**given, resume=True)
    cells = found.table[["model", "T", "B", "C"]].drop_duplicates()
    assert len(cells) == paused.value.left + 1 and found.left == 0
    assert found.table.iloc[: len(table)].equals(table)
