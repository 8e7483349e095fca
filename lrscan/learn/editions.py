"""Two editions of the lessons, for students and with solutions, made from one source.

Run it in the root of the project::

    python -m lrscan.learn.editions build/editions

A notebook in ``notebooks/learn/`` shows the stub of an exercise and keeps the solution in the
metadata of the cell. The students' edition leaves the solutions out; the other one shows them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lrscan.runner import streams
from lrscan.runner.catalog import discover, whole


def student(document: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without its solutions."""
    cells = [_with(cell, cell["source"]) for cell in document["cells"]]
    return document | {"cells": cells}


def solved(document: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with its solutions instead of the stubs."""
    cells = []
    for cell in document["cells"]:
        solution = cell["metadata"].get("solution")
        lines = cell["source"] if solution is None else solution.splitlines(keepends=True)
        cells.append(_with(cell, lines))
    return document | {"cells": cells}


def _with(cell: dict[str, Any], source: Any) -> dict[str, Any]:
    metadata = {key: value for key, value in cell["metadata"].items() if key != "solution"}
    return cell | {"metadata": metadata, "source": source}


def write(root: Path, folder: Path) -> list[Path]:
    """Write both editions of every lesson into a folder, and return the files.

    Args:
        root:   the project, which contains ``notebooks/``
        folder: where ``student/`` and ``solutions/`` are created

    Raises:
        ValueError: there are no lessons below ``root``
    """
    lessons = [whole(n) for n in discover(root) if n.name.startswith("learn/")]
    if not lessons:
        raise ValueError(
            f"there are no lessons in {root / 'notebooks' / 'learn'}: run this in the root of the "
            "project"
        )
    written = []
    for lesson in lessons:
        document = json.loads(lesson.path.read_text(encoding="utf-8"))
        for name, edition in (("student", student), ("solutions", solved)):
            path = folder / name / lesson.path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(edition(document), indent=1, ensure_ascii=False)
            path.write_text(f"{text}\n", encoding="utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    streams.take_any_text()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lrscan.learn.editions FOLDER")
    try:
        for path in write(Path.cwd(), Path(sys.argv[1])):
            print(path)
    except ValueError as error:
        sys.exit(f"error: {error}")
