"""Files in the notebooks' folder that are not notebooks."""

import json
import os
from pathlib import Path

CELL = {"cell_type": "code", "metadata": {}, "source": "1"}
DOCUMENT = {"cells": [CELL], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
MARKERS = '{\n<<<<<<< HEAD\n "cells": []\n=======\n>>>>>>> other\n}\n'
# Name of a case: (what to write, part of the error message).
BROKEN = {
    "empty": ("", "not a notebook"),
    "text": ("x", "not a notebook"),
    "deep": (100_000 * "[", "not a notebook"),
    "cut": (json.dumps(DOCUMENT)[:-9], "not a notebook"),
    "conflict": (MARKERS, "conflict markers"),
    "list": ([], "not a notebook"),
    "object": ({}, "not a notebook"),
    "format 3": ({"nbformat": 3, "worksheets": []}, "of notebook format 3, not 4"),
    "format 5": (DOCUMENT | {"nbformat": 5}, "of notebook format 5, not 4"),
    "no cells": (DOCUMENT | {"cells": []}, "it has no cells"),
    "cells are null": (DOCUMENT | {"cells": None}, "not a notebook"),
    "empty cell": (DOCUMENT | {"cells": [{}]}, "not a notebook"),
    "number for a source": (DOCUMENT | {"cells": [CELL | {"source": 5}]}, "not a notebook"),
    "unknown cell": (DOCUMENT | {"cells": [CELL | {"cell_type": "html"}]}, "type 'html'"),
    "no Unicode": (DOCUMENT | {"cells": [CELL | {"source": "'\ud800'"}]}, "not a notebook"),
    "null for metadata": (DOCUMENT | {"metadata": None}, "not a notebook"),
    "null for tags": (DOCUMENT | {"cells": [CELL | {"metadata": {"tags": None}}]}, "not a note"),
    "Latin-1": (json.dumps(DOCUMENT).replace("1", "\xe4").encode("latin-1"), "UnicodeDecodeError"),
    "UTF-16": (json.dumps(DOCUMENT).encode("utf-16"), "not a notebook"),
    "folder": (Path.mkdir, "not a file"),
    "dangling link": (lambda path: path.symlink_to("nowhere.ipynb"), "leads nowhere"),
    "link to itself": (lambda path: path.symlink_to(path.name), "not a notebook"),
    "link out": (lambda path: path.symlink_to(__file__), "a link to a file outside notebooks/"),
    "pipe": (os.mkfifo, "not a file"),
}


def break_notebook(path, what):
    """Create ``path`` from text, bytes or a JSON document, or let a function create it."""
    path.parent.mkdir(exist_ok=True)
    if callable(what):
        what(path)
    else:
        text = what if isinstance(what, str | bytes) else json.dumps(what)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
