"""Real notebooks in real kernels: the verdicts are true, and no kernel is left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from projects import (
    LONGEST_S,
    PARAMETERS,
    PYTHONPATH,
    alive,
    in_run,
    make_project,
    read_executed,
    wait_until,
    write_notebook,
    written,
)

pytest.importorskip("papermill", reason="notebooks are executed by papermill")

import lrscan  # noqa: E402
from lrscan.evidence.context import VARIABLE, Context  # noqa: E402
from lrscan.runner import catalog, suite  # noqa: E402

# The kernel writes its process id, so that the test can see whether it has ended.
SAY_PID = "import os\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))"
# The same for a process that the kernel starts.
CHILD = (
    "import subprocess, time\n"
    "Path('pid_child').write_text(str(subprocess.Popen(['sleep', '600']).pid))\n"
)

SHORT_S = 4  # the time limit in tests of an endless cell; earlier cells take less on any machine


@pytest.fixture
def project(tmp_path, monkeypatch):
    # papermill formats paths, so an unescaped brace would be an error.
    root = make_project(tmp_path / "a {project}")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    return root


def run(root: Path, *, timeout_s: int | None = LONGEST_S, options: dict | None = None, **given):
    """Run all notebooks of a project, and return the exit status and the report."""
    every = catalog.discover(root)
    values = {notebook.name: notebook.defaults | given for notebook in every}
    status = suite.run(root, every, values, profile="quick", timeout_s=timeout_s, **(options or {}))
    return status, json.loads((root / "build" / "report.json").read_text())


def gone(root: Path) -> bool:
    """Return True once every process whose id a notebook wrote to a file has ended."""
    pids = [int(path.read_text()) for path in root.glob("notebooks/*/pid*")]
    assert pids
    wait_until(lambda: not any(map(alive, pids)))
    return True


def test_passed_notebooks_are_reported_cell_by_cell(project, capsys):
    write_notebook(project, "reproduce/01_b", "6 * 7")
    write_notebook(project, "learn/01_a", "# Heading", "x = seed + 1", "", "print(x)")
    status, report = run(project, seed=4)
    assert status == 0
    assert (report["verdict"], report["profile"], report["recorded"]) == ("passed", "quick", False)
    first, second = report["notebooks"]
    assert (first["notebook"], second["notebook"]) == ("learn/01_a", "reproduce/01_b")
    assert first["verdict"] == "passed" and first["failure"] is None and first["seconds"] > 0
    # Numbers count the cells of the source; the empty one is nothing to run.
    assert [cell["number"] for cell in first["cells"]] == [2, 4, 6]
    assert all(c["status"] == "passed" and c["seconds"] > 0 for c in first["cells"])
    assert first["parameters"] == {"seed": 4, "device": "auto"}
    assert first["executed"] == "build/notebooks/learn/01_a.ipynb"
    executed = read_executed(project, "learn/01_a")
    assert executed.cells[-1].outputs[0].text == "5\n"
    assert str(project) not in json.dumps(executed.metadata)
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[0].startswith("[1/2] learn/01_a: passed in ") and len(lines) == 2
    assert "build/notebooks/" in output.out and "│ learn/01_a" in output.out


# name: (last cells, the error, line of the failing cell, its source)
FAILURES = {
    "exception": ("y = 1\ny / 0", "ZeroDivisionError: division by zero", 2, "y / 0"),
    "within a function": (
        "import json\ndef f():\n    json.loads('{')\nf()",
        "JSONDecodeError: Expecting property name",
        3,
        "json.loads('{')",
    ),
    "syntax": ("y = 1\ny =", "SyntaxError: invalid syntax", 2, "y ="),
    "SystemExit(0)": ("import sys\nsys.exit(0)", "SystemExit: 0", None, "import sys"),
    "exit()": ("exit()", "exit() ended the notebook", None, "exit()"),
    "os._exit(0)": ("os._exit(0)", "the kernel died (exit status 0)", None, "os._exit(0)"),
    "killed": ("os.kill(os.getpid(), 9)", "the kernel died (SIGKILL, which", None, "os.kill(os"),
    "error output only": (
        "from IPython.display import publish_display_data\n"
        "get_ipython().kernel.send_response(get_ipython().kernel.iopub_socket, 'error',"
        " {'ename': 'Quiet', 'evalue': 'error', 'traceback': []})",
        "the cell ended, but left an error output: Quiet: error",
        None,
        "from IPython",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_cell_is_named_and_later_cells_are_not_run(project, failure, capsys):
    source, error, line, text = FAILURES[failure]
    write_notebook(
        project, "learn/01_bad", SAY_PID, "## Before", source, "## After", "Path('ran').touch()"
    )
    status, report = run(project)
    (outcome,) = report["notebooks"]
    assert (status, report["verdict"], outcome["verdict"]) == (1, "failed", "failed")
    statuses = {cell["number"]: cell["status"] for cell in outcome["cells"]}
    assert statuses == {2: "passed", 3: "passed", 5: "failed", 7: "not run"}
    found = outcome["failure"]
    assert found["error"].startswith(error)
    assert (found["cell"], found["heading"], found["line"]) == (5, "Before", line)
    assert found["source"].startswith(text)
    assert "\x1b" not in "".join(found["traceback"])
    output = capsys.readouterr().out
    assert f"learn/01_bad failed: {found['error']}" in output
    assert f'cell 5, under "Before", {f"line {line}" if line else "which begins"}: ' in output
    assert not (project / "notebooks" / "learn" / "ran").exists()
    executed = read_executed(project, "learn/01_bad").cells[-3:]
    assert [c.metadata.papermill.status for c in executed] == ["failed", "pending", "pending"]
    assert gone(project)


def test_the_end_of_the_traceback_is_printed(project, capsys):
    write_notebook(project, "learn/01_bad", "def f():\n    raise KeyError('which')\nf()")
    run(project)
    output = capsys.readouterr().out
    assert "| ----> 2     raise KeyError('which')" in output
    assert "| KeyError: 'which'" in output


@pytest.mark.parametrize(
    "message",
    ["'x' * 3_000_000 + 'end'", "'one line\\n' * 300_000 + 'end'", f"{'x' * 9999!r} 'end'"],
    ids=["line", "lines", "source"],
)
def test_a_long_error_is_shortened_to_its_two_ends(project, capsys, message):
    """The full text is in the executed notebook, but neither on the terminal nor in reports."""
    write_notebook(project, "learn/01_bad", f"raise ValueError({message})")
    status, report = run(project)
    failure = report["notebooks"][0]["failure"]
    assert failure["error"].startswith("ValueError: ") and failure["error"].endswith("end")
    assert " characters ... " in failure["error"] and failure["traceback"][-1].endswith("end")
    output = capsys.readouterr().out
    assert len(output) < 40_000 and "learn/01_bad failed: ValueError: " in output
    for name in ("report.json", "junit.xml"):
        assert (project / "build" / name).stat().st_size < 1_000_000
    (output,) = read_executed(project, "learn/01_bad").cells[-1].outputs
    assert len(output.evalue) > 9999


@pytest.mark.parametrize("tag", ["raises-exception", "skip-execution"])
def test_no_tag_turns_a_failure_into_a_pass(project, tag):
    write_notebook(project, "learn/01_bad", "1 / 0", tags=(tag,))
    status, report = run(project)
    failure = report["notebooks"][0]["failure"]
    assert status == 1
    assert (failure["cell"], failure["error"]) == (3, "ZeroDivisionError: division by zero")


def test_a_timeout_names_the_line_that_was_running(project):
    source = "import time\ndef wait():\n    time.sleep(600)\nwait()"
    write_notebook(project, "learn/01_slow", SAY_PID, source, "1")
    started = time.monotonic()
    status, report = run(project, timeout_s=SHORT_S)
    assert time.monotonic() - started < LONGEST_S
    (outcome,) = report["notebooks"]
    assert (status, outcome["verdict"]) == (1, "failed")
    statuses = [cell["status"] for cell in outcome["cells"]]
    assert statuses == ["passed", "passed", "failed", "not run"]
    failure = outcome["failure"]
    assert failure["error"] == f"timed out: the cell ran longer than {SHORT_S} s"
    assert (failure["cell"], failure["line"], failure["source"]) == (4, 3, "time.sleep(600)")
    assert gone(project)


def test_a_cell_that_cannot_be_interrupted_is_killed_with_its_children(project):
    source = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{CHILD}time.sleep(600)"
    write_notebook(project, "learn/01_stuck", SAY_PID, source)
    assert run(project, timeout_s=SHORT_S)[0] == 1
    assert gone(project)


DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"


@pytest.mark.parametrize("source", [DEAF, "time.sleep(600)", "os._exit(1)", "1 / 0", "exit()"])
def test_nothing_is_printed_after_the_summary(project, source):
    """A task that waits for a dead kernel prints nothing, and neither do the kernel's channels."""
    write_notebook(project, "learn/01_bad", "import os, signal, time", source, "1")
    done = subprocess.run(
        [sys.executable, "-m", "lrscan", "run", "--timeout", "1"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("[1/1] learn/01_bad: failed in "), done.stderr
    assert done.stdout.splitlines()[-1].startswith("Report: ")


def test_a_dead_kernel_leaves_no_children(project):
    write_notebook(project, "learn/01_dead", SAY_PID, f"{CHILD}os._exit(1)")
    assert run(project)[0] == 1
    assert gone(project)


@pytest.mark.parametrize("kernel", ["conda-env-elsewhere-py", "Python 3.9 (mine)", None])
def test_a_kernel_of_any_name_is_this_python(project, kernel):
    """A notebook that was saved elsewhere may name a kernel that is not installed here, or none."""
    source = f"import sys\nassert (seed, sys.executable) == (4, {sys.executable!r})"
    write_notebook(project, "learn/01_a", source, kernel=kernel)
    assert run(project, seed=4)[0] == 0


def test_another_language_fails_with_a_remedy_and_leaves_no_old_copy(project):
    write_notebook(project, "learn/01_a", "1")
    assert run(project)[0] == 0
    write_notebook(project, "learn/01_a", "1", kernel="ir", language="R")
    status, report = run(project)
    (outcome,) = report["notebooks"]
    assert (status, outcome["verdict"], outcome["executed"]) == (1, "failed", None)
    assert "its language is R" in outcome["failure"]["error"]
    assert "Change Kernel" in outcome["failure"]["error"] and outcome["failure"]["cell"] is None
    assert not (project / "build" / "notebooks" / "learn" / "01_a.ipynb").exists()


def test_a_kernel_that_does_not_start_says_why(project, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "ipykernel_launcher.py").write_text("raise SystemExit('this kernel is broken')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(broken), PYTHONPATH]))
    write_notebook(project, "learn/01_a", "1")
    status, report = run(project)
    failure = report["notebooks"][0]["failure"]
    assert status == 1 and failure["traceback"][-1] == "this kernel is broken"
    written = ElementTree.parse(project / "build" / "junit.xml").getroot()[0]
    assert written.find("testcase[failure]").get("name") == "kernel"
    assert [written.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "2"]


@pytest.mark.parametrize("where", ["JUPYTER_PATH", "JUPYTER_DATA_DIR"])
def test_a_foreign_kernel_of_the_same_name_is_not_used(project, monkeypatch, tmp_path, where):
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    command = [sys.executable, "-c", "raise SystemExit('a foreign kernel')"]
    spec = {"argv": command, "display_name": "foreign", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv(where, str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    source = f"import sys\nassert sys.executable == {sys.executable!r}"
    write_notebook(project, "learn/01_a", source)
    assert run(project)[0] == 0


def test_start_up_files_of_the_user_are_not_run(project, monkeypatch, tmp_path):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("foreign = 1")
    (tmp_path / "startup.py").write_text("foreign = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    write_notebook(project, "learn/01_a", "assert 'foreign' not in globals()")
    assert run(project)[0] == 0


# Each turns off assertions, makes a warning an error, or otherwise changes what Python does.
SETTINGS = {
    "PYTHONOPTIMIZE": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONDEVMODE": "1",
    "PYTHONUTF8": "0",
    "PYTHONINTMAXSTRDIGITS": "640",
    "PYTHONHASHSEED": "7",
    "PYTHONSAFEPATH": "1",
    "PYTHONBREAKPOINT": "0",
    "PYTHONCASEOK": "1",
    "PYTHONMALLOC": "malloc",
    "MPLBACKEND": "pdf",
}


def test_settings_of_the_caller_do_not_decide_whether_a_notebook_passes(project, monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    source = (
        "import os, sys, warnings\n"
        "assert sys.flags.optimize == 0 and sys.flags.dev_mode is False\n"
        f"assert not [name for name in {[*SETTINGS][:-1]!r} if name in os.environ]\n"
        "warnings.warn('no error')"
    )
    write_notebook(project, "learn/01_good", source)
    write_notebook(project, "learn/02_bad", "assert seed < 0")
    status, report = run(project)
    assert [one["verdict"] for one in report["notebooks"]] == ["passed", "failed"]
    assert report["notebooks"][1]["failure"]["error"].startswith("AssertionError")
    assert status == 1


def test_lrscan_without_assertions_runs_notebooks_with_them(project):
    write_notebook(project, "learn/01_bad", "assert seed < 0")
    command = [sys.executable, "-O", "-W", "error", "-m", "lrscan", "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "learn/01_bad failed: AssertionError" in done.stdout


def test_a_users_settings_of_matplotlib_do_not_reach_a_figure(project, monkeypatch, tmp_path):
    folder = tmp_path / "config" / "matplotlib"
    folder.mkdir(parents=True)
    (folder / "matplotlibrc").write_text("font.family: serif\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MPLCONFIGDIR", str(folder))
    source = "import matplotlib\nassert matplotlib.rcParams['font.family'] == ['sans-serif']"
    write_notebook(project, "learn/01_a", source)
    assert run(project)[0] == 0
    monkeypatch.setenv("MATPLOTLIBRC", str(folder))
    assert run(project, options={"force": True})[0] == 0


def test_a_kernel_imports_the_package_that_runs_it(project, monkeypatch, tmp_path):
    other = tmp_path / "other" / "lrscan"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('another lrscan')")
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    source = f"import lrscan, os\nassert os.path.samefile(lrscan.__file__, {lrscan.__file__!r})"
    write_notebook(project, "learn/01_a", source)
    assert run(project)[0] == 0


def test_one_failure_does_not_stop_the_others(project):
    write_notebook(project, "learn/01_bad", "1 / 0")
    write_notebook(project, "learn/02_good", "1")
    status, report = run(project)
    verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
    assert (status, verdicts) == (1, ["failed", "passed"])


def test_hostile_values_arrive_as_text(project):
    hostile = [
        "'; import os; os.mkdir('owned') #",
        '"; import os; os.mkdir("owned") #',
        '""" + __import__("os").mkdir("owned") + """',
        "\\'; os.mkdir('owned')\n__import__('os').mkdir('owned')",
        "\\",
        "{seed} %s $HOME `id` \x00 \x1b[31m ünï \u2028 \U0001f600",
        "!mkdir owned",
        "%cd /",
        "",
    ]
    words = 'seed = 0\nword = "a"\nwords = ["a"]'
    source = "import json\nopen('words.json', 'w').write(json.dumps([word, *words]))"
    write_notebook(project, "learn/01_a", source, parameters=words)
    status, report = run(project, word=hostile[3], words=hostile)
    assert status == 0
    written = json.loads((project / "notebooks" / "learn" / "words.json").read_text())
    assert written == [hostile[3], *hostile]
    assert not list(project.rglob("owned"))
    assert report["notebooks"][0]["parameters"]["words"] == hostile


def test_a_kernel_knows_its_run_and_works_in_the_notebooks_folder(project, monkeypatch):
    in_run(monkeypatch, records="/somewhere/else")  # the context of another run
    before = os.environ[VARIABLE]
    source = (
        "import json, os\n"
        "names = [n for n in os.environ if n.startswith('LRSCAN_')]\n"
        "json.dump([os.getcwd(), {n: os.environ[n] for n in names}], open('seen.json', 'w'))"
    )
    write_notebook(project, "reproduce/01_a", source)
    folder = project / "notebooks" / "reproduce"
    for record in (False, True):
        assert run(project, options={"record": record})[0] == 0
        cwd, variables = json.loads((folder / "seen.json").read_text())
        assert Path(cwd) == folder
        context = Context(**json.loads(variables.pop(VARIABLE)))
        assert 0 < time.time() - context.started < LONGEST_S and not variables
        assert context == Context(
            profile="quick",
            recording=record,
            notebook="reproduce/01_a",
            parameters={"seed": 0, "device": "auto"},
            started=context.started,
        )
    assert os.environ[VARIABLE] == before


def test_kernels_talk_encrypted(project):
    source = (
        "from ipykernel.kernelapp import IPKernelApp\nassert IPKernelApp.instance().curve_secretkey"
    )
    write_notebook(project, "learn/01_a", source)
    assert run(project)[0] == 0


def test_figures_of_the_run_are_listed_and_shown_inline(project, capsys):
    assert os.environ["MPLBACKEND"] == "Agg"  # this must not reach the kernel
    source = (
        "import matplotlib.pyplot as plt\n"
        "from lrscan.evidence import figures\n"
        "figure, axes = plt.subplots()\n"
        "axes.plot([1, 2])\n"
        "figures.save(figure, 'line', None, alt='A line.')\n"
        "plt.show()"
    )
    write_notebook(project, "learn/01_plot", source)
    write_notebook(project, "learn/02_none", "1")
    status, report = run(project, seed=5)
    assert status == 0
    drawn = ["build/figures/drawings/line.png", "build/figures/drawings/line.svg"]
    assert report["figures"] == drawn
    assert all(f"  {figure}\n" in capsys.readouterr().out for figure in drawn[:1])
    outputs = read_executed(project, "learn/01_plot").cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    manifest = json.loads((project / "build" / "figures" / "manifest.json").read_text())
    entry = manifest["drawings/line.svg"]
    assert (entry["notebook"], entry["parameters"]["seed"]) == ("learn/01_plot", 5)
    # Figures of an earlier run are not listed.
    (project / "notebooks" / "learn" / "01_plot.ipynb").unlink()
    assert run(project)[1]["figures"] == []


def test_nothing_selected_is_not_a_success(project):
    assert run(project)[0] == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_stopped_run_reports_what_ran(project, name):
    number = getattr(signal, name)
    write_notebook(project, "learn/01_a", "1")
    write_notebook(project, "learn/02_b", SAY_PID, CHILD + "time.sleep(600)", "1")
    write_notebook(project, "learn/03_c", "1")
    command = [sys.executable, "-m", "lrscan", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: written(project / "notebooks" / "learn" / "pid_child"))
    process.send_signal(number)
    output, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    report = json.loads((project / "build" / "report.json").read_text())
    verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
    assert (report["verdict"], verdicts) == ("interrupted", ["passed", "interrupted", "not run"])
    statuses = [cell["status"] for cell in report["notebooks"][1]["cells"]]
    assert statuses == ["passed", "passed", "interrupted", "not run"]
    assert "learn/02_b interrupted" in output and "not run" in output
    assert gone(project)


def test_under_nohup_a_hang_up_stops_nothing(project):
    write_notebook(project, "learn/01_a", "import os, signal\nos.kill(os.getppid(), signal.SIGHUP)")
    command = [sys.executable, "-m", "lrscan", "run"]
    done = subprocess.run(["nohup", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_continues_to_its_end_when_nobody_reads_its_output(project):
    """The terminal was closed, or the process at the other end of the pipe ended."""
    write_notebook(project, "learn/01_a", "1")
    write_notebook(project, "learn/02_b", "1 / 0")
    write_notebook(project, "learn/03_c", "1")
    command = [sys.executable, "-m", "lrscan", "run"]
    gone, ours = os.pipe()
    os.close(gone)
    assert subprocess.run(command, stdout=ours, stderr=ours).returncode == 1
    os.close(ours)
    report = json.loads((project / "build" / "report.json").read_text())
    verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
    assert (report["verdict"], verdicts) == ("failed", ["passed", "failed", "passed"])


def test_a_report_of_an_earlier_run_does_not_outlive_the_start_of_the_next(project):
    write_notebook(project, "learn/01_a", "1")
    run(project)
    source = "import json\nprint(json.load(open('../../build/report.json'))['verdict'])"
    write_notebook(project, "learn/01_a", source)
    run(project)
    assert read_executed(project, "learn/01_a").cells[-1].outputs[0].text == "running\n"


def test_parameters_that_are_injected_keep_the_cells_number(project):
    write_notebook(project, "learn/01_a", "1 / 0", parameters=PARAMETERS + "\n")
    _, report = run(project)
    assert report["notebooks"][0]["failure"]["cell"] == 3


def test_parameters_that_are_injected_are_folded(project):
    write_notebook(project, "learn/01_a", "1 + 1", parameters=PARAMETERS + "\n")
    run(project)
    cells = read_executed(project, "learn/01_a").cells
    (injected,) = (cell for cell in cells if "injected-parameters" in cell.metadata.tags)
    assert injected.metadata.jupyter == {"source_hidden": True}


def test_an_exercise_is_run_with_its_solution(project):
    write_notebook(project, "learn/01_a", "def half(x):\n    ...", "assert half(4) == 2")
    path = project / "notebooks" / "learn" / "01_a.ipynb"
    document = json.loads(path.read_text())
    document["cells"][2]["metadata"]["solution"] = "def half(x):\n    return x / 2"
    path.write_text(json.dumps(document))
    assert run(project)[0] == 0
    document["cells"][2]["metadata"]["solution"] = "def half(x):\n    return x / 3"
    path.write_text(json.dumps(document))
    status, report = run(project)  # a changed solution counts as changed code
    assert (status, report["notebooks"][0]["failure"]["cell"]) == (1, 4)
