"""Build the book from the executed notebooks: `python docs/book.py`, after `lrscan run`.

The pages are staged in build/book-source with the layout of the repository, so that links
between them hold in both, and written to build/book. Nothing is fetched.
"""

import base64
import hashlib
import inspect
import json
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sphinx.cmd.build import main as sphinx

import lrscan
from lrscan.experiments import claims
from lrscan.runner import catalog

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "book-source"
BOOK = ROOT / "build" / "book"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def main() -> int:
    """Stage and build; the exit status is 1 if anything is amiss."""
    every = catalog.discover(ROOT)
    executed = [ROOT / "build" / "notebooks" / f"{notebook.name}.ipynb" for notebook in every]
    if missing := [path.stem for path in executed if not path.is_file()]:
        print(f"not executed yet: {', '.join(missing)}; run: lrscan run", file=sys.stderr)
        return 1
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(BOOK, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    for name in PAGES:
        shutil.copy(ROOT / name, SOURCE / name)
    for name in ("LICENSE", "LICENSE-notebooks"):
        shutil.copy(ROOT / name, SOURCE / name)
    shutil.copytree(ROOT / "figures", SOURCE / "figures")
    texts, silent = {}, []
    guides = sorted((ROOT / "notebooks").rglob("[!.]*.md"))
    for path in guides:
        target = SOURCE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for notebook, path in zip(every, executed, strict=True):
        target = SOURCE / "notebooks" / f"{notebook.name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        document = as_shown(json.loads(path.read_text(encoding="utf-8")))
        target.write_text(json.dumps(document), encoding="utf-8")
        found, without = alternative_texts(document)
        texts |= found
        silent += [f"{notebook.name}: an image of cell {n} has no text" for n in without]
    (SOURCE / "alt.json").write_text(json.dumps(texts))
    for name, text in (pages(every, guides) | reference()).items():
        (SOURCE / name).parent.mkdir(exist_ok=True)
        (SOURCE / name).write_text(text, encoding="utf-8")
    for line in silent:
        print(line, file=sys.stderr)
    status = sphinx(
        [
            "-b",
            "html",
            "-q",
            "-W",
            "--keep-going",
            "-c",
            str(ROOT / "docs"),
            "-d",
            str(ROOT / "build" / "book-doctrees"),
            str(SOURCE),
            str(BOOK),
        ]
    )
    if not status and not silent:
        print("The book: build/book/index.html")
    return 1 if status or silent else 0


def alternative_texts(document: dict) -> tuple[dict[str, str], list[int]]:
    """The texts of a notebook's images by the hash of their bytes, and the cells without one."""
    texts, silent = {}, []
    for number, cell in enumerate(document["cells"], 1):
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                if kind not in output.get("data", {}):
                    continue
                data = base64.b64decode("".join(output["data"][kind]))
                text = output.get("metadata", {}).get(kind, {}).get("alt", "")
                if text.strip():
                    texts[hashlib.sha256(data).hexdigest()] = text
                else:
                    silent.append(number)
    return texts, silent


def as_shown(document: dict) -> dict:
    """A notebook without the parameters that only repeat the defaults, solutions folded away."""
    cells, before = [], set()
    for cell in document["cells"]:
        lines = set("".join(cell["source"]).split("\n")) - {"# Parameters"}
        tags = cell["metadata"].setdefault("tags", [])
        if "solution" in cell["metadata"]:
            tags.append("hide-input")
        if "injected-parameters" not in tags or lines != before:
            cells.append(cell)
        before = lines
    return document | {"cells": cells}


def pages(every: list[catalog.Notebook], guides: list[Path]) -> dict[str, str]:
    """The pages that are not in the repository: the front page and one for each section."""
    lessons, claimed = (
        [f"notebooks/{n.name}" for n in every if n.name.startswith(folder)]
        for folder in catalog.FOLDERS
    )
    lessons += [str(path.relative_to(ROOT).with_suffix("")) for path in guides]
    return {
        "index.md": front_page(),
        "lessons.md": "# Lessons\n\nOne idea each; no GPU is needed.\n\n" + contents(lessons),
        "reproduction.md": "# Reproduction\n\nOne claim of the paper each.\n\n" + contents(claimed),
        "project.md": "# Project\n\n" + contents(["CONTRIBUTING", "CHANGELOG"]),
    }


def front_page() -> str:
    """The claims table, and the way to everything else."""
    columns = {
        "id": "",
        "claim": "The paper's claim",
        "paper": "Its number",
        "ours": "Ours",
        "device": "On",
        "verdict": "Verdict",
    }
    rows = [list(columns.values()), ["---"] * len(columns)]
    for row in claims.table().to_dict("records"):
        rows.append([str(row[name]).replace("|", "\\|") for name in columns])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    sections = ["Start here <README>", "lessons", "reproduction", "api/index", "project"]
    return f"""# lrscan: a recurrence, in parallel over time

$$h_t = a_t\\, h_{{t-1}} + x_t$$

An operator for PyTorch, the lessons that explain it, and the paper it comes from, measured again:
E. Martin and C. Cundy, *Parallelizing Linear Recurrent Neural Nets Over Sequence Length* (ICLR
2018, [arXiv:1709.04057](https://arxiv.org/abs/1709.04057)).

## The paper's claims beside our measurements

Drawn up from the committed records. A row names the device that it was measured on; one that says
CPU says nothing about a GPU.

{table}

{contents(sections, "Contents")}"""


def contents(names: list[str], caption: str = "") -> str:
    """A table of contents of pages."""
    options = f":caption: {caption}\n" * bool(caption) + ":maxdepth: 1\n"
    entries = "\n".join(name if "<" in name else f"/{name}" for name in names)
    return f"```{{toctree}}\n{options}\n{entries}\n```\n"


def reference() -> dict[str, str]:
    """Pages for the public modules, each with the functions and classes of :func:`names`."""
    made = {}
    for module in public(lrscan):
        lines = [f"# {module.__name__}", "", "```{eval-rst}", f".. automodule:: {module.__name__}"]
        for name in names(module):
            kind = "class" if inspect.isclass(getattr(module, name)) else "function"
            lines += ["", f".. auto{kind}:: {module.__name__}.{name}"]
            lines += ["   :members:", "   :show-inheritance:"] * (kind == "class")
        made[f"api/{module.__name__}.md"] = "\n".join([*lines, "```", ""])
    listed = contents([name.removesuffix(".md") for name in made])
    made["api/index.md"] = f"# Reference\n\nThe operator first, then every module.\n\n{listed}"
    return made


def names(module: ModuleType) -> list[str]:
    """Public functions and classes of a module: those in ``__all__``, or else defined in it."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [n for n in vars(module) if not n.startswith("_")]
    return [
        name
        for name in listed
        if (thing := getattr(module, name, None))
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and (hasattr(module, "__all__") or thing.__module__ == module.__name__)
    ]


def public(module: ModuleType) -> Iterator[ModuleType]:
    """A module, and the public ones in it."""
    yield module
    listed = getattr(module, "__all__", ())
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        name = found.name.rpartition(".")[2]
        if name.startswith("_"):
            continue
        inner = import_module(found.name)
        if name in listed or hasattr(inner, "__all__"):
            yield from public(inner)


if __name__ == "__main__":
    sys.exit(main())
