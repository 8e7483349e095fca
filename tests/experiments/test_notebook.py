"""The steps that notebooks repeat: take records, show figures and tables."""

import json
from types import SimpleNamespace

import pandas
import pytest

from lrscan.evidence import figures, records
from lrscan.experiments import call_cost, kernel_speedup, notebook

pytest.importorskip("IPython")
pytestmark = pytest.mark.usefixtures("recording")
CPU = {"device": "cpu-2-core", "device_label": "CPU <2 cores>", "device_type": "cpu"}
CPU |= {"profile": "quick", "versions": {"torch": "2", "numba": "0"}, "threads": {"torch": 2}}
CPU |= {"driver": None, "commit": None, "dirty": None, "measured_at": "2026", "seed": 0}
CPU |= {"parameters": {}}


@pytest.fixture
def shown(monkeypatch):
    """Collect what a notebook displays."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda one, **_: found.append(one))
    return found


def written(name="call_cost", device="cpu-2-core"):
    common = {"T": 4, "C": 3, "runs": 5, "q1_ms": 0.01, "median_ms": 0.02, "q3_ms": 0.03}
    rows = [common | {"direction": one, "reference_ms": 0.001} for one in ("forward", "training")]
    return records.write(name, rows, CPU | {"device": device})


def test_records_are_taken_by_measuring_or_by_reading_those_of_every_device(monkeypatch):
    given = {"device": "cpu", "seed": 0, "runs": 1}
    measured = call_cost.EXPERIMENT.measure
    fake = SimpleNamespace(EXPERIMENT=SimpleNamespace(name="call_cost", measure=measured))
    assert notebook.take(fake, False, **given) == []
    written(), written(device="h200")
    assert [one.device for one in notebook.take(fake, False, **given)] == ["cpu-2-core", "h200"]
    fake.EXPERIMENT.measure = lambda *, device, seed, runs: (device, seed, runs)
    assert notebook.take(fake, True, **given) == [("cpu", 0, 1)]


@pytest.mark.parametrize("wrong", [{}, {"device": "cpu", "seed": 0, "runs": 1, "lenghts": [1]}])
def test_a_parameter_that_measure_does_not_take_is_noticed_without_measuring(wrong):
    with pytest.raises(TypeError, match="argument"):
        notebook.take(call_cost, False, **wrong)


def test_a_figure_is_saved_with_the_text_of_its_experiment_and_shown(recording, shown):
    one = written()
    notebook.show([one], "call_cost")
    manifest = figures.read_manifest(recording / "figures" / "manifest.json")
    alt = call_cost.EXPERIMENT.figures["call_cost"].alt
    assert manifest["cpu-2-core/call_cost.svg"]["alt"] == alt and len(shown) == 1
    with pytest.raises(KeyError, match="no_such"):
        notebook.show([one], "no_such")


def test_a_drawing_is_saved_without_records(recording, shown):
    from matplotlib.figure import Figure

    notebook.show_figure(Figure(), "idea", "An idea.")
    assert (recording / "figures" / "drawings" / "idea.png").is_file() and len(shown) == 1


def test_a_table_has_its_device_as_caption_and_blanks_for_nan(shown):
    table = pandas.DataFrame({"speedup": [1.2345, float("nan")]})
    notebook.show_tables([written()], lambda one: table)
    (bundle,) = shown
    assert "<caption>CPU &lt;2 cores&gt;</caption>" in bundle["text/html"]
    assert "1.23<" in bundle["text/html"] and "NaN" not in json.dumps(bundle)
    assert bundle["text/plain"].startswith("CPU <2 cores>")


def test_records_of_another_experiment_are_not_read():
    written("kernel_speedup")
    assert notebook.read(call_cost) == []
    assert [one.experiment for one in notebook.read(kernel_speedup)] == ["kernel_speedup"]
