"""Tests of the command line: what it runs, what it refuses, and what it does not import."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from broken_notebooks import BROKEN, break_notebook
from click.testing import CliRunner
from projects import PYTHONPATH, make_project, write_notebook
from stand_ins import PROVENANCE, experiment, stand_in, two

import lrscan
from lrscan.cli import commands
from lrscan.evidence import context, records
from lrscan.experiments import registry
from lrscan.experiments.resume import Paused

PARAMETERS = 'seed = 0\ndevice = "auto"\nmeasure = True\nlengths = [1, 2]'
PROFILES = '[quick]\nseed = 3\n[full]\n[full."reproduce/01_speed"]\nlengths = [1, 2, 4]\n'
JUPYTER = ("papermill", "nbformat", "nbclient", "jupyter_client", "ipykernel", "IPython")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project", PROFILES)
    write_notebook(root, "learn/01_idea", "assert device == 'auto'", parameters=PARAMETERS)
    write_notebook(root, "reproduce/01_speed", "1", parameters=PARAMETERS)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    return root


@pytest.fixture
def calls(monkeypatch):
    """List of (name, parameters, context) per call; two fake experiments replace the real ones."""
    return two(monkeypatch)


def lrscan_(*arguments: str):
    return CliRunner().invoke(commands.main, arguments)


def refused(*arguments: str) -> str:
    result = lrscan_(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_help_imports_nothing_slow():
    script = (
        "import sys\n"
        "from lrscan.cli.commands import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numba', 'pandas', 'matplotlib', 'papermill', 'rich', 'filelock'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verbs = ("run", "list", "bench", "verify", "doctor")
    assert all(f"\n  {verb} " in done.stdout for verb in verbs)


def test_python_m_lrscan_is_lrscan():
    command = [sys.executable, "-m", "lrscan", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"lrscan, version {lrscan.__version__}\n"


def test_run_executes_the_selected_notebooks(project):
    pytest.importorskip("papermill")
    result = lrscan_("run", "--only", "learn/01", "-p", "lengths=5,6")
    assert result.exit_code == 0, result.output
    (outcome,) = json.loads((project / "build" / "report.json").read_text())["notebooks"]
    assert outcome["notebook"] == "learn/01_idea"
    assert outcome["parameters"] == {
        "seed": 3,
        "device": "auto",
        "measure": True,
        "lengths": [5, 6],
    }
    assert not (project / "figures").exists()


HOSTILE = (
    "'; import os; os.mkdir('owned') #",
    '"""); import os; os.mkdir("owned")',
    "cpu\n!mkdir owned\nimport os; os.mkdir('owned')",
    "{__import__('os').mkdir('owned')}",
    "$(mkdir owned) `mkdir owned` %mkdir owned",
)


def test_hostile_values_from_the_command_line_stay_text(project):
    pytest.importorskip("papermill")
    source = f"assert device in {HOSTILE!r}"
    write_notebook(project, "learn/01_idea", source, parameters=PARAMETERS)
    for value in HOSTILE[:3]:
        result = lrscan_("run", "--only", "learn", "-p", f"device={value}")
        assert result.exit_code == 0, result.output
    assert not list(project.rglob("owned"))


@pytest.mark.parametrize("value", [*HOSTILE, "__import__('os').mkdir('owned')", "[mkdir()]"])
@pytest.mark.parametrize("name", ["seed", "measure", "lengths", "device\nx", "os.x", "__x__"])
def test_hostile_names_and_types_are_refused(project, name, value):
    assert "parameter" in refused("run", "-p", f"{name}={value}")
    assert not (project / "build").exists() and not list(project.rglob("owned"))


def test_run_takes_its_timeout_from_the_option_or_the_profile(project, monkeypatch):
    pytest.importorskip("papermill")
    from lrscan.runner import suite

    seen = []
    monkeypatch.setattr(suite, "run", lambda *_, **options: seen.append(options) or 0)
    (project / "notebooks" / "profiles.toml").write_text("[quick]\ntimeout_s = 50\n[full]\n")
    for arguments in ([], ["--timeout", "7"], ["--profile", "full"], ["--record"]):
        assert lrscan_("run", *arguments).exit_code == 0
    assert {options["jobs"] for options in seen} == {1}
    assert [options["timeout_s"] for options in seen] == [50, 7, None, 50]
    assert [options["record"] for options in seen] == [False, False, False, True]
    assert [options["profile"] for options in seen] == ["quick", "quick", "full", "quick"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "huge"], "no profile 'huge'; there are: quick, full"),
        (["--only", "learn/9"], "no notebook begins with 'learn/9'"),
        (["-p", "speed=1"], "learn/01_idea has no parameter 'speed'"),
        (["-p", "lengths=x"], "parameter lengths is 'x', expected list of int"),
        (["-p", "seed"], "NAME=VALUE, not 'seed'"),
        (["--timeout", "0"], "0 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--timeout", "soon"], "'soon'"),
    ],
)
def test_run_refuses_before_anything_is_started(project, arguments, message):
    assert message in refused("run", *arguments)
    assert not (project / "build").exists()


