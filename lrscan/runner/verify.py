"""Verification that figures, records and the manifest still belong together, to the byte.

The committed files are in ``figures/``, those of the last ordinary run in ``build/``.
"""

import getpass
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lrscan.core.versions import package_version
from lrscan.evidence import origin, workspace
from lrscan.evidence.context import Context
from lrscan.evidence.figures import DRAWN_BY, read_manifest
from lrscan.runner import signals
from lrscan.runner.cache import digest
from lrscan.runner.catalog import Notebook, discover

_DESCRIPTION = ".//{http://purl.org/dc/elements/1.1/}description"
_HOMES = re.compile(r"(?:/home/|/Users/|/root/|[A-Z]:\\+Users\\+)[\w.-]+")
_ENTRY = (
    "alt",
    "commit",
    "dirty",
    "drawn_at",
    "duration_s",
    "notebook",
    "parameters",
    "provenance",
    "records",
    "seed",
    "sha256",
    "versions",
)


def run(root: Path, *, redraw: bool, say: Callable[[str], None]) -> int:
    """Check everything, print the problems, and return the exit status: 1 if there are any."""
    origin.check(root)
    notebooks = discover(root)
    problems, notes = check_notebooks(notebooks), list[str]()
    problems += check_files(root, root / "figures", root / "figures" / "records")
    # build/records also has measurements of commands, which no notebook may have drawn yet.
    build = workspace.build_folder()
    problems += check_files(root, build / "figures", build / "records", every_record=False)
    if redraw and not problems:
        problems, notes = draw_again(root, notebooks, say)
    for line in notes:
        say(f"not compared: {line}")
    for line in problems:
        say(line)
    if problems:
        say(f"{len(problems)} problem{'s' * (len(problems) != 1)}")
    else:
        say("everything agrees" + ", and redrawing gives the same bytes" * (redraw and not notes))
    return 1 if problems else 0


def check_files(root: Path, folder: Path, records: Path, *, every_record: bool = True) -> list[str]:
    """Return the problems of a folder of figures and a folder of records, one line per problem.

    This recomputes every hash in the manifest, compares the provenance in each figure with that of
    its records, finds files that no entry of the manifest names, and looks for names of this
    machine.
    """
    where = folder / "manifest.json"
    try:
        manifest = read_manifest(where)
    except ValueError as error:
        return [f"{_shown(root, where)}: not JSON: {error}"]
    problems = []
    listed, broken = {where}, set()
    for name, entry in manifest.items():
        path = folder / name
        listed.add(path)
        if missing := [key for key in _ENTRY if key not in entry]:
            problems.append(f"{_shown(root, path)}: the manifest lacks {', '.join(missing)}")
            continue
        wrong = _compare(root, path, entry["sha256"])
        if wrong:
            broken.add(path)
        if entry["records"]:
            csv = workspace.locate(entry["records"]["path"])
            sidecar = csv.with_suffix(".json")
            listed |= {csv, sidecar}
            wrong += _compare(root, csv, entry["records"]["sha256"])
            wrong += _compare(root, sidecar, entry["records"]["provenance_sha256"])
            if not wrong:
                wrong = _compare_provenance(root, path, sidecar)
        problems += wrong
    known = {*_files(folder), *(_files(records) if every_record else ())}
    for path in sorted(known - listed):
        problems.append(f"{_shown(root, path)}: no figure's entry in the manifest names this file")
    for path in sorted(listed - broken):
        problems += _names_of_machine(root, path)
    return list(dict.fromkeys(problems))


def check_notebooks(notebooks: list[Notebook]) -> list[str]:
    """Return the problems of source notebooks: broken ones, and those that name a local folder."""
    return [f"{one.name}: {one.broken}" for one in notebooks if one.broken] + [
        f"{notebook.name}: cell {number} names {found[0]!r}, a folder on somebody's machine"
        for notebook in notebooks
        for number, cell in enumerate(notebook.cells, 1)
        if (found := _HOMES.search(cell["source"]))
    ]


