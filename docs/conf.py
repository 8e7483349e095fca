"""Sphinx settings of the book, which ``docs/book.py`` stages and builds without a network."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

from lrscan import __version__

project = "lrscan"
author = "The lrscan authors"
version = release = __version__
copyright = "The lrscan authors; code under the MIT licence, text under CC BY 4.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design"]
exclude_patterns = ["README.md"]  # the front page includes a part of it
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # lrscan run has already executed them
nb_output_stderr = "remove"  # for example, notices that kernels are being compiled
nb_ipywidgets_js = {}  # otherwise each page would fetch scripts from the network
nb_merge_streams = True

default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
toc_object_entries = False

html_theme = "pydata_sphinx_theme"
html_title = "lrscan"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Pages link to the repository only if pyproject.toml gives its address.
pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
if repository := pyproject["project"].get("urls", {}).get("Repository"):
    link = {"name": "Repository", "url": repository, "icon": "fa-solid fa-code-branch"}
    html_theme_options["icon_links"] = [link]


def setup(app):
    """Render formulas as MathML, and give images the alternative texts of their figures."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("doctree-read", _describe_images)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


html_math_renderer = "mathml"


def _inline(writer, node):
    writer.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def _block(writer, node):
    latex = re.sub(r"\\(?:begin|end)\{(?:equation|align)\*?\}", "", node.astext())
    writer.body.append('<div class="math-block">')
    writer.body.append(latex2mathml.converter.convert(latex, display="block") + "</div>\n")
    raise nodes.SkipNode


def _describe_images(app, doctree):
    """Give each image of a notebook the alternative text that was saved with its figure."""
    texts = json.loads((Path(app.srcdir) / "alt.json").read_text())
    for image in doctree.findall(nodes.image):
        if image.get("alt"):
            continue
        path = Path(app.srcdir) / image["uri"]
        path = path if path.is_file() else Path(image["uri"])
        image["alt"] = texts.get(hashlib.sha256(path.read_bytes()).hexdigest(), "")
