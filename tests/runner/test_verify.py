"""`lrscan verify` finds every changed byte, and redraws the figures."""

import json
import signal
import subprocess
import sys

import pytest
from projects import (
    DRAWING,
    DRAWS,
    LONGEST_S,
    PYTHONPATH,
    make_project,
    wait_until,
    write_notebook,
    written,
)

pytest.importorskip("papermill", reason="figures are drawn again by their notebooks")

from test_runner import CHILD, SAY_PID, gone  # noqa: E402

from lrscan.runner import catalog, suite, verify  # noqa: E402


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A project with a record and its figure, committed and in build/."""
    root = make_project(tmp_path_factory.mktemp("verify") / "project")
    write_notebook(root, "reproduce/01", DRAWS, parameters=DRAWING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", PYTHONPATH)
        every = catalog.discover(root)
        values = {notebook.name: notebook.defaults for notebook in every}
        for record in (True, False):
            assert suite.run(root, every, values, profile="quick", record=record) == 0
    return root


@pytest.fixture
def project(recorded, monkeypatch):
    """The same project, restored after each test."""
    monkeypatch.chdir(recorded)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    yield recorded
    for path in [path for path in recorded.rglob("*") if path.is_file()]:
        if path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def run(root, redraw=False):
    said = []
    return verify.run(root, redraw=redraw, say=said.append), said


def test_unchanged_files_agree_and_are_redrawn(project):
    status, said = run(project, redraw=True)
    assert (status, said[-1]) == (0, "everything agrees, and redrawing gives the same bytes")


FILES = (
    "figures/cpu-2-core/timing.svg",
    "figures/cpu-2-core/timing.png",
    "figures/records/cpu-2-core/timing.csv",
    "figures/records/cpu-2-core/timing.json",
    "build/figures/cpu-2-core/timing.svg",
    "build/records/cpu-2-core/timing.csv",
)


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_found_and_its_file_named(project, name):
    path = project / name
    original = path.read_bytes()
    for at in {0, len(original) // 3, len(original) // 2, len(original) - 1}:
        changed = bytearray(original)
        changed[at] ^= 1
        path.write_bytes(changed)
        status, said = run(project)
        assert status == 1
        assert any(line.startswith(f"{name}: changed (sha256 ") for line in said), said


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(project, name):
    (project / name).unlink()
    assert f"{name}: missing" in run(project)[1]


def test_a_measurement_that_is_not_drawn_yet_is_no_problem(project):
    record = project / "build" / "records" / "x" / "new.csv"
    record.parent.mkdir()
    record.write_text("experiment\n")
    assert run(project)[0] == 0


@pytest.mark.parametrize("where", ["figures/cpu-2-core/new.png", "figures/records/x/new.csv"])
def test_a_file_without_an_entry_in_the_manifest_is_found(project, where):
    (project / where).parent.mkdir(exist_ok=True)
    (project / where).write_bytes((project / "figures/cpu-2-core/timing.png").read_bytes())
    said = run(project)[1]
    assert f"{where}: no figure's entry in the manifest names this file" in said


def test_a_manifest_that_lacks_something_is_found(project):
    path = project / "figures" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["cpu-2-core/timing.png"]["duration_s"]
    path.write_text(json.dumps(manifest))
    assert "figures/cpu-2-core/timing.png: the manifest lacks duration_s" in run(project)[1]
    path.write_text("{")
    assert run(project)[1][0].startswith("figures/manifest.json: not JSON")


def rewrite(project, name, change):
    """Change a file and its hash in the manifest, as if to hide the change."""
    path = project / name
    manifest = project / "figures" / "manifest.json"
    before = verify.digest(path)
    path.write_bytes(change(path.read_bytes()))
    manifest.write_text(manifest.read_text().replace(before, verify.digest(path)))


def test_provenance_that_differs_from_the_records_is_found(project):
    name = "figures/cpu-2-core/timing.svg"
    rewrite(project, name, lambda data: data.replace(b"timing&quot;", b"other&quot;"))
    rewrite(project, name, lambda data: data.replace(b'"timing"', b'"other"'))
    said = run(project)[1]
    assert said[0].startswith(f"{name}: does not carry the provenance of figures/records/")


def test_a_figure_that_its_records_do_not_draw_is_found(project):
    name = "figures/cpu-2-core/timing.svg"
    rewrite(project, name, lambda data: data.replace(b"#1f77b4", b"#ff0000"))
    status, said = run(project, redraw=True)
    assert status == 1
    assert f"{name}: its bytes change when it is redrawn from its records" in said
    assert not any("timing.png" in line for line in said)


def test_a_figure_without_its_notebook_is_found(project):
    (project / "notebooks" / "reproduce" / "01.ipynb").unlink()
    said = run(project, redraw=True)[1]
    assert "figures/cpu-2-core/timing.png: there is no notebook reproduce/01 to draw it" in said


def test_a_notebook_that_fails_is_named(project):
    write_notebook(project, "reproduce/01", "1 / 0", parameters=DRAWING)
    status, said = run(project, redraw=True)
    assert status == 1 and any("ZeroDivisionError" in line for line in said)


def test_a_verification_that_is_stopped_leaves_no_process(project):
    source = f"{SAY_PID}\n{CHILD}time.sleep(600)"
    write_notebook(project, "reproduce/01", source, parameters=DRAWING)
    process = subprocess.Popen([sys.executable, "-m", "lrscan", "verify"])
    wait_until(lambda: written(project / "notebooks" / "reproduce" / "pid_child"))
    process.send_signal(signal.SIGHUP)
    assert process.wait(LONGEST_S) == 128 + signal.SIGHUP
    assert gone(project)


@pytest.mark.parametrize("package", ["matplotlib", "pillow"])
def test_figures_of_other_versions_are_not_called_wrong(project, package):
    path = project / "figures" / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in manifest.values():
        entry["versions"][package] = "3.0"
    path.write_text(json.dumps(manifest))
    status, said = run(project, redraw=True)
    assert status == 0
    note = f"not compared: figures/cpu-2-core/timing.png: drawn with {package} 3.0"
    assert said[0].startswith(note)


@pytest.mark.parametrize("folder", ["/home/somebody/lrscan", "C:\\\\Users\\\\somebody"])
def test_a_folder_of_a_machine_is_found(project, folder):
    name = "figures/records/cpu-2-core/timing.json"
    rewrite(project, name, lambda data: data.replace(b'"x"', f'"{folder}"'.encode(), 1))
    assert any(line.startswith(f"{name}: names ") for line in run(project)[1])
    write_notebook(project, "reproduce/01", f"open('{folder}')", parameters=DRAWING)
    assert any(line.startswith("reproduce/01: cell 3 names ") for line in run(project)[1])


def test_the_host_and_the_user_are_found(project, monkeypatch):
    monkeypatch.setattr(verify.platform, "node", lambda: "my-machine.example")
    monkeypatch.setattr(verify.getpass, "getuser", lambda: "somebody")
    name = "figures/records/cpu-2-core/timing.json"
    for word in ("my-machine", "somebody"):
        rewrite(project, name, lambda data, t=word: data.replace(b'"x"', f'"{t}"'.encode(), 1))
        assert any(f"names '{word}'" in line for line in run(project)[1])
