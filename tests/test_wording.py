"""The project's prose: phrases that readers stumbled over stay out, and docstrings are valid RST.

A phrase is listed once somebody stumbled over it, with what to write instead. The list is no
substitute for reading a page aloud.
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
    """Everything in a file that a person may read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def slips(text):
    """(line number, phrase, what to write instead) of every listed phrase, also across lines."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[0], better)
        for pattern, better in SLIPS.items()
        # Comments wrap, too.
        for match in re.finditer(pattern.replace(" ", r"(?:\s+#?\s*)"), text, re.I)
    ]


def docstrings(path):
    """(name, line, docstring) of a module and everything in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (found := ast.get_docstring(node)):
            yield getattr(node, "name", path.stem), getattr(node, "lineno", 1), found


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PROSE, *NOTEBOOKS, *SOURCES], ids=name_of)
def test_no_phrase_that_readers_stumbled_over(path):
    assert slips(text_of(path)) == []


def test_the_check_sees_a_phrase_that_wraps():
    assert slips("reads 12\n    # bytes an element")
    assert not slips("reads a row and starts a thread")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_docstring_begins_with_a_verb_or_with_what_it_describes(path):
    found = [(line, text.split("\n")[0]) for _, line, text in docstrings(path)]
    assert [(n, text) for n, text in found if text.split()[0] in OPENINGS] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_docstring_is_restructured_text_in_the_style_of_google(path):
    """What napoleon makes of it, docutils reads without a complaint."""
    pytest.importorskip("sphinx")
    assert [
        (line, name, problem) for name, line, text in docstrings(path) for problem in problems(text)
    ] == []


def problems(text):
    """The complaints of docutils about a docstring, roles of Sphinx allowed."""
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
def test_a_bad_docstring_is_noticed(text):
    pytest.importorskip("sphinx")
    assert problems(text)
