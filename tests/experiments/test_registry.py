"""The table of experiments is complete, and agrees with the notebooks and the functions."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrscan import experiments
from lrscan.evidence import figures, provenance, records
from lrscan.experiments import registry, run
from lrscan.runner import catalog

ROOT = Path(__file__).parents[2]
EXPERIMENTS = registry.load_all()
NOTEBOOKS = {notebook.name: notebook for notebook in catalog.discover(ROOT)}
MANIFEST = figures.read_manifest(ROOT / "figures" / "manifest.json")
PAUSING = {"resume", "until"}
of_every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=registry.NAMES)


def test_the_table_lists_every_experiment_under_the_name_of_its_module():
    names = [module.name for module in pkgutil.iter_modules(experiments.__path__)]
    modules = {name: importlib.import_module(f"lrscan.experiments.{name}") for name in names}
    found = {name for name, module in modules.items() if hasattr(module, "EXPERIMENT")}
    assert found == set(registry.NAMES) and len(registry.NAMES) == len(found)
    assert [experiment.name for experiment in EXPERIMENTS] == list(registry.NAMES)


@of_every_experiment
def test_a_notebook_has_the_parameters_that_its_experiment_takes(experiment):
    assert set(experiment.parameters) <= set(NOTEBOOKS[experiment.notebook].defaults)


@of_every_experiment
def test_measure_takes_what_its_experiment_declares_and_nothing_else(experiment):
    signature = inspect.signature(experiment.measure).parameters
    assert {one.kind for one in signature.values()} == {inspect.Parameter.KEYWORD_ONLY}
    without_default = {
        name for name, one in signature.items() if one.default is inspect.Parameter.empty
    }
    assert without_default == set(experiment.parameters)
    pausing = PAUSING if experiment.resumes else set()
    assert set(signature) - without_default == pausing | set(experiment.options)


@of_every_experiment
def test_an_experiment_says_in_a_line_what_it_measures(experiment):
    assert len(experiment.summary) > 40 and not experiment.summary.endswith(".")


DRAWN = [
    pytest.param(experiment, name, device, id=f"{device}-{name}")
    for experiment in EXPERIMENTS
    for name in experiment.figures
    for device in records.devices(experiment.name)
]


@of_every_experiment
def test_every_figure_has_a_text(experiment):
    for name, plot in experiment.figures.items():
        assert len(plot.alt) > 60 and plot.alt.endswith("."), name


@of_every_experiment
def test_every_experiment_has_a_figure_of_committed_records(experiment):
    assert experiment.figures and records.devices(experiment.name)


@pytest.mark.parametrize(("experiment", "name", "device"), DRAWN)
def test_a_figure_draws_from_the_committed_records(experiment, name, device):
    one, plot = records.read(experiment.name, device), experiment.figures[name]
    entry = MANIFEST[f"{device}/{name}.svg"]
    assert entry["notebook"] == experiment.notebook
    text = json.dumps(one.provenance, sort_keys=True)
    drawn = figures._svg(plot.draw(one), name, plot.alt, text)
    if any(provenance.package_version(name) != v for name, v in entry["versions"].items()):
        pytest.skip("the committed figure was drawn by other versions")
    assert drawn == (ROOT / "figures" / device / f"{name}.svg").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parameters": ("seed", "no_such")}, "takes 'no_such': no parameter of reproduce/"),
        ({"notebook": "reproduce/99_missing"}, "belongs to reproduce/99_missing: no such notebook"),
    ],
    ids=["parameter", "notebook"],
)
def test_an_experiment_that_does_not_fit_its_notebook_is_refused(wrong, message, monkeypatch):
    changed = {"name": "call_cost", "notebook": "reproduce/02_kernel_speedup", "parameters": ()}
    one = registry.Experiment(measure=lambda: None, **changed | wrong)
    monkeypatch.setattr(registry, "load", lambda name: one)
    with pytest.raises(catalog.ParameterError, match=message):
        run.plan(["call_cost"], profile="quick", device="cpu")


def test_experiments_import_no_more_than_they_need():
    script = (
        "import sys\n"
        "from lrscan.experiments import registry\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'seaborn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "registry.load_all()\n"
        "assert not {'matplotlib', 'seaborn', 'click'} & set(sys.modules)\n"
        "import lrscan.experiments.run\n"
        "above = ('lrscan.cli', 'lrscan.campaign', 'lrscan.learn')\n"
        "assert not [name for name in sys.modules if name.startswith(above)]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
