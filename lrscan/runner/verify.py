"""Whether figures, records and the manifest still belong together, to the byte.

The committed ones lie in `figures/`, those of the last ordinary run in `build/`.
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
    """Check everything, tell what is wrong, and return the exit status: 1 if anything is."""
    origin.check(root)
    notebooks = discover(root)
    problems, notes = check_notebooks(notebooks), list[str]()
    problems += check_files(root, root / "figures", root / "figures" / "records")
    # What a command measured lies in build/records too, before a notebook draws it.
    build = workspace.build_folder()
    problems += check_files(root, build / "figures", build / "records", every_record=False)
    if redraw and not problems:
        problems, notes = draw_again(root, notebooks, say)
    for line in notes:
        say(f"not compared: {line}")
    for line in problems:
        say(line)
    if problems:
        say(f"{len(problems)} problems")
    else:
        say("everything agrees" + ", and was drawn again" * (redraw and not notes))
    return 1 if problems else 0


def check_files(root: Path, folder: Path, records: Path, *, every_record: bool = True) -> list[str]:
    """What is wrong with a folder of figures and one of records, a sentence each.

    Recomputes every hash of the manifest, compares the provenance that each figure carries
    with that of its records, finds files that no entry vouches for, and looks for names of
    this machine.
    """
    where = folder / "manifest.json"
    try:
        manifest = read_manifest(where)
    except ValueError as error:
        return [f"{_say(root, where)}: not JSON: {error}"]
    problems = []
    vouched, broken = {where}, set()
    for name, entry in manifest.items():
        path = folder / name
        vouched.add(path)
        if lacking := [key for key in _ENTRY if key not in entry]:
            problems.append(f"{_say(root, path)}: the manifest lacks {', '.join(lacking)}")
            continue
        wrong = _compare(root, path, entry["sha256"])
        if wrong:
            broken.add(path)
        if entry["records"]:
            csv = workspace.locate(entry["records"]["path"])
            sidecar = csv.with_suffix(".json")
            vouched |= {csv, sidecar}
            wrong += _compare(root, csv, entry["records"]["sha256"])
            wrong += _compare(root, sidecar, entry["records"]["provenance_sha256"])
            if not wrong:
                wrong = _compare_provenance(root, path, sidecar)
        problems += wrong
    known = {*_files(folder), *(_files(records) if every_record else ())}
    for path in sorted(known - vouched):
        problems.append(f"{_say(root, path)}: no figure's entry in the manifest vouches for it")
    for path in sorted(vouched - broken):
        problems += _private(root, path)
    return list(dict.fromkeys(problems))


def check_notebooks(notebooks: list[Notebook]) -> list[str]:
    """Source notebooks that are broken, or name a folder of some machine."""
    return [f"{one.name}: {one.broken}" for one in notebooks if one.broken] + [
        f"{notebook.name}: cell {number} names {found[0]!r}, a folder of some machine"
        for notebook in notebooks
        for number, cell in enumerate(notebook.cells, 1)
        if (found := _HOMES.search(cell["source"]))
    ]


def draw_again(
    root: Path, notebooks: list[Notebook], say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Draw the committed figures from their records again, and compare the bytes.

    Each notebook of the manifest is executed with the parameters that stand there, but reads
    records instead of measuring; what it draws goes to a temporary folder.

    Returns
    -------
    tuple
        What is wrong; what could not be compared, because other versions drew it.
    """
    folder = root / "figures"
    known = {notebook.name: notebook for notebook in notebooks if not notebook.broken}
    groups: dict[tuple[str | None, str], list[str]] = {}
    manifest = read_manifest(folder / "manifest.json")
    problems, notes = [], []
    for name, entry in manifest.items():
        drawn_by = entry.get("versions") or dict.fromkeys(DRAWN_BY)
        if other := {p: v for p, v in drawn_by.items() if v != package_version(p)}:
            told = ", ".join(f"{package} {version}" for package, version in other.items())
            notes.append(f"figures/{name}: drawn with {told}; here another is installed")
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
    from lrscan.runner.client import Brake
    from lrscan.runner.outcome import PASSED, describe, expected

    outcome, brake = expected(notebook, parameters), Brake()
    with tempfile.TemporaryDirectory() as temporary, signals.handled(brake.pull):
        run = Context(figures=temporary, notebook=notebook.name)
        execution.execute(
            notebook,
            outcome,
            Path(temporary) / "executed.ipynb",
            timeout_s=None,
            # The project's own build folder may be one that cannot be written.
            environment={"LRSCAN_BUILD": temporary} | run.variables(),
            on_cell=lambda: None,
            brake=brake,
        )
        if brake.pulled:
            sys.exit(128 + brake.pulled)
        if outcome.verdict != PASSED:
            return ["; ".join(line.strip() for line in describe(outcome)[:2])]
        problems = []
        for name in names:
            again = Path(temporary) / name
            if not again.is_file():
                problems.append(f"figures/{name}: {notebook.name} does not draw it from records")
            elif digest(again) != digest(folder / name):
                problems.append(f"figures/{name}: drawn again from its records, it has other bytes")
    return problems


def _compare(root: Path, path: Path, wanted: str) -> list[str]:
    found = digest(path)
    if found is None:
        return [f"{_say(root, path)}: missing"]
    if found != wanted:
        return [f"{_say(root, path)}: changed (sha256 {found[:12]}, not {str(wanted)[:12]})"]
    return []


def _compare_provenance(root: Path, path: Path, sidecar: Path) -> list[str]:
    recorded = json.loads(sidecar.read_bytes())
    try:
        carried = json.loads(_carried(path)[-1])
    except (ValueError, IndexError):
        carried = None
    if carried == recorded:
        return []
    return [f"{_say(root, path)}: does not carry the provenance of {_say(root, sidecar)}"]


def _carried(path: Path) -> list[str]:
    """The texts inside a figure, the provenance last."""
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        return [element.text or "" for element in root.findall(_DESCRIPTION)]
    from PIL import Image

    with Image.open(path) as image:
        texts = getattr(image, "text", {})
        return [*texts.values(), *filter(None, [texts.get("Provenance")])]


def _private(root: Path, path: Path) -> Iterator[str]:
    """Folders, the host and the user of this machine in a file."""
    if not path.is_file():
        return
    text = "\n".join(_carried(path)) if path.suffix == ".png" else path.read_text(errors="replace")
    for name in [str(root.resolve()), *_names()]:
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
            yield f"{_say(root, path)}: names {name!r}, a folder, the host or the user"
    if found := _HOMES.search(text):
        yield f"{_say(root, path)}: names {found[0]!r}, a folder of some machine"


def _names() -> list[str]:
    """This machine's home folder, host and user, unless they are words that mean nothing."""
    names = {platform.node(), platform.node().partition(".")[0]}
    for one in (getpass.getuser, Path.home):
        with suppress(OSError, KeyError, RuntimeError):  # a container's user without an entry
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


def _say(root: Path, path: Path) -> str:
    return workspace.shown(path)
