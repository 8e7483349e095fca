"""Runs under pressure: many kernels at once, no memory, a full disk, a runner that is killed."""

import json
import os
import signal
import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree

import pytest
from projects import (
    LONGEST_S,
    PYTHONPATH,
    can_mount,
    make_project,
    wait_until,
    write_notebook,
    written,
)

pytest.importorskip("papermill", reason="notebooks are executed by papermill")

from test_runner import SAY_PID, gone, project, run  # noqa: E402, F401

from lrscan.evidence import workspace  # noqa: E402
from lrscan.runner import catalog, suite

# Record when a notebook ran. It ends only after all `others` have begun, however slow they are.
SPAN = (
    "import json, time\nfrom pathlib import Path\nbegan = time.time()\nPath('{name}.on').touch()\n"
    "while not all(Path(other + '.on').exists() for other in '{others}'):\n    time.sleep(0.05)\n"
    "time.sleep(0.3)\nPath('{name}.span').write_text(json.dumps([began, time.time()]))"
)
MEASURING = "seed = 0\nmeasure = True"


def spans(root):
    files = sorted((root / "notebooks" / "learn").glob("*.span"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def overlap(one, other):
    return one[0] < other[1] and other[0] < one[1]


def test_notebooks_that_measure_never_overlap_another(project):  # noqa: F811
    for name in "abcd":
        source = SPAN.format(others="abcd", name=name)
        write_notebook(project, f"learn/0_{name}", source, parameters=MEASURING)
    for name in "xy":
        source = SPAN.format(others="", name=name) + "\nif measure:\n    pass"
        write_notebook(project, f"learn/0_{name}", source, parameters=MEASURING)
    status, report = run(project, timeout_s=LONGEST_S, options={"jobs": 4})
    assert status == 0
    names = [outcome["notebook"] for outcome in report["notebooks"]]
    assert names == [f"learn/0_{name}" for name in "abcdxy"]
    seen = spans(project)
    assert all(overlap(seen[i], seen[j]) for i, j in combinations("abcd", 2))
    for measuring in "xy":
        others = [seen[name] for name in seen if name != measuring]
        assert not any(overlap(seen[measuring], other) for other in others)


def test_many_kernels_at_once_neither_mix_nor_fail(project):  # noqa: F811
    source = "import matplotlib.pyplot as plt\nfrom lrscan.evidence import figures\n"
    source += "figures.save(plt.figure(), 'figure_{0}', None, alt='Figure {0}.')\nprint({0})"
    for number in range(8):
        write_notebook(project, f"learn/{number}", source.format(number))
    status, report = run(project, options={"jobs": 8})
    assert status == 0
    manifest = json.loads((project / "build" / "figures" / "manifest.json").read_text())
    # Every process read and rewrote the manifest; no entry was lost.
    drawn = {name.split("/")[1]: entry["notebook"] for name, entry in manifest.items()}
    assert drawn == {
        f"figure_{n}.{kind}": f"learn/{n}" for n in range(8) for kind in ("png", "svg")
    }
    assert len(report["figures"]) == 16


def test_fail_fast_begins_nothing_more(project):  # noqa: F811
    write_notebook(project, "learn/1", "1")
    write_notebook(project, "learn/2", "1 / 0")
    write_notebook(project, "learn/3", "open('ran', 'w')")
    status, report = run(project, options={"fail_fast": True})
    verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
    assert (status, verdicts) == (1, ["passed", "failed", "not run"])
    assert {cell["status"] for cell in report["notebooks"][2]["cells"]} == {"not run"}


def test_junit_counts_every_cell_once(project, tmp_path):  # noqa: F811
    write_notebook(project, "learn/1", "1")
    write_notebook(project, "learn/2", "## Here", "raise ValueError('<\\x00\\x1b[1m & >')", "2")
    write_notebook(project, "learn/3", "1", language="R")
    assert run(project, options={"junit": tmp_path / "out" / "junit.xml"})[0] == 1
    suites = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot().findall("testsuite")
    counts = [[int(s.get(name)) for name in ("tests", "failures", "skipped")] for s in suites]
    assert counts == [[2, 0, 0], [3, 1, 1], [1, 1, 0]]
    case = suites[1].find("testcase[failure]")
    assert (case.get("classname"), case.get("name")) == ("learn/2", "cell 4")
    assert 'under "Here", line 1: raise ValueError' in case.find("failure").text
    assert suites[2].find("testcase[failure]").get("name") == "notebook"
    run(project, options={"junit": tmp_path / "out" / "junit.xml"})
    first = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()[0]
    assert first.get("skipped") == "2" and "unchanged" in first[0][0].get("message")


def test_running_out_of_memory_is_a_failure_with_its_place(project):  # noqa: F811
    source = (
        "import resource\nsize = 512 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (size, size))\n"
        "blocks = []\nwhile True:\n    blocks.append(bytearray(64 * 2**20))"
    )
    write_notebook(project, "learn/1", SAY_PID, "## Fill", source, "1")
    status, report = run(project)
    (outcome,) = report["notebooks"]
    assert (status, outcome["verdict"]) == (1, "failed")
    statuses = [cell["status"] for cell in outcome["cells"]]
    assert statuses == ["passed", "passed", "failed", "not run"]
    failure = outcome["failure"]
    assert failure["error"].startswith("MemoryError")
    assert (failure["cell"], failure["heading"], failure["line"]) == (5, "Fill", 6)
    assert gone(project)


def test_a_file_that_cannot_be_written_leaves_the_good_figure(project):  # noqa: F811
    source = (
        "import matplotlib.pyplot as plt\nfrom lrscan.evidence import figures\n"
        "figure, axes = plt.subplots()\naxes.plot([1, {0}])\n{1}"
        "figures.save(figure, 'line', None, alt='A line.')"
    )
    write_notebook(project, "learn/1", source.format(2, ""))
    assert run(project)[0] == 0
    folder = project / "build" / "figures"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # As on a disk with 4 KB left: the first file cannot be completed.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    write_notebook(project, "learn/1", source.format(3, limit))
    status, report = run(project)
    failure = report["notebooks"][0]["failure"]
    assert status == 1 and failure["error"].startswith("OSError: [Errno 27] File too large: ")
    assert failure["error"].endswith("build/figures/drawings/line.svg'")
    assert failure["line"] == 7 and failure["source"].startswith("figures.save")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("what", ["below a file", "a folder", "below a link to nowhere"])
@pytest.mark.parametrize("which", ["junit", "report"])
def test_a_report_that_cannot_be_written_does_not_affect_the_other(project, capsys, which, what):  # noqa: F811
    """It is named before anything is executed, and no earlier report is mistaken for it."""
    write_notebook(project, "learn/1", "open('ran', 'w')")
    junit, report = project / "out" / "junit.xml", project / "build" / "report.json"
    bad, good = (junit, report) if which == "junit" else (report, junit)
    if what == "below a file":
        bad.parent.write_text("")
    elif what == "a folder":
        bad.mkdir(parents=True)
    else:
        bad.parent.symlink_to("/proc/nowhere")
    status = suite.run(project, *chosen(project), profile="quick", junit=junit)
    output = capsys.readouterr().out
    assert status == 1 and f"{workspace.shown(bad)} could not be written: " in output
    assert good.is_file() and not (project / "notebooks" / "learn" / "ran").exists()
    if which == "junit":
        assert json.loads(report.read_text())["verdict"] == "failed"


def chosen(root):
    """Return all notebooks of a project, and their parameters."""
    every = catalog.discover(root)
    return every, {notebook.name: notebook.defaults for notebook in every}


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a small disk")
@pytest.mark.parametrize("left", [0, 24], ids=["nothing", "24-KB"])
def test_a_full_disk_is_a_failure_and_leaves_no_misleading_report(project, left):  # noqa: F811
    """`build` is a separate disk, with `left` KB of free space."""
    write_notebook(project, "learn/1", SAY_PID, "print('x' * 100_000)")
    write_notebook(project, "learn/2", "1")
    (project / "build").mkdir()
    script = (
        "mount -t tmpfs -o size=512k tmpfs build\n"
        'echo \'{"verdict": "passed"}\' >build/report.json\n'
        f"head -c $((512 - 4 - {left}))K /dev/zero >build/ballast || true\n"
        f"{sys.executable} -m lrscan run; status=$?\n"
        "cp build/report.json after.json; exit $status"
    )
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stdout
    after = project / "after.json"
    assert after.exists() == bool(left)
    if left:
        report = json.loads(after.read_text())
        verdicts = [outcome["verdict"] for outcome in report["notebooks"]]
        assert (report["verdict"], verdicts) == ("failed", ["failed", "passed"])


def test_a_killed_runner_leaves_no_kernel(project):  # noqa: F811
    write_notebook(project, "learn/1", SAY_PID, "import time\ntime.sleep(600)")
    command = [sys.executable, "-m", "lrscan", "run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: written(project / "notebooks" / "learn" / "pid"))
    process.kill()
    process.wait()
    assert gone(project)
    report = json.loads((project / "build" / "report.json").read_text())
    assert report["verdict"] == "running"


@pytest.mark.parametrize("moment", ["import", "run"])
def test_ctrl_c_ends_with_130_at_any_moment(tmp_path, moment):
    root = make_project(tmp_path / "project")
    write_notebook(root, "learn/1", "import time\ntime.sleep(600)")
    slow = tmp_path / "slow"
    slow.mkdir()
    if moment == "import":  # importing papermill, the first import of the command, takes long
        (slow / "papermill.py").write_text("import time\nprint('now', flush=True)\ntime.sleep(600)")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(slow), PYTHONPATH])}
    process = subprocess.Popen(
        [sys.executable, "-m", "lrscan", "run"],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell makes its background jobs ignore Ctrl-C, and subprocesses inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if moment == "import":
        assert process.stdout.readline() == "now\n"
    else:
        wait_until((root / "build" / "report.json").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
