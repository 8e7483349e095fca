"""The repository follows its own rules: style, links, canonical notebooks, no unpickling."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import canonical  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/[!.]*.ipynb"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/guide/*.md")), *NOTEBOOKS]


def test_no_two_files_of_tests_have_one_name():
    """pytest imports test files by name, and would collect only one of them."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) > 80 and len(names) == len(set(names))


def ruff(*arguments):
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_package_tests_and_notebooks_pass_ruff():
    pytest.importorskip("ruff")
    done = ruff("check", ".")
    assert done.returncode == 0, done.stdout


def test_everything_is_formatted():
    pytest.importorskip("ruff")
    done = ruff("format", "--check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_reads_notebooks(tmp_path):
    pytest.importorskip("ruff")
    document = json.loads(NOTEBOOKS[0].read_text())
    document["cells"].append(
        document["cells"][-1]
        | {
            "cell_type": "code",
            "id": "bad",
            "source": ["import os"],
            "outputs": [],
            "execution_count": None,
            "metadata": {},
        }
    )
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps(document))
    done = ruff("check", "--config", str(ROOT / "pyproject.toml"), str(path))
    assert "F401" in done.stdout and "bad.ipynb:cell" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_canonical_form(path):
    text = path.read_text(encoding="utf-8")
    assert text == canonical.canonical(json.loads(text)), "run make format"


def test_the_canonical_form_drops_results_of_a_run_and_keeps_sources(tmp_path, capsys):
    text = NOTEBOOKS[0].read_text(encoding="utf-8")
    document = json.loads(text)
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "/home/me"}]
        cell["metadata"] |= {"execution": {"iopub.status.busy": "2026"}, "collapsed": True}
    code[0]["id"] = code[1]["id"]
    document["metadata"]["widgets"] = {"state": {}}
    path = tmp_path / "run.ipynb"
    path.write_text(json.dumps(document))
    assert canonical.main([str(path)]) == 1 and "run.ipynb: not in" in capsys.readouterr().out
    assert canonical.main(["--fix", str(path)]) == 0
    assert canonical.main([str(path)]) == 0
    fixed = json.loads(path.read_text())
    assert "/home/me" not in path.read_text() and fixed["metadata"] == json.loads(text)["metadata"]
    assert [c["source"] for c in fixed["cells"]] == [c["source"] for c in json.loads(text)["cells"]]
    assert len({cell["id"] for cell in fixed["cells"]}) == len(fixed["cells"])


def test_the_canonical_form_folds_the_cell_of_parameters_and_no_other(tmp_path):
    document = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    for cell in document["cells"]:
        cell["metadata"].pop("jupyter", None)
    path = tmp_path / "unfolded.ipynb"
    path.write_text(json.dumps(document))
    assert canonical.main(["--fix", str(path)]) == 0
    cells = json.loads(path.read_text())["cells"]
    folded = [cell for cell in cells if "jupyter" in cell["metadata"]]
    assert [cell["metadata"]["tags"] for cell in folded] == [["parameters"]]
    assert folded[0]["metadata"]["jupyter"] == {"source_hidden": True}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_a_clone_has_the_committed_bytes_even_if_git_converts_line_endings(tmp_path, setting):
    def git(*arguments, **options):
        command = ["git", "-C", tmp_path, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
        return done.stdout.splitlines()

    git("clone", "-q", "-c", setting, ROOT, tmp_path / "clone")
    tracked = [line.split(maxsplit=3) for line in git("-C", "clone", "ls-files", "-s")]
    paths = "\n".join(path for *_, path in tracked)
    found = git("-C", "clone", "hash-object", "--no-filters", "--stdin-paths", input=paths)
    changed = [path for (_, blob, _, path), now in zip(tracked, found, strict=True) if blob != now]
    assert tracked and changed == []


def prose(path):
    """Return the text of a page without its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"^```.*?^```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.S | re.M)


def broken_links(path, text):
    """Return relative links to missing files, and links to missing anchors."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        page = (path.parent / target).resolve() if target else path
        if not page.exists() or not page.is_relative_to(ROOT):
            broken.append(link)
        elif anchor and page.suffix in (".md", ".ipynb"):
            headings = re.findall(r"^#+ +(.*?) *$", prose(page), re.M)
            names = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            if anchor.lower() not in names:
                broken.append(link)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_internal_links_lead_somewhere(path):
    assert broken_links(path, prose(path)) == []


def test_the_link_check_bites():
    text = "[a](README.md) [b](no.md) [c](README.md#two-commands) [d](README.md#three) [e](../x)"
    assert broken_links(ROOT / "README.md", text) == ["no.md", "README.md#three", "../x"]


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe(source):
    """Return the parts of a source that could run code from a file or an argument."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] in UNSAFE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNSAFE:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name == "torch.load" and given.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False" or name.endswith("read_pickle"):
                found.append(f"{name} unpickles")
            if name in ("os.system", "os.popen") or given.get("shell", "False") != "False":
                found.append(f"{name} starts a shell")
    return found


def sources():
    yield from ((path, path.read_text()) for path in sorted((ROOT / "lrscan").rglob("*.py")))
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        yield path, "\n\n".join("".join(cell["source"]) for cell in cells)


def test_nothing_is_unpickled_and_no_shell_is_started():
    assert {path.name: found for path, source in sources() if (found := unsafe(source))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "pandas.read_pickle(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_check_for_unsafe_calls_bites(source):
    assert len(unsafe(source)) == 1
    assert unsafe("torch.load(f, weights_only=True)\nsubprocess.run(['ls'])") == []