def test_run_passes_its_switches_on(project, monkeypatch):
    pytest.importorskip("papermill")
    from lrscan.runner import suite

    seen = []
    monkeypatch.setattr(suite, "run", lambda *_, **options: seen.append(options) or 0)
    lrscan_("run")
    lrscan_("run", "--jobs", "3", "--fail-fast", "--force", "--junit", "out/junit.xml")
    names = ("jobs", "fail_fast", "force", "junit")
    assert [[options[name] for name in names] for options in seen] == [
        [1, False, False, None],
        [3, True, True, project / "out" / "junit.xml"],
    ]


def test_run_without_notebooks_is_no_success(project):
    for path in project.glob("notebooks/*/*.ipynb"):
        path.unlink()
    assert "there is no notebook to run" in refused("run")


@pytest.mark.parametrize("verb", ["run", "list", "bench", "verify"])
def test_without_the_project_each_verb_says_so(verb, calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrscan.evidence.workspace.__file__", str(tmp_path / "workspace.py"))
    assert "Clone the repository" in refused(verb)


def test_run_without_papermill_says_what_to_install(monkeypatch):
    for name in JUPYTER:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("suite", "execution", "client"):
        monkeypatch.delitem(sys.modules, f"lrscan.runner.{name}", raising=False)
        monkeypatch.delattr(lrscan.runner, name, raising=False)
    result = lrscan_("run")
    assert result.exit_code == 1
    assert 'pip install "lrscan[notebooks]"' in result.output


@pytest.fixture(params=["conflict", "folder"])
def broken(request, project):
    """Path of a file among the notebooks that is not a notebook."""
    path = project / "notebooks" / "learn" / "00_bad.ipynb"
    break_notebook(path, BROKEN[request.param][0])
    return path


def test_a_broken_notebook_fails_and_the_others_go_on(project, broken):
    pytest.importorskip("papermill")
    stale = project / "build" / "notebooks" / "learn" / "00_bad.ipynb"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result = lrscan_("run")
    assert result.exit_code == 1, result.output
    report = json.loads((project / "build" / "report.json").read_text())
    verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
    assert verdicts == ["failed", "passed", "passed"]
    error = report["notebooks"][0]["failure"]["error"]
    assert error.startswith("not a notebook") and f"learn/00_bad failed: {error}" in result.output
    written = ElementTree.parse(project / "build" / "junit.xml").getroot()[0]
    assert (written.get("tests"), written.get("failures")) == ("1", "1")
    assert written[0].get("name") == "notebook" and not stale.exists()


def test_a_broken_notebook_stops_no_command_that_does_not_need_it(project, broken, calls):
    pytest.importorskip("papermill")
    for command in (["run", "--only", "learn/01"], ["bench", "speed"], ["list"]):
        result = lrscan_(*command)
        assert result.exit_code == 0, result.output
        assert "learn/00_bad" in result.output and "broken" in result.output
    assert [name for name, *_ in calls] == ["speed"]
    result = lrscan_("verify", "--no-redraw")
    assert result.exit_code == 1 and "learn/00_bad: not a notebook" in result.output


def test_a_broken_notebook_that_was_asked_for_is_a_failure(project, broken, calls):
    pytest.importorskip("papermill")
    result = lrscan_("run", "--only", "learn/00")
    assert result.exit_code == 1 and "learn/00_bad failed: not a notebook" in result.output
    (project / "notebooks" / "reproduce" / "01_speed.ipynb").write_text("")
    assert "reproduce/01_speed is broken: not a notebook" in refused("bench", "speed")
    assert calls == []


# Text that a cell may print: letters of several languages and an undecodable byte.
SAID = "a \N{LESS-THAN OR EQUAL TO} b, \xe4, \u65e5, \U0001f600 and \udce4"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_of_the_output_is_good_enough_for_a_report(project, encoding):
    """Report text that the encoding lacks: in errors, notebook names, parameters; ASCII locale."""
    pytest.importorskip("papermill")
    write_notebook(project, "learn/01_idea", f"assert False, {ascii(SAID)}", parameters=PARAMETERS)
    break_notebook(project / "notebooks" / "learn" / "02_\xe4\u65e5.ipynb", "")
    write_notebook(project, "learn/03_idea", parameters="seed = 0\nword = '\u65e5'")
    environment = {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": encoding,
    }
    for verb, status in (("run", 1), ("list", 0), ("verify", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "lrscan", verb],
            capture_output=True,
            env=os.environ | environment,
        )
        output, errors = (text.decode(encoding, "replace") for text in (done.stdout, done.stderr))
        assert done.returncode == status and "Traceback" not in errors, errors
        assert "learn/02_" in output
    report = json.loads((project / "build" / "report.json").read_text())
    assert "\N{LESS-THAN OR EQUAL TO}" in report["notebooks"][0]["failure"]["error"]


def test_list_shows_notebooks_parameters_and_experiments(calls):
    result = lrscan_("list", "--profile", "full")
    assert result.exit_code == 0, result.output
    assert "  learn/01_idea\n" in result.output
    assert "lengths = [1, 2, 4]   (list of int)" in result.output
    assert "  speed: Speed at several lengths (reproduce/01_speed)" in result.output


def test_bench_gives_each_experiment_what_it_takes(project, calls):
    result = lrscan_("bench", "--device", "cpu", "--profile", "full")
    assert result.exit_code == 0, result.output
    full = context.Context("full")
    own = {"device": "cpu", "seed": 0, "lengths": [1, 2, 4]}
    assert calls == [("speed", own, full), ("other", own | {"measure": True}, full)]
    assert (project / "build" / "records" / "cpu-2-core" / "speed.csv").is_file()
    assert context.current() == context.Context()


def test_bench_prints_the_measurements(calls):
    result = lrscan_("bench", "speed", "--device", "cpu")
    assert "speed on CPU, 2 cores" in result.output
    assert "│ 2 │ 1         │" in result.output
    assert "q1_ms" not in result.output
    assert "Records: build/records/cpu-2-core/speed.csv" in result.output


def test_bench_writes_records_to_the_chosen_folder(project, calls, tmp_path, monkeypatch):
    assert lrscan_("bench", "speed", "--record").exit_code == 0
    assert (project / "figures" / "records" / "cpu-2-core" / "speed.csv").is_file()
    result = lrscan_("bench", "speed", "--out", "../out")
    assert (tmp_path / "out" / "cpu-2-core" / "speed.json").is_file()
    assert f"Records: {tmp_path}/out/cpu-2-core/speed.csv" in result.output
    monkeypatch.chdir(tmp_path / "out")  # outside the project, which is found by the package
    elsewhere = project / "lrscan" / "evidence" / "workspace.py"
    monkeypatch.setattr("lrscan.evidence.workspace.__file__", str(elsewhere))
    result = lrscan_("bench", "speed", "--out", "rec")
    assert "Records: rec/cpu-2-core/speed.csv" in result.output
    assert not (project / "build").exists()


def test_bench_overrides_parameters(calls):
    assert lrscan_("bench", "speed", "-p", "lengths=[8]", "-p", "seed=9").exit_code == 0
    assert calls[0][1]["lengths"] == [8] and calls[0][1]["seed"] == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "device must be one of auto, cpu, cuda, not 'tpu'"),
        (["spede"], "no experiment is called 'spede'; there are: speed, other"),
        (["-p", "runs=3"], "reproduce/01_speed has no parameter 'runs'"),
        (["-p", "seed=x"], "parameter seed is 'x', expected int"),
        (["--record", "--out", "x"], "give one"),
        (["--profile", "gpu"], "no profile 'gpu'"),
    ],
)
def test_bench_refuses_before_it_measures(calls, arguments, message):
    assert message in refused("bench", *arguments)
    assert calls == []


