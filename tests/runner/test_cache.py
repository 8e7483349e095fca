"""Unchanged notebooks are not run again, and changed ones are: checked in real runs."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from projects import LONGEST_S, make_project, read_executed, write_notebook

pytest.importorskip("papermill", reason="notebooks are executed by papermill")

from lrscan.evidence import origin  # noqa: E402
from lrscan.runner import cache, catalog, suite

PACKAGE = Path(__file__).parents[2] / "lrscan"
SCAN = "from lrscan import linear_recurrence\nimport lrscan.cpu.dispatch  # as its first call does"
ALGEBRA = "from lrscan.core import algebra\nprint(algebra.compose(2.0, 1.0, 3.0, 4.0))"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with its own copy of the package, which tests may edit."""
    root = make_project(tmp_path / "project")
    shutil.copytree(PACKAGE, root / "lrscan", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "constraints.txt").write_text("torch==2.13.0\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setattr(origin, "PACKAGE", root / "lrscan")
    return root


def run(root, parameters=None, **options):
    """Run all notebooks, and return the verdict and the reason of each."""
    every = catalog.discover(root)
    values = {notebook.name: notebook.defaults | (parameters or {}) for notebook in every}
    suite.run(root, every, values, profile="quick", timeout_s=LONGEST_S, **options)
    report = json.loads((root / "build" / "report.json").read_text())
    return [(outcome["verdict"], outcome["reason"]) for outcome in report["notebooks"]]


def verdicts(root, **options):
    return [verdict for verdict, _ in run(root, **options)]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_editing_a_kernel_reruns_exactly_what_depends_on_it(project):
    write_notebook(project, "learn/01_algebra", ALGEBRA)
    write_notebook(project, "learn/02_scan", SCAN)
    assert run(project) == [("passed", "it has not passed before")] * 2
    assert verdicts(project) == ["unchanged", "unchanged"]
    kernels = project / "lrscan" / "cpu" / "scan.py"
    kernels.write_text(kernels.read_text() + "\n# another kernel\n")
    (first, _), second = run(project)
    assert first == "unchanged" and second == ("passed", "lrscan/cpu/scan.py changed")
    algebra = project / "lrscan" / "core" / "algebra.py"
    algebra.write_text(algebra.read_text() + "\n# another algebra\n")
    assert run(project) == [("passed", "lrscan/core/algebra.py changed")] * 2
    assert verdicts(project) == ["unchanged", "unchanged"]
    (project / "lrscan" / "unheard_of.py").touch()  # a search for a module lists whole folders
    (project / "result").mkdir()
    assert verdicts(project) == ["unchanged", "unchanged"]


def test_editing_prose_reruns_nothing_but_updates_the_executed_copy(project):
    write_notebook(project, "learn/01_a", "# One", "print(seed)", "# Two", "2")
    run(project, parameters={"seed": 5})
    write_notebook(project, "learn/01_a", "# Uno", "print(seed)", "# New", "# Due", "2")
    assert verdicts(project, parameters={"seed": 5}) == ["unchanged"]
    cells = read_executed(project, "learn/01_a").cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert prose == ["# Title", "# Uno", "# New", "# Due"]
    assert "injected-parameters" in cells[2].metadata.tags
    assert cells[4].outputs[0].text == "5\n"
    report = json.loads((project / "build" / "report.json").read_text())
    assert [cell["number"] for cell in report["notebooks"][0]["cells"]] == [2, 4, 7]
    assert verdicts(project, parameters={"seed": 5}) == ["unchanged"]


def code(project):
    write_notebook(project, "learn/01_a", "open('../data.txt').read() + ''")


def executed(project):
    (project / "build" / "notebooks" / "learn" / "01_a.ipynb").unlink()


CHANGES = {
    "code": (code, "the code changed"),
    "lock": (lambda p: edit(p / "constraints.txt", "13", "14"), "the lock changed"),
    "data": (lambda p: (p / "notebooks/data.txt").write_text("2"), "notebooks/data.txt changed"),
    "copy": (executed, "build/notebooks/learn/01_a.ipynb changed"),
    "threads": (lambda p: os.environ.update(NUMBA_NUM_THREADS="1"), "NUMBA_NUM_THREADS changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_notebook_depends_on_is_named(project, monkeypatch, change):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    write_notebook(project, "learn/01_a", "open('../data.txt').read()")
    (project / "notebooks" / "data.txt").write_text("1")
    run(project)
    assert verdicts(project) == ["unchanged"]
    make, reason = CHANGES[change]
    make(project)
    assert run(project) == [("passed", reason)]


# Ways to look for a file that does not exist yet: notebooks/data/new.csv or data/more/new.csv.
ASKING = [
    "os.listdir('../data')",
    "list(os.walk('../data'))",
    "glob.glob('../data/*.csv')",
    "list(Path('../data').iterdir())",
    "list(Path('../data').glob('*/new.csv'))",
    "Path('../data/new.csv').is_file()",
    "os.path.exists('') or os.path.exists('../data/new.csv')",
    "try:\n    open('../data/new.csv')\nexcept FileNotFoundError:\n    pass",
]


def test_a_listed_folder_and_a_missing_file_are_dependencies(project):
    for number, ask in enumerate(ASKING):
        source = f"import glob, os\nfrom pathlib import Path\n{ask}"
        write_notebook(project, f"learn/{number}_a", source)
    more = project / "notebooks" / "data" / "more"
    more.mkdir(parents=True)
    assert verdicts(project, jobs=2) == ["passed"] * len(ASKING)
    assert verdicts(project, jobs=2) == ["unchanged"] * len(ASKING)
    (more / "new.csv").touch()
    (more.parent / "new.csv").touch()
    reasons = [reason for _, reason in run(project, jobs=2)]
    assert reasons[:4] == ["the contents of notebooks/data changed"] * 4
    assert reasons[4] in (
        "the contents of notebooks/data changed",
        "notebooks/data/more/new.csv now exists",
    )
    assert reasons[5:] == ["notebooks/data/new.csv now exists"] * 3


def test_a_notebooks_own_output_is_no_reason_to_run_it_again(project):
    source = (
        "from pathlib import Path\nfolder = Path('out')\n"
        "folder.is_dir() or folder.mkdir()\nlist(Path('..').iterdir())\n"
        "(folder / 'a').exists() or (folder / 'a').write_text('1')"
    )
    write_notebook(project, "learn/01_a", source)
    run(project)
    assert verdicts(project) == ["unchanged"]


@pytest.mark.parametrize("name", ["matplotlib", "pandas", "torch", "pillow", "jax"])
def test_another_version_of_a_package_reruns(project, monkeypatch, name):
    with (project / "constraints.txt").open("a") as lock:
        lock.write("pillow==12.0.0 ; python_full_version >= '3.11'\n")
    write_notebook(project, "learn/01_a", "1")
    (notebook,) = catalog.discover(project)
    before = cache.facts(project, notebook, {})
    version = cache.package_version
    monkeypatch.setattr(
        cache,
        "package_version",
        lambda asked: "0.0" if asked == name else version(asked),
    )
    now = cache.facts(project, notebook, {})
    assert {fact for fact in now if now[fact] != before[fact]} == {name}


def test_parameters_device_and_force_rerun(project, monkeypatch):
    write_notebook(project, "learn/01_a", "1")
    run(project)
    assert run(project, parameters={"seed": 3}) == [("passed", "parameter seed changed")]
    assert run(project, parameters={"seed": 3}, force=True) == [("passed", "--force")]
    monkeypatch.setattr(cache.provenance, "hardware", lambda: "another machine")
    assert run(project, parameters={"seed": 3}) == [("passed", "the device changed")]


def test_a_failure_is_never_remembered(project):
    write_notebook(project, "learn/01_a", "import os\nassert not os.path.exists('fail')")
    run(project)
    (project / "notebooks" / "learn" / "fail").touch()
    assert verdicts(project, force=True) == ["failed"]
    (project / "notebooks" / "learn" / "fail").unlink()
    assert run(project) == [("passed", "it has not passed before")]


def test_a_lost_figure_is_drawn_again_and_a_kept_one_is_listed(project):
    source = (
        "import matplotlib.pyplot as plt\nfrom lrscan.evidence import figures\n"
        "figure, axes = plt.subplots()\nfigures.save(figure, 'line', None, alt='A line.')"
    )
    write_notebook(project, "learn/01_a", source)
    run(project)
    assert verdicts(project) == ["unchanged"]
    report = json.loads((project / "build" / "report.json").read_text())
    assert "build/figures/drawings/line.svg" in report["figures"]
    (project / "build" / "figures" / "drawings" / "line.svg").unlink()
    assert run(project) == [("passed", "build/figures/drawings/line.svg changed")]


def test_a_file_that_changes_during_the_run_makes_it_run_again(project):
    source = "path = '../data.txt'\nopen(path).read()\nopen(path, 'a').write('x')"
    write_notebook(project, "learn/01_a", source)
    (project / "notebooks" / "data.txt").write_text("1")
    run(project)
    assert run(project) == [("passed", "notebooks/data.txt changed while it ran")]


def test_a_file_with_a_date_in_the_future_is_cached_like_others(project):
    write_notebook(project, "learn/01_a", "open('../data.txt').read()")
    data = project / "notebooks" / "data.txt"
    data.write_text("1")
    for path in (data, project / "lrscan" / "__init__.py", project / "notebooks" / "learn"):
        os.utime(path, (4e9, 4e9))
    time.sleep(0.1)  # the dates of files have a limited resolution
    run(project)
    assert verdicts(project) == ["unchanged"]
    data.write_text("2")
    os.utime(data, (4e9, 4e9))
    assert run(project) == [("passed", "notebooks/data.txt changed")]


def test_a_recording_run_runs_everything(project):
    write_notebook(project, "learn/01_a", "1")
    run(project)
    assert run(project, record=True) == [("passed", "a recording run runs everything")]
