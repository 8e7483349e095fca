"""Figures carry their provenance, and the same records give the same bytes."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image
from projects import LONGEST_S, PYTHONPATH, in_run, make_project

from lrscan.distributed import cost
from lrscan.evidence import figures, records
from lrscan.experiments import outlook, registry
from lrscan.learn.machines import roofline
from lrscan.learn.scenes import draw as scenes
from lrscan.learn.scenes import plane

RECORDS = Path(__file__).parents[2] / "figures" / "records"
SVG = "{http://www.w3.org/2000/svg}"
ALT = 'Time rises with T, "a" < b & c.'
PROVENANCE = {
    "device": "cpu-2-core",
    "device_label": "CPU, 2 cores",
    "driver": None,
    "commit": "0" * 40,
    "dirty": False,
    "measured_at": "2026-01-01T00:00:00Z",
    "parameters": {"lengths": [1, 2, 3]},
    "profile": "quick",
    "seed": 0,
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def measured():
    rows = [{"T": t, "median_ms": 0.1 * t} for t in (1, 2, 3)]
    return records.write("timing", rows, PROVENANCE)


def draw(measured: records.Records, colour: str = "C0") -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot(measured.table["T"], measured.table["median_ms"], "o-", color=colour, label="µ")
    axes.set(title=measured.device_label, xlabel="T", ylabel="ms")
    axes.legend()
    return figure


def digests(paths: dict[str, Path]) -> dict[str, str]:
    return {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in paths.items()}


def png_text(paths: dict[str, Path]) -> dict[str, str]:
    with Image.open(paths["png"]) as image:
        return image.text


def test_both_files_lie_in_the_devices_folder(project, measured):
    paths = figures.save(draw(measured), "timing", measured, alt=ALT)
    folder = project / "build" / "figures" / "cpu-2-core"
    assert paths == {"svg": folder / "timing.svg", "png": folder / "timing.png"}
    assert png_text(paths)["Title"] == "timing"


def test_both_files_carry_the_records_provenance_and_the_alt_text(measured):
    paths = figures.save(draw(measured), "timing", measured, alt=ALT)
    text = png_text(paths)
    assert json.loads(text["Provenance"]) == measured.provenance
    assert text["Description"] == ALT
    root = ElementTree.parse(paths["svg"]).getroot()
    description = root.find(".//{http://purl.org/dc/elements/1.1/}description")
    assert json.loads(description.text) == measured.provenance


def test_an_svg_is_an_image_with_title_and_description(measured):
    root = ElementTree.parse(figures.save(draw(measured), "my_timing", measured, alt=ALT)["svg"])
    root = root.getroot()
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.get("id")}
    assert [named[name] for name in root.get("aria-labelledby").split()] == ["my timing", ALT]


def test_nothing_of_today_or_of_this_machine_is_in_a_figure(measured):
    paths = figures.save(draw(measured), "timing", measured, alt=ALT)
    svg = paths["svg"].read_text()
    data = [svg, *png_text(paths).values()]
    assert matplotlib.__version__ not in "".join(data)
    assert not any(str(Path.cwd()) in text or f'"{platform.node()}"' in text for text in data)
    assert "Date" not in png_text(paths) and "dc:date" not in svg


def test_another_process_draws_the_same_bytes(project, measured):
    here = digests(figures.save(draw(measured), "timing", measured, alt=ALT))
    script = (
        "from test_figures import ALT, digests, draw\n"
        "from lrscan.evidence import figures, records\n"
        "import json, matplotlib.pyplot as plt\n"
        "plt.rcParams.update({'savefig.dpi': 50, 'svg.hashsalt': None, 'svg.fonttype': 'none'})\n"
        "r = records.read('timing', 'cpu-2-core', directory='build/records')\n"
        "print(json.dumps(digests(figures.save(draw(r), 'timing', r, alt=ALT))))\n"
    )
    paths = os.pathsep.join([PYTHONPATH, str(Path(__file__).parent)])
    for seed, backend in (("1", "svg"), ("2", "pdf")):
        environment = os.environ | {
            "PYTHONPATH": paths,
            "PYTHONHASHSEED": seed,
            "MPLBACKEND": backend,
        }
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == here


def test_other_data_gives_other_bytes(measured):
    first = digests(figures.save(draw(measured), "timing", measured, alt=ALT))
    second = digests(figures.save(draw(measured, "C1"), "timing", measured, alt=ALT))
    assert not set(first.values()) & set(second.values())


def test_settings_of_pyplot_neither_leak_in_nor_change(measured):
    before = digests(figures.save(draw(measured), "timing", measured, alt=ALT))
    figure = draw(measured)
    settings = {
        "savefig.dpi": 20,
        "savefig.bbox": "tight",
        "savefig.facecolor": "red",
        "svg.fonttype": "none",
        "svg.hashsalt": "other",
        "font.sans-serif": ["STIXGeneral"],
        "path.simplify": False,
    }
    with matplotlib.rc_context(settings):
        kept = dict(matplotlib.rcParams)
        assert digests(figures.save(figure, "timing", measured, alt=ALT)) == before
        assert dict(matplotlib.rcParams) == kept


HOSTILE = {
    "font.family": ["serif"],
    "font.size": 7,
    "text.color": "red",
    "lines.linewidth": 5,
    "patch.linewidth": 4,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.titlesize": 20,
    "axes.prop_cycle": matplotlib.cycler(color=["r", "k"]),
    "legend.frameon": False,
    "figure.dpi": 50,
    "hatch.linewidth": 5,
    "xtick.direction": "in",
    "image.cmap": "gray",
    "axes.formatter.useoffset": False,
    "errorbar.capsize": 9,
    "scatter.marker": "x",
}


FIGURES = {
    name: (experiment, plot)
    for experiment in registry.load_all()
    for name, plot in experiment.figures.items()
}


def drawn(name):
    """Draw a figure of the package from the committed records."""
    if name == "outlook":
        links = {"ring": cost.Link(1e-5, 5e10), "tree": cost.Link(1e-5, 5e10, tree=True)}
        device = cost.Device(2e-5, 2.68e12)
        return outlook.plot(outlook.predict(device, links, 2**36, 16, [1, 1024]), "a device")
    experiment, plot = FIGURES[name]
    return plot.draw(records.read(experiment.name, "cpu-2-core", directory=RECORDS))


@pytest.mark.parametrize("name", [*FIGURES, "outlook"])
def test_a_users_settings_do_not_change_a_figure_of_the_package(name):
    plain = figures._svg(drawn(name), name, ALT, "")
    with matplotlib.rc_context(HOSTILE):
        assert figures._svg(drawn(name), name, ALT, "") == plain


@pytest.mark.parametrize(
    "of",
    [lambda: scenes.chain([1, 2], [3, 4]), lambda: plane.roofline(roofline.H100, "float32")],
    ids=["drawing", "plot"],
)
def test_a_users_settings_do_not_change_a_drawing_of_the_lessons(of):
    plain = figures._svg(of().figure(), "scene", ALT, ""), of().svg()
    with matplotlib.rc_context(HOSTILE):
        assert (figures._svg(of().figure(), "scene", ALT, ""), of().svg()) == plain


def test_the_manifest_says_what_each_figure_is(project, measured, monkeypatch):
    started = time.time() - 60
    in_run(monkeypatch, notebook="reproduce/02", parameters={"seed": 3}, started=started)
    paths = figures.save(draw(measured), "timing", measured, alt=ALT)
    manifest = json.loads((project / "build" / "figures" / "manifest.json").read_text())
    assert set(manifest) == {"cpu-2-core/timing.svg", "cpu-2-core/timing.png"}
    for kind, digest in digests(paths).items():
        entry = manifest[f"cpu-2-core/timing.{kind}"]
        assert entry["sha256"] == digest
        assert (entry["notebook"], entry["parameters"]) == ("reproduce/02", {"seed": 3})
        assert entry["seed"] == 3 and 60 <= entry["duration_s"] < 60 + LONGEST_S
        assert entry["versions"]["matplotlib"] == matplotlib.__version__
        assert (entry["alt"], entry["commit"], entry["dirty"]) == (ALT, None, None)
        assert entry["drawn_at"].endswith("Z")
        assert entry["provenance"]["versions"] == {"torch": "2.13.0"}
        sidecar = measured.path.with_suffix(".json")
        assert entry["records"] == {
            "path": "build/records/cpu-2-core/timing.csv",
            "sha256": hashlib.sha256(measured.path.read_bytes()).hexdigest(),
            "provenance_sha256": hashlib.sha256(sidecar.read_bytes()).hexdigest(),
        }


def test_the_manifest_keeps_other_figures(project, measured):
    figures.save(draw(measured), "one", measured, alt=ALT)
    figures.save(draw(measured), "two", measured, alt=ALT)
    entries = figures.read_manifest(project / "build" / "figures" / "manifest.json")
    assert {Path(name).stem for name in entries} == {"one", "two"}


def test_two_processes_that_draw_at_once_lose_no_entry(project, measured):
    script = (
        "import sys\nfrom test_figures import ALT\nfrom matplotlib.figure import Figure\n"
        "from lrscan.evidence import figures\n"
        "for n in range(8): figures.save(Figure(), f'{sys.argv[1]}{n}', None, alt=ALT)\n"
    )
    paths = os.pathsep.join([PYTHONPATH, str(Path(__file__).parent)])
    command = [sys.executable, "-c", script]
    both = [
        subprocess.Popen([*command, name], env=os.environ | {"PYTHONPATH": paths}) for name in "ab"
    ]
    assert [process.wait(timeout=LONGEST_S) for process in both] == [0, 0]
    entries = figures.read_manifest(project / "build" / "figures" / "manifest.json")
    assert {Path(name).stem for name in entries} == {f"{p}{n}" for p in "ab" for n in range(8)}


def test_a_figure_shown_in_a_notebook_keeps_its_text(measured):
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats

    figure = draw(measured)
    figures.save(figure, "timing", measured, alt=ALT)
    shell = InteractiveShell()
    select_figure_formats(shell, {"png"})
    data, metadata = shell.display_formatter.format(figure)
    assert data["image/png"] and metadata["image/png"]["alt"] == ALT


def test_a_drawing_has_no_records(project, measured):
    paths = figures.save(draw(measured), "idea", None, alt=ALT)
    assert paths["png"] == project / "build" / "figures" / "drawings" / "idea.png"
    assert "Provenance" not in png_text(paths)
    entry = figures.read_manifest(project / "build/figures/manifest.json")["drawings/idea.png"]
    assert entry["records"] is None and entry["provenance"] is None and entry["notebook"] is None


def test_a_recording_run_draws_in_the_committed_folder(project, measured, monkeypatch):
    in_run(monkeypatch, recording=True)
    paths = figures.save(draw(measured), "timing", measured, alt=ALT)
    assert paths["svg"] == project / "figures" / "cpu-2-core" / "timing.svg"
    assert (project / "figures" / "manifest.json").is_file()
    assert not (project / "build" / "figures").exists()


@pytest.mark.parametrize(("name", "alt"), [("a/b", ALT), ("..", ALT), ("", ALT), ("ok", "  ")])
def test_a_bad_name_or_an_empty_alt_text_is_refused(project, measured, name, alt):
    with pytest.raises(ValueError, match=repr(name)):
        figures.save(draw(measured), name, measured, alt=alt)
    assert not (project / "build" / "figures").exists()