@pytest.mark.parametrize("verb", ["bench", "train"])
@pytest.mark.parametrize("minutes", ["nan", "0", "-1", "-inf", "soon"])
def test_minutes_that_are_not_a_positive_number_are_refused(project, calls, verb, minutes):
    assert "Invalid value for '--minutes'" in refused(verb, f"--minutes={minutes}")
    assert calls == [] and not (project / "build").exists()


def test_bench_refuses_a_gpu_that_is_not_there(calls, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "'cuda': torch sees 0 GPUs" in refused("bench", "--device", "cuda")
    assert calls == []


def test_bench_needs_nothing_of_jupyter():
    """Look up the package's own experiments by name while Jupyter cannot be imported."""
    script = (
        "import sys\n"
        f"for name in {JUPYTER!r}: sys.modules[name] = None\n"
        "from lrscan.cli.commands import main\n"
        "main(['bench', '--help'], standalone_mode=False)\n"
        "main(['bench', 'no such'])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert done.returncode == 2 and "Usage:" in done.stdout
    assert "no experiment is called 'no such'; there are: " in done.stderr


def test_bench_pauses_when_its_time_is_up_and_resumes(project, calls, monkeypatch):
    """Pass the deadline to an experiment that pauses; do not start another one after it."""
    given = []

    def nothing(*, seed: int, resume: bool, until: float):
        raise Paused("nothing", None, 4)

    speed = registry.load("speed")
    stand_in(monkeypatch, experiment("nothing", nothing, "seed", resumes=True))
    result = lrscan_("bench", "nothing", "--minutes", "1e-9", "--device", "cpu")
    assert result.exit_code == 75 and "--resume: 4 pieces of nothing" in result.output

    def pieces(*, seed: int, resume: bool, until: float):
        given.append((resume, until))
        found = records.write("pieces", [{"T": 1, "median_ms": 1.0}], PROVENANCE)
        if resume:
            return found
        raise Paused("pieces", found, 3)

    stand_in(monkeypatch, experiment("pieces", pieces, "seed", resumes=True), speed)
    result = lrscan_("bench", "pieces", "speed", "--minutes", "1e-9", "--device", "cpu")
    assert result.exit_code == 75 and not calls
    assert "Left to measure with --resume: 3 pieces of pieces, speed" in result.output
    assert lrscan_("bench", "pieces", "speed", "--resume").exit_code == 0
    assert [resume for resume, _ in given] == [False, True] and len(calls) == 1
    assert given[1][1] == math.inf > given[0][1]
