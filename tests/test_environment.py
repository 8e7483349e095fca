"""pyproject.toml, environment.yml, constraints.txt and similar files agree."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
ENVIRONMENT = (ROOT / "environment.yml").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()

PYTHONS = ("3.11", "3.12", "3.13")
LOCKED_EXTRAS = ("cu13", "notebooks", "test", "book", "browser")
CONDA_NAMES = {"torch": "pytorch"}


def requirements(pyproject: str, *extras: str) -> list[Requirement]:
    """Return the core requirements and those of the extras."""
    project = tomllib.loads(pyproject)["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def environment_drift(environment: str, pyproject: str) -> list[str]:
    """Return the differences of an environment.yml from the pyproject.toml, one line each."""
    wanted = {
        # NVIDIA's wheels of NVVM, ptxas and nvdisasm have no conda packages of the same names.
        CONDA_NAMES.get(r.name, r.name): r.specifier
        for r in requirements(pyproject, "notebooks", "test")
        if not r.name.startswith("nvidia-")
    }
    parsed = yaml.safe_load(environment)
    conda = [entry for entry in parsed["dependencies"] if isinstance(entry, str)]
    pip = [entry for entry in parsed["dependencies"] if not isinstance(entry, str)]
    drift = []
    if parsed["name"] != "lrscan":
        drift.append(f"the environment is called {parsed['name']}")
    if parsed["channels"] != ["conda-forge"]:
        drift.append(f"the channels are {parsed['channels']}")
    if pip != [{"pip": ["-e ."]}]:
        drift.append(f"pip installs {pip}")
    found = {}
    for entry in conda:
        name, bounds = re.fullmatch(r"([a-z0-9-]+)(.*)", entry).groups()
        if name in found:
            drift.append(f"{name} is there twice")
        found[name] = bounds
    python = found.pop("python", "none")
    supported = SpecifierSet(tomllib.loads(pyproject)["project"]["requires-python"])
    if not re.fullmatch(r"=3\.\d+", python) or python[1:] not in supported:
        drift.append(f"python is {python}, not one minor version of {supported}")
    if found.pop("pip", None) != "":
        drift.append("pip is missing or bounded")
    for name in sorted(wanted.keys() - found.keys()):
        drift.append(f"{name} is missing")
    for name in sorted(found.keys() - wanted.keys()):
        drift.append(f"{name} is not in pyproject.toml")
    for name in sorted(found.keys() & wanted.keys()):
        if SpecifierSet(found[name]) != wanted[name]:
            drift.append(f"{name} is {found[name] or 'unbounded'}, not {wanted[name]}")
    return drift


def lock_drift(constraints: str, pyproject: str) -> list[str]:
    """Return the pins that a constraints.txt lacks, or that the pyproject.toml does not allow."""
    pins = [Requirement(line) for line in constraints.splitlines() if not line.startswith("#")]
    drift = []
    for pin in pins:
        versions = list(pin.specifier)
        if pin.url or pin.extras or len(versions) != 1 or versions[0].operator != "==":
            drift.append(f"{pin} is not one version of one package")
        elif "*" in versions[0].version or Version(versions[0].version).local:
            drift.append(f"{pin} is not a public version")
    if drift:
        return drift
    toolkit = tomllib.loads(pyproject)["tool"]["uv"]["constraint-dependencies"]
    asked = requirements(pyproject, *LOCKED_EXTRAS) + [Requirement(line) for line in toolkit]
    for python in PYTHONS:
        target = {
            "python_version": python,
            "python_full_version": f"{python}.9",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        locked: dict[str, str] = {}
        for pin in pins:
            if pin.marker is None or pin.marker.evaluate(target):
                name = canonicalize_name(pin.name)
                if name in locked:
                    drift.append(f"{name} has two pins on Python {python}")
                locked[name] = next(iter(pin.specifier)).version
        for requirement in asked:
            version = locked.get(canonicalize_name(requirement.name))
            if version is None:
                drift.append(f"{requirement.name} has no pin on Python {python}")
            elif version not in requirement.specifier:
                drift.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return drift


def test_conda_environment_matches_pyproject():
    assert environment_drift(ENVIRONMENT, PYPROJECT) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param("  - seaborn>=0.13.2\n", "", "seaborn is missing", id="package-lost"),
        pytest.param("  - pip\n", "  - pip\n  - scipy\n", "scipy is not in", id="package-added"),
        pytest.param("pytorch>=2.11", "pytorch>=2.10", "pytorch is >=2.10", id="bound-lowered"),
        pytest.param("pytorch>=2.11", "pytorch", "pytorch is unbounded", id="bound-lost"),
        pytest.param("pytorch>=2.11", "torch>=2.11", "pytorch is missing", id="pypi-name"),
        pytest.param("python=3.12", "python=3.14", "python is =3.14", id="python-too-new"),
        pytest.param("python=3.12", "python>=3.12", "python is >=3.12", id="python-not-one"),
        pytest.param("- -e .", "- lrscan", "pip installs", id="not-this-tree"),
        pytest.param("- conda-forge", "- defaults", "the channels", id="other-channel"),
    ],
)
def test_conda_check_bites(old, new, complaint):
    assert ENVIRONMENT.count(old) == 1
    drift = environment_drift(ENVIRONMENT.replace(old, new), PYPROJECT)
    assert any(line.startswith(complaint) for line in drift), drift


def test_conda_check_bites_when_pyproject_changes():
    raised = PYPROJECT.replace('"pandas>=2.2"', '"pandas>=3"')
    assert environment_drift(ENVIRONMENT, raised) == ["pandas is >=2.2, not >=3"]


def test_lock_pins_what_pyproject_requires():
    assert lock_drift(CONSTRAINTS, PYPROJECT) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param(r"torch==2.*", "torch==2.13.0+cpu", "torch==2.13.0+cpu is not a public"),
        pytest.param(r"numba==.*", "numba>=0.61", "numba>=0.61 is not one version"),
        pytest.param(r"numba==.*", "numba==0.60.0", "numba 0.60.0 is not >=0.61"),
        pytest.param(r"rich==.*\n", "", "rich has no pin on Python 3.11"),
        pytest.param(r"rich==.*", "rich==15.0\nrich==14.0", "rich has two pins"),
        pytest.param(r"nvidia-nvvm==[^ ]*", "nvidia-nvvm==13.5.1", "nvidia-nvvm 13.5.1 is not"),
    ],
)
def test_lock_check_bites(old, new, complaint):
    changed, count = re.subn(f"(?m)^{old}", new, CONSTRAINTS)
    assert count == 1
    drift = lock_drift(changed, PYPROJECT)
    assert any(line.startswith(complaint) for line in drift), drift


def test_lock_names_no_machine_and_no_index():
    assert not re.search(r"https?:|file:|/|--", CONSTRAINTS)


def test_torch_and_numba_cuda_share_one_cuda():
    """The lock's toolkit satisfies torch. A second major version would have another name."""
    assert "cuda-toolkit==13.0.3" in CONSTRAINTS
    assert not re.search(r"(?m)^[a-z-]+-cu12==", CONSTRAINTS)


