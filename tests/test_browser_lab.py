"""The lessons in JupyterLab, used as a learner would: opened, run to the end, stepped through."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

import psutil  # noqa: E402
from browser import chromium  # noqa: E402
from projects import PYTHONPATH, write_notebook  # noqa: E402

from lrscan.runner import catalog  # noqa: E402

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
LESSONS = [n.name for n in catalog.discover(ROOT) if n.name.startswith("learn/")]
LONGEST_S = 600  # from "Run All Cells" to the last cell's end
SETTINGS = {
    # The page contains every cell, also those that are not in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


class Lab:
    """JupyterLab as `make lab` starts it, on a copy of the notebooks."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        for name in ("notebooks", "figures"):
            shutil.copytree(ROOT / name, self.root / name)
        for name, values in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        own = {f"JUPYTER_{name}": str(folder / sub) for name, sub in folders.items()}
        own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
        own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": PYTHONPATH}
        arguments = "--no-browser --port=0" + " --allow-root" * (os.geteuid() == 0)
        self.log = folder / "lab.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command(arguments),
                cwd=self.root,
                env=os.environ | own,
                stdout=log,
                stderr=log,
            )
        self.server = self._server(folder / "runtime")

    @staticmethod
    def command(arguments: str) -> list[str]:
        """Return the command of ``make lab``, with the Jupyter of this Python."""
        made = subprocess.run(
            [
                "make",
                "--no-print-directory",
                "-n",
                "lab",
                f"ARGS={arguments}",
                f"BIN={Path(sys.executable).parent}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return shlex.split(made.stdout.splitlines()[-1])

    def _server(self, runtime: Path) -> dict:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for path in runtime.glob("jpserver-*.json"):
                try:
                    server = json.loads(path.read_text())
                    urllib.request.urlopen(f"{server['url']}api").close()
                    return server
                except (ValueError, OSError):
                    pass
            time.sleep(0.2)
        raise RuntimeError(self.log.read_text())

    def address(self, notebook: str) -> str:
        name = notebook.replace("/", "-")
        where = f"lab/workspaces/{name}/tree/notebooks/{notebook}.ipynb"
        return f"{self.server['url']}{where}?token={self.server['token']}"

    def cells(self, notebook: str) -> list[dict]:
        """Return the saved code cells, without empty ones."""
        document = json.loads((self.root / "notebooks" / f"{notebook}.ipynb").read_text())
        code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        return [cell for cell in code if "".join(cell["source"]).strip()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.process.terminate()  # which shuts down its kernels
    try:
        lab.process.wait(20)
    except subprocess.TimeoutExpired:
        lab.process.kill()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(LONGEST_S * 1000)
    yield context.new_page()
    context.close()


def errors(cells: list[dict]) -> list[str]:
    outputs = [output for cell in cells for output in cell["outputs"]]
    return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]


def run_all(lab: Lab, page, notebook: str) -> list[dict]:
    """Open a notebook, run all cells from the menu, save, and return the saved code cells."""
    page.goto(lab.address(notebook))
    page.locator(".jp-Notebook").wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    choose_kernel(page, 3_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    choose_kernel(page, 1_000)
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        cells = lab.cells(notebook)
        if errors(cells) or all(cell["execution_count"] for cell in cells):
            return cells
    raise AssertionError(f"{notebook} has not finished after {LONGEST_S} s")


def choose_kernel(page, wait_ms: int) -> None:
    """Close the dialog for choosing a kernel, which JupyterLab opens when it connects slowly."""
    try:
        page.locator(".jp-Dialog").get_by_role("button", name="Select").click(timeout=wait_ms)
    except playwright.TimeoutError:
        return
    page.locator(".jp-Dialog").wait_for(state="detached")


def test_jupyterlab_listens_on_loopback_and_requires_its_token(lab):
    family = [lab.process.pid, *(c.pid for c in psutil.Process(lab.process.pid).children(True))]
    found = [c for pid in family for c in psutil.Process(pid).net_connections("inet")]
    listening = {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert re.fullmatch(r"[0-9a-f]{32,}", lab.server["token"])
    contents = f"{lab.server['url']}api/contents"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(contents)
    with urllib.request.urlopen(f"{contents}?token={lab.server['token']}") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_to_its_end(lab, page, lesson):
    cells = run_all(lab, page, lesson)
    assert errors(cells) == []
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for stepper in page.locator(".lrscan-player").all()[:1]:
        play(stepper)


def play(stepper) -> None:
    """Check that a stepper reacts to its button and to the keyboard."""
    stepper.scroll_into_view_if_needed()
    slider = stepper.locator("input[type=range]").first
    picture = stepper.locator("svg").first
    first, drawn = slider.input_value(), picture.inner_html()
    stepper.get_by_role("button", name="next step").click()
    assert slider.input_value() != first
    for _ in range(3):
        slider.press("ArrowRight")
    assert picture.inner_html() != drawn
    slider.press("Home")
    assert slider.input_value() == first


def test_some_lesson_has_a_stepper(lab):
    """The saved outputs contain at least one stepper, so that the test above plays one."""
    outputs = [json.dumps(lab.cells(lesson)) for lesson in LESSONS]
    if not any("player" in text for text in outputs):
        pytest.skip("no lesson has a stepper")
    assert any("lrscan-player" in text for text in outputs)


def test_an_error_in_a_cell_is_seen(lab, page):
    write_notebook(lab.root, "learn/99_bad", "1 / 0")
    assert errors(run_all(lab, page, "learn/99_bad")) == ["ZeroDivisionError: division by zero"]
