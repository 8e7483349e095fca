"""Build the book from the executed notebooks: run ``lrscan run``, then ``python docs/book.py``.

The pages are staged in build/book-source with the layout of the repository, so that links between
them work in both places. The book is written to build/book. The build needs no network.
"""

import base64
import hashlib
import inspect
import json
import pkgutil
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sphinx.cmd.build import main as sphinx

import lrscan
from lrscan.experiments import claims
from lrscan.learn.scenes import draw, player
from lrscan.runner import catalog

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "book-source"
BOOK = ROOT / "build" / "book"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "LICENSE-notebooks")
# In the order in which a new user reads them.
GUIDE = (
    "installation",
    "operator",
    "models",
    "long_sequences",
    "several_devices",
    "running",
    "gpus",
    "teaching",
    "kernels",
    "glossary",
)


def main() -> int:
    """Stage the pages and build the book; return 1 if anything failed, else 0."""
    notebooks = catalog.discover(ROOT)
    executed = [ROOT / "build" / "notebooks" / f"{notebook.name}.ipynb" for notebook in notebooks]
    if missing := [path.stem for path in executed if not path.is_file()]:
        print(f"not executed yet: {', '.join(missing)}; run: lrscan run", file=sys.stderr)
        return 1
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(BOOK, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    for name in PAGES:
        shutil.copy(ROOT / name, SOURCE / name)
    shutil.copy(ROOT / "docs" / "index.md", SOURCE / "index.md")
    shutil.copytree(ROOT / "docs" / "guide", SOURCE / "docs" / "guide")
    shutil.copytree(ROOT / "figures", SOURCE / "figures")
    texts, silent = {}, []
    for notebook, path in zip(notebooks, executed, strict=True):
        document = as_shown(json.loads(path.read_text(encoding="utf-8")))
        link_pages(document)
        write(f"notebooks/{notebook.name}.ipynb", json.dumps(document))
        found, without = alternative_texts(document)
        texts |= found
        silent += [
            f"{notebook.name}: an image in cell {n} has no alternative text" for n in without
        ]
    write("alt.json", json.dumps(texts))
    for name, text in (pages(notebooks) | parts() | reference()).items():
        write(name, text)
    for line in silent:
        print(line, file=sys.stderr)
    options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    doctrees = ["-d", str(ROOT / "build" / "book-doctrees")]
    status = sphinx([*options, *doctrees, str(SOURCE), str(BOOK)])
    if not status and not silent:
        print("The book: build/book/index.html")
    return 1 if status or silent else 0


def write(name: str, text: str) -> None:
    """Write a file of the staged source, and create its folder if necessary."""
    path = SOURCE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def alternative_texts(document: dict) -> tuple[dict[str, str], list[int]]:
    """Return the alt texts of images, keyed by the hash of their bytes, and cells that lack one."""
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
    """Return a notebook as the book shows it: one folded cell of parameters, folded solutions."""
    cells = document["cells"]
    shown = []
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        tags = cell["metadata"].setdefault("tags", [])
        if following and "injected-parameters" in following["metadata"].get("tags", []):
            continue  # the next cell has the values of this run
        if "solution" in cell["metadata"] or set(tags) & {"parameters", "injected-parameters"}:
            tags.append("hide-input")
        shown.append(cell)
    return document | {"cells": shown}


def link_pages(document: dict) -> None:
    """Make links to notebooks in HTML outputs lead to their pages; Sphinx does so in text only."""
    for cell in document["cells"]:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                html = "".join(output["data"]["text/html"])
                linked = re.sub(r'(href="[^":]+)\.ipynb"', r'\1.html"', html)
                output["data"]["text/html"] = linked


def pages(notebooks: list[catalog.Notebook]) -> dict[str, str]:
    """Return the pages that list other pages: guide, lessons, reproduction, project."""
    lessons, claimed = (
        [notebook for notebook in notebooks if notebook.name.startswith(folder)]
        for folder in catalog.FOLDERS
    )
    made = {
        "guide": ["# Guide", contents([f"docs/guide/{name}" for name in GUIDE])],
        "lessons": [
            "# Lessons",
            "One idea each. You need some Python, but no GPU.",
            listed(lessons),
        ],
        "reproduction": ["# Reproduction", "The paper's claims, measured again.", listed(claimed)],
        "project": ["# Project", contents(["CONTRIBUTING", "CHANGELOG"])],
    }
    return {f"{name}.md": "\n\n".join(blocks) for name, blocks in made.items()}


def listed(notebooks: list[catalog.Notebook]) -> str:
    """Return a table of notebooks with their summaries, and a hidden table of contents."""
    rows = [
        f"| [{notebook.title}](notebooks/{notebook.name}.ipynb) | {notebook.summary} |"
        for notebook in notebooks
    ]
    toc = contents([f"notebooks/{notebook.name}" for notebook in notebooks], hidden=True)
    return "\n".join(["| notebook | what it does |", "|---|---|", *rows, "", toc])


def parts() -> dict[str, str]:
    """Return the generated parts of the front page, keyed by file name."""
    a, x = [1, 2, 0, 1, 1, 2, 1, 2], [3, 1, 4, 1, 5, 9, 2, 6]
    loop, scan = (draw.ALGORITHMS[name](a, x) for name in ("serial", "Hillis-Steele"))
    return {
        "generated/stepper.html": player.Player(loop, scan, autoplay=True).html(),
        "generated/claims.html": claims.compact_html(link="notebooks/{}.html".format),
    }


def contents(names: list[str], *, hidden: bool = False) -> str:
    """Return a table of contents of pages, as a ``toctree`` of Sphinx."""
    options = ":hidden:\n" * hidden + ":maxdepth: 1\n"
    return f"```{{toctree}}\n{options}\n" + "\n".join(f"/{name}" for name in names) + "\n```\n"


def reference() -> dict[str, str]:
    """Return a page per public module, with the functions and classes of :func:`names`."""
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
    """Return the public functions and classes of a module.

    These are the ones in ``__all__``; without it, those that the module itself defines.
    """
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
    """Yield a module and all public modules in it."""
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