def test_binder_has_the_same_packages_and_a_torch_for_the_cpu():
    binder = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    whole = yaml.safe_load(ENVIRONMENT)
    assert binder["channels"] == whole["channels"]
    renamed = {"pytorch": "pytorch-cpu"}
    wanted = ["python=3.12", "pip"]
    for requirement in requirements(PYPROJECT, "notebooks"):
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        if name != "numba-cuda":
            wanted.append(f"{renamed.get(name, name)}{requirement.specifier}")
    assert binder["dependencies"] == wanted
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)
    assert script.read_text().splitlines()[-1] == "python -m pip install --no-deps -e ."


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="needs the .venv that make builds")
def test_what_is_installed_is_what_the_lock_says():
    pins = [Requirement(line) for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    pins = {pin.name: pin for pin in pins if not pin.marker or pin.marker.evaluate()}
    other = []
    # Not in what setuptools brings along and puts on the path once it is imported.
    folder = [sysconfig.get_path("purelib")]
    for found in importlib.metadata.distributions(path=folder):
        name = canonicalize_name(found.metadata["Name"])
        if name in pins and Version(found.version).public not in pins[name].specifier:
            other.append(f"{name} {found.version} is not {pins[name].specifier}")
        elif name not in pins and name not in ("lrscan", "pip", "setuptools"):
            other.append(f"{name} {found.version} is not in the lock")
    assert other == []


def test_setup_script_asks_for_the_same_python():
    supported = SpecifierSet(tomllib.loads(PYPROJECT)["project"]["requires-python"])
    script = (ROOT / "tools" / "venv.sh").read_text()
    bounds = re.search(r"\(3, (\d+)\) <= sys\.version_info\[:2\] < \(3, (\d+)\)", script)
    low, high = map(int, bounds.groups())
    accepted = [minor for minor in range(30) if f"3.{minor}" in supported]
    assert accepted == list(range(low, high))
    assert [f"3.{minor}" for minor in accepted] == list(PYTHONS)
    classifiers = tomllib.loads(PYPROJECT)["project"]["classifiers"]
    assert [c.split()[-1] for c in classifiers if ":: 3." in c] == list(PYTHONS)


def test_version_is_the_same_everywhere():
    version = tomllib.loads(PYPROJECT)["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert importlib.metadata.version("lrscan") == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_citation_prefers_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Martin", "Cundy"]
    assert paper["year"] == 2018
    assert "1709.04057" in paper["url"]


_NOTICE = """
import warnings
def pytest_configure():
    warnings.warn("{}")
"""


@pytest.mark.parametrize(
    ("notice", "status"),
    [("Benchmarks are automatically disabled because xdist plugin is active.", 0), ("Else.", 3)],
    ids=["pytest-benchmark", "another"],
)
def test_a_session_begins_beside_pytest_benchmark(notice, status, tmp_path):
    """It warns while pytest is being configured, when an error would end the session."""
    (tmp_path / "speaks.py").write_text(_NOTICE.format(notice))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "speaks"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "tests/train/test_tasks.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr


def addresses(text: str) -> set[str]:
    """Addresses of repositories called lrscan."""
    return set(re.findall(r"https?://[\w.-]+/[\w.-]+/lrscan\b", text))


def test_the_address_of_the_repository_is_that_of_pyproject_wherever_there_is_one():
    address = tomllib.loads(PYPROJECT)["project"].get("urls", {}).get("Repository")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CITATION.cff"]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        assert addresses(page.read_text()) <= {address}, page.name
    if address:
        assert f"repository-code: {address}" in (ROOT / "CITATION.cff").read_text()
        assert f"{address}/actions" in (ROOT / "README.md").read_text(), "the badge of CI"


def test_an_address_is_recognised():
    assert addresses("see https://github.com/somebody/lrscan.") == {
        "https://github.com/somebody/lrscan"
    }


def test_hooks_use_the_locked_versions():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    pinned = [pin for hook in hooks for pin in hook.get("additional_dependencies", [])]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "notebooks", "mypy"}
    assert pinned and set(pinned) <= set(CONSTRAINTS.split("\n"))


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert set(pythons) <= set(PYTHONS)
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert {"name", "description", "body"} <= set(yaml.safe_load(form.read_text()))
