"""The project's prose: it has no phrase of the list SLIPS, and docstrings are valid RST.

SLIPS lists phrases that are hard to read, each with a better one. A text that passes may still be
hard to read, so read it aloud as well.
"""

import ast
import io
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COUNTED = (
    "bytes?|operations?|flops?|rounds?|barriers?|registers?|instructions?|threads?|columns?|steps?"
    "|tokens?|elements?|values?|numbers?|sweeps?|accesses|stores|roundings?|seconds?|minutes?"
    "|ms|us|GB|MiB|[0-9]"
)
OVER = (
    "element|step|round|barrier|column|thread|block|warp|lane|row|tile|chunk|call|process|rank"
    "|second|iteration|level|processor|sequence|panel|length|file|algorithm|seed|dtype"
)
SLIPS = {
    rf"\b(?:{COUNTED}) an? (?:{OVER})s?\b": "per: 12 bytes per element",
    r"\btold\b": "given, named, or said by whom",
    r"\bforetells?\b": "predicts",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bthousand million\b": "billion",
    r"\bthe like (?:is|holds|of)\b": "the same holds",
    r"\bof another kind\b": "say what differs",
    r"\binstances? of it\b": "subclass, or instance of a named class",
    r"\bbe held against\b": "say what is unfair about the comparison",
    r"\bin (?:the )?place of\b": "instead of",
    r"\ball in all\b": "in total",
    r"\breckon(?:s|ed)?\b": "estimate",
    r"\b(?:goes|go|gone|going) on (?:from|with)\b": "continue",
    r"\bbrings? home\b": "merge",
}
OPENINGS = ("What", "Whether", "That", "How", "Where", "Who", "Which", "As")
PROSE = sorted(
    path
    for pattern in ("*.md", ".github/**/*.md", "docs/**/*.md", "notebooks/**/[!.]*.md")
    for path in ROOT.glob(pattern)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/[!.]*.ipynb"))
SOURCES = sorted(
    path
    for folder in ("lrscan", "docs", "tools", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)


def text_of(path):
    """Return the text of a file; of a notebook, the sources of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def slips(text):
    """Return (line number, phrase, better phrase) for each listed phrase, also across lines."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[0], better)
        for pattern, better in SLIPS.items()
        # A phrase may wrap in a comment, where the next line begins with #.
        for match in re.finditer(pattern.replace(" ", r"(?:\s+#?\s*)"), text, re.I)
    ]


def docstrings(path):
    """Yield (name, line, docstring) of a module and of everything in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (found := ast.get_docstring(node)):
            yield getattr(node, "name", path.stem), getattr(node, "lineno", 1), found


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PROSE, *NOTEBOOKS, *SOURCES], ids=name_of)
def test_no_listed_phrase_occurs(path):
    assert slips(text_of(path)) == []


def test_a_phrase_that_wraps_is_found():
    assert slips("reads 12\n    # bytes an element")
    assert not slips("reads a row and starts a thread")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_docstring_begins_with_a_verb_or_a_noun_phrase(path):
    found = [(line, text.split("\n")[0]) for _, line, text in docstrings(path)]
    assert [(n, text) for n, text in found if text.split()[0] in OPENINGS] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_docstring_is_valid_in_google_style(path):
    """Docutils accepts the text that napoleon generates from the docstring."""
    pytest.importorskip("sphinx")
    assert [
        (line, name, problem) for name, line, text in docstrings(path) for problem in problems(text)
    ] == []


def problems(text):
    """Return the messages of docutils about a docstring; the roles of Sphinx are allowed."""
    from docutils import nodes
    from docutils.core import publish_doctree
    from docutils.parsers.rst import roles
    from sphinx.ext.napoleon import Config, GoogleDocstring

    def accepted(role, rawtext, text, *_, **__):
        return [nodes.literal(rawtext, text)], []

    for role in ("func", "class", "meth", "attr", "mod", "data", "exc", "obj", "doc", "ref"):
        roles.register_local_role(role, accepted)
    made = str(GoogleDocstring(text, Config(napoleon_use_ivar=True)))
    out = io.StringIO()
    publish_doctree(made, settings_overrides={"warning_stream": out, "report_level": 2})
    return [line for line in out.getvalue().splitlines() if line.startswith("<string>")]


@pytest.mark.parametrize("text", ["A *star.", "Title.\n\nArgs:\n    a: one\n\n  - two\n three"])
def test_invalid_markup_is_reported(text):
    pytest.importorskip("sphinx")
    assert problems(text)
