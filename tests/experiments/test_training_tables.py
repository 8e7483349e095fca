"""Tables of training runs: short, and with the numbers of the functions behind them."""

import pytest
from training_records import trained

from lrscan.evidence import records
from lrscan.experiments import problem_2b, training_tables

CPU = {"device": "cpu-2-core", "device_label": "CPU, 2 cores", "device_type": "cpu"}


def test_a_mean_has_its_deviation_and_a_bound_its_sign(recording):
    runs = [("GILRLSTM", 1024, 0, 10), ("GILRLSTM", 1024, 1, 14), ("LSTM", 1024, 0, None)]
    one = trained(CPU, "problem_2b", *runs)
    table = training_tables.table_3(one)
    assert table.index.names == ["task", "model", "C"]
    ours, rival = table.loc["1,024", "GILR-LSTM", 64], table.loc["1,024", "LSTM", 64]
    assert (ours["learned"], ours["iterations"]) == ("2 of 2", "12 ± 3")
    assert (rival["learned"], rival["iterations"]) == ("0 of 1", "")
    assert rival["median s"] == "≥ 50.0"
    (ratio,) = training_tables.sooner(one)["medians"]
    assert ratio == f"≥ {problem_2b.sooner(one)['by_medians'].iloc[0]:.2f}"


def test_a_curriculum_is_another_task(recording):
    trained(CPU, "problem_2b", ("GILRLSTM", 2048, 0, 10))
    one = trained(CPU, "problem_2b", ("GILRLSTM", 2048, 0, 10), start_steps=128)
    tasks = training_tables.runs(one).index.get_level_values("task")
    assert sorted(tasks) == ["2,048", "2,048 from 128"]


def test_settings_that_all_runs_share_are_left_out(recording):
    one = trained(CPU, "problem_2b", ("GILRLSTM", 1024, 0, 10), ("GILRLSTM", 1024, 1, None))
    table = training_tables.runs(one)
    assert table.index.names == ["task", "seed"]
    assert table["strict"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("make", "experiment"),
    [
        (training_tables.finalists, "problem_2b_search"),
        (training_tables.table_3, "problem_2b"),
        (training_tables.sooner, "problem_2b"),
        (training_tables.runs, "problem_2b"),
        (training_tables.runs, "long_memory"),
    ],
)
def test_a_table_is_narrow_enough_for_a_page(make, experiment):
    devices = records.devices(experiment)
    assert devices
    for device in devices:
        table = make(records.read(experiment, device)).round(3)
        assert len(table) and max(map(len, table.to_string().splitlines())) <= 110
