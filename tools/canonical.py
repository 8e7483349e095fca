"""Convert source notebooks to canonical form: ``python tools/canonical.py [--fix] [FILE]...``.

A notebook in canonical form has no outputs and no execution counts. Its only metadata are tags, the
solutions of exercises, the kernel's name, and the mark by which JupyterLab folds the cell of
parameters. Ids are unique, and the JSON is indented by one space. So a diff of a notebook shows
only what somebody changed.

With ``--fix`` the files are rewritten. Without it, the files that differ are named, and the exit
status is 1. The exit status is 2 if a named file does not exist.
"""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("tags", "solution")  # metadata of a cell; exercises have a solution
FOLDED = {"source_hidden": True}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def canonical(document: dict[str, Any]) -> str:
    """Return the text of a notebook in canonical form.

    Raises:
        KeyError: the document is not a notebook
    """
    cells = []
    taken: set[str] = set()
    for number, given in enumerate(document["cells"]):
        cell = copy.deepcopy(given)
        source = "".join(cell["source"])
        lines = [line.rstrip() for line in source.strip("\n").split("\n")]
        kept_metadata = {k: v for k, v in cell.get("metadata", {}).items() if k in KEPT and v}
        if "parameters" in kept_metadata.get("tags", []):
            kept_metadata["jupyter"] = FOLDED
        name = cell.get("id", "")
        if not name or name in taken:
            name = next(n for n in _names(number) if n not in taken)
        taken.add(name)
        kept = {
            "cell_type": cell["cell_type"],
            "id": name,
            "metadata": kept_metadata,
            "source": [f"{line}\n" for line in lines[:-1]] + [lines[-1]] * bool(lines[-1]),
        }
        if cell["cell_type"] == "code":
            kept |= {"execution_count": None, "outputs": []}
        elif "attachments" in cell:
            kept["attachments"] = cell["attachments"]
        cells.append(kept)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _names(number: int) -> Iterator[str]:
    yield f"cell-{number:02}"
    for letter in "abcdefghijklmnopqrstuvwxyz":
        yield f"cell-{number:02}{letter}"


def main(arguments: list[str]) -> int:
    fix = "--fix" in arguments
    named = [Path(argument) for argument in arguments if argument != "--fix"]
    for path in named:
        if not path.is_file():
            print(f"{path}: there is no such file")
            return 2
    differ = False
    for path in named or sorted((ROOT / "notebooks").glob("*/[!.]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        wanted = canonical(json.loads(text))
        if text == wanted:
            continue
        differ = True
        print(f"{path.name}: " + ("converted" if fix else "not in canonical form; run make format"))
        if fix:
            path.write_text(wanted, encoding="utf-8")
    return 1 if differ and not fix else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