def draw_again(
    root: Path, notebooks: list[Notebook], say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Draw the committed figures from their records again, and compare the bytes.

    Each notebook in the manifest is executed with the parameters from the manifest, but reads
    records instead of measuring. Its figures go to a temporary folder.

    Returns:
        The problems; and the files that were not compared, because they were drawn with other
        versions of the packages than those installed here.
    """
    folder = root / "figures"
    known = {notebook.name: notebook for notebook in notebooks if not notebook.broken}
    groups: dict[tuple[str | None, str], list[str]] = {}
    manifest = read_manifest(folder / "manifest.json")
    problems, notes = [], []
    for name, entry in manifest.items():
        drawn_by = entry.get("versions") or dict.fromkeys(DRAWN_BY)
        if other := {p: v for p, v in drawn_by.items() if v != package_version(p)}:
            versions = ", ".join(f"{package} {version}" for package, version in other.items())
            notes.append(f"figures/{name}: drawn with {versions}; another version is installed")
            continue
        parameters = (entry["parameters"] or {}) | {"measure": False}
        key = (entry["notebook"], json.dumps(parameters, sort_keys=True))
        groups.setdefault(key, []).append(name)
    for (owner, text), names in groups.items():
        parameters = json.loads(text)
        if owner not in known or not parameters.keys() <= known[owner].defaults.keys():
            problems += [f"figures/{n}: there is no notebook {owner} to draw it" for n in names]
            continue
        say(f"drawing {len(names)} files of {owner} again ...")
        problems += _draw_one_again(folder, known[owner], parameters, names)
    return problems, notes


def _draw_one_again(
    folder: Path, notebook: Notebook, parameters: dict[str, Any], names: list[str]
) -> list[str]:
    from lrscan.runner import execution
    from lrscan.runner.client import CancelToken
    from lrscan.runner.outcome import PASSED, describe, expected

    outcome, token = expected(notebook, parameters), CancelToken()
    with tempfile.TemporaryDirectory() as temporary, signals.handled(token.cancel):
        run = Context(figures=temporary, notebook=notebook.name)
        execution.execute(
            notebook,
            outcome,
            Path(temporary) / "executed.ipynb",
            timeout_s=None,
            # The project's own build folder may be read-only.
            environment={"LRSCAN_BUILD": temporary} | run.variables(),
            on_cell=lambda: None,
            token=token,
        )
        if token.signal:
            sys.exit(128 + token.signal)
        if outcome.verdict != PASSED:
            return ["; ".join(line.strip() for line in describe(outcome)[:2])]
        problems = []
        for name in names:
            again = Path(temporary) / name
            if not again.is_file():
                problems.append(f"figures/{name}: {notebook.name} does not draw it from records")
            elif digest(again) != digest(folder / name):
                problems.append(
                    f"figures/{name}: its bytes change when it is redrawn from its records"
                )
    return problems


def _compare(root: Path, path: Path, wanted: str) -> list[str]:
    found = digest(path)
    if found is None:
        return [f"{_shown(root, path)}: missing"]
    if found != wanted:
        return [f"{_shown(root, path)}: changed (sha256 {found[:12]}, not {str(wanted)[:12]})"]
    return []


def _compare_provenance(root: Path, path: Path, sidecar: Path) -> list[str]:
    recorded = json.loads(sidecar.read_bytes())
    try:
        embedded = json.loads(_embedded_texts(path)[-1])
    except (ValueError, IndexError):
        embedded = None
    if embedded == recorded:
        return []
    return [f"{_shown(root, path)}: does not carry the provenance of {_shown(root, sidecar)}"]


def _embedded_texts(path: Path) -> list[str]:
    """Return the texts embedded in a figure; the provenance is last."""
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        return [element.text or "" for element in root.findall(_DESCRIPTION)]
    from PIL import Image

    with Image.open(path) as image:
        texts = getattr(image, "text", {})
        return [*texts.values(), *filter(None, [texts.get("Provenance")])]


def _names_of_machine(root: Path, path: Path) -> Iterator[str]:
    """Yield a problem for each folder, host name or user name of this machine in a file."""
    if not path.is_file():
        return
    text = (
        "\n".join(_embedded_texts(path))
        if path.suffix == ".png"
        else path.read_text(errors="replace")
    )
    for name in [str(root.resolve()), *_machine_names()]:
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
            yield f"{_shown(root, path)}: names {name!r}, a folder, the host or the user"
    if found := _HOMES.search(text):
        yield f"{_shown(root, path)}: names {found[0]!r}, a folder on somebody's machine"


def _machine_names() -> list[str]:
    """Return this machine's home folder, host and user, except short and generic names."""
    names = {platform.node(), platform.node().partition(".")[0]}
    for one in (getpass.getuser, Path.home):
        # In a container, the user may have no entry.
        with suppress(OSError, KeyError, RuntimeError):
            names.add(str(one()))
    return [n for n in names if len(n) > 3 and n not in ("localhost", "root", "user", "runner")]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if name.endswith((".csv", ".json", ".png", ".svg"))
    ]


def _shown(root: Path, path: Path) -> str:
    return workspace.shown(path)
