"""The project's own notebooks run, draw figures and follow the rules for notebooks."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrscan.evidence import figures, records
from lrscan.experiments import registry
from lrscan.runner.catalog import discover

ROOT = Path(__file__).parent.parent
NOTEBOOKS = discover(ROOT)
FEWEST_NOTEBOOKS = 3
# The first test runs every notebook, while another process may run other tests.
pytestmark = pytest.mark.timeout(5400)


def lrscan(*arguments):
    command = [sys.executable, "-m", "lrscan", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def report():
    """Run every notebook with the quick profile, as `make reproduce` does; return the report."""
    before = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    done = lrscan("run")
    assert done.returncode == 0, done.stdout + done.stderr
    after = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert after == before, "an ordinary run changed the tree"
    return json.loads((ROOT / "build" / "report.json").read_text())


def test_every_notebook_passes_and_draws(report):
    assert report["verdict"] == "passed"
    assert [n["notebook"] for n in report["notebooks"]] == [n.name for n in NOTEBOOKS]
    assert len(NOTEBOOKS) >= FEWEST_NOTEBOOKS
    manifest = figures.read_manifest(ROOT / "build" / "figures" / "manifest.json")
    for notebook in NOTEBOOKS:
        own = [e for e in manifest.values() if e["notebook"] == notebook.name]
        assert own and all(len(entry["alt"]) > 40 for entry in own), notebook.name


def test_executed_notebooks_name_no_folder_of_this_machine(report):
    for outcome in report["notebooks"]:
        text = (ROOT / outcome["executed"]).read_text()
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, outcome["notebook"]


def test_committed_figures_and_records_agree_to_the_byte(report):
    done = lrscan("verify", "--no-redraw")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("experiment", ["correctness", "kernel_speedup"])
def test_drawing_again_gives_the_same_bytes(experiment, report, tmp_path, monkeypatch):
    path = next((ROOT / "build" / "records").glob(f"*/{experiment}.csv"))
    one = records.read(experiment, path.parent.name, directory=path.parent.parent)
    plot = registry.load(experiment).figures[experiment]
    drawn = ROOT / "build" / "figures" / one.device
    monkeypatch.setattr(figures.workspace, "figures_folder", lambda: tmp_path)
    again = figures.save(plot.draw(one), experiment, one, alt=plot.alt)
    for kind, path in again.items():
        assert path.read_bytes() == (drawn / f"{experiment}.{kind}").read_bytes(), kind
    assert b"CPU" in again["svg"].read_bytes()


def test_a_cpu_run_says_cpu_on_its_figures(report):
    for one in (ROOT / "build" / "records").glob("cpu-*/*.csv"):
        label = records.read(one.stem, one.parent.name, directory=one.parent.parent).device_label
        assert label.startswith("CPU")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_source_notebooks_hold_no_outputs_and_no_logic(notebook):
    assert {"seed", "device", "measure"} <= set(notebook.defaults)
    assert notebook.cells[0]["source"].startswith("# ")
    assert notebook.summary, "no sentence in italics below the title"
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    for cell in code:
        source = cell["source"]
        assert not cell["outputs"] and cell["execution_count"] is None
        exercise = "exercise" in cell["metadata"].get("tags", [])
        assert exercise or len(source.splitlines()) <= 15, source
        nodes = list(ast.walk(ast.parse(source)))
        assert not any(isinstance(node, ast.ClassDef) for node in nodes), source
    last = ast.parse(code[-1]["source"])
    assert any(isinstance(node, ast.Assert) for node in ast.walk(last)), (
        "the last cell asserts nothing"
    )


def test_bench_needs_no_jupyter(tmp_path):
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys\n"
        "for name in ('papermill', 'nbformat', 'nbclient', 'IPython', 'jupyter_client'):\n"
        "    sys.modules[name] = None\n"
    )
    start = time.time()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lrscan",
            "bench",
            "kernel_speedup",
            "--device",
            "cpu",
            "-p",
            "lengths=16,64",
            "-p",
            "runs=3",
            "--out",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    written = next(tmp_path.glob("cpu-*/kernel_speedup.csv"))
    assert written.stat().st_mtime >= start - 1
    table = records.read("kernel_speedup", written.parent.name, directory=tmp_path).table
    assert set(table["T"]) == {16, 64} and (table["median_ms"] > 0).all()
