"""Catalog of the notebooks: their names, their parameters, and the values from a profile.

The name of a notebook is its path below ``notebooks/``, without the suffix, such as
``reproduce/02_kernel_speedup``. Notebooks are read as JSON, so this module does not need Jupyter.
"""

import ast
import json
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("learn", "reproduce")  # in the order of execution
FORMAT = 4  # the major version that Jupyter has written since 2015
TIMEOUT = "timeout_s"  # the only key of a profile that is not a parameter
MEASURE = "measure"  # the parameter that says whether to measure or to read records


class ParameterError(ValueError):
    """Error for an unknown notebook or parameter, or for an invalid value."""


@dataclass(frozen=True)
class Notebook:
    """A source notebook.

    Attributes:
        name: the path below ``notebooks/``, without the suffix
        path: the file
        cells: the cells, as in the file
        defaults: the parameters, with the values that they have when a person opens the notebook
        kernel: the kernel that the notebook names
        broken: why the notebook cannot run, if the file is not a valid notebook; it then has no
            cells
    """

    name: str
    path: Path
    cells: list[dict[str, Any]]
    defaults: dict[str, Any]
    kernel: str | None = None
    broken: str | None = None

    @property
    def title(self) -> str:
        """The first line of the first cell, ``# Title``; the name if there is none."""
        found = re.match(r"# (.+)", self._opening)
        return found[1].strip() if found else self.name

    @property
    def summary(self) -> str:
        """The sentence in italics below the title, on one line; empty if there is none.

        The book and ``lrscan list`` show it, so a notebook is described in one place.
        """
        found = re.match(r"# .+\n+\*([^*].*?)\*(?:\n\n|$)", self._opening, re.S)
        return " ".join(found[1].split()) if found else ""

    @property
    def _opening(self) -> str:
        return self.cells[0]["source"] if self.cells else ""

    def measures(self, parameters: Mapping[str, Any]) -> bool:
        """Return True if the notebook takes measurements, and must therefore run alone.

        It does if its parameter ``measure`` is true and its code reads that parameter.
        """
        return bool(parameters.get(MEASURE)) and any(
            cell["cell_type"] == "code" and re.search(rf"\b{MEASURE}\b", cell["source"])
            for cell in self.cells
            if "parameters" not in cell.get("metadata", {}).get("tags", [])
        )


@dataclass(frozen=True)
class Profile:
    """A profile in ``profiles.toml``: values for the parameters of all notebooks."""

    name: str
    timeout_s: int | None
    parameters: dict[str, dict[str, Any]]


def discover(root: Path) -> list[Notebook]:
    """Return the project's notebooks, in the order of execution.

    A notebook that cannot run is included, and its attribute ``broken`` says why. It does not keep
    the others from running.
    """
    folders = (root / "notebooks" / folder for folder in FOLDERS)
    paths = [path for folder in folders for path in sorted(folder.glob("[!.]*.ipynb"))]
    return [_load(path, root.resolve() / "notebooks") for path in paths]


def select(notebooks: list[Notebook], prefixes: Iterable[str]) -> list[Notebook]:
    """Return the notebooks whose names begin with one of the prefixes; all if there is no prefix.

    Raises:
        ParameterError: a prefix selects nothing
    """
    prefixes = [prefix.removeprefix("notebooks/").removesuffix(".ipynb") for prefix in prefixes]
    for prefix in prefixes:
        if not any(notebook.name.startswith(prefix) for notebook in notebooks):
            there = ", ".join(notebook.name for notebook in notebooks) or "none"
            raise ParameterError(f"no notebook begins with {prefix!r}; there are: {there}")
    return [n for n in notebooks if not prefixes or n.name.startswith(tuple(prefixes))]


def whole(notebook: Notebook) -> Notebook:
    """Return the notebook, or raise an error if it is broken.

    Raises:
        ParameterError: the notebook is broken
    """
    if notebook.broken:
        raise ParameterError(f"{notebook.name} is broken: {notebook.broken}")
    return notebook


def load_profile(root: Path, name: str, notebooks: list[Notebook]) -> Profile:
    """Load a profile, and check it against all notebooks.

    Raises:
        ParameterError: ``profiles.toml`` cannot be read or has no such profile; or the profile
            names an unknown notebook or parameter, or has a value of the wrong type
    """
    try:
        text = (root / "notebooks" / "profiles.toml").read_text(encoding="utf-8")
        profiles = tomllib.loads(text)
    except OSError as error:
        raise ParameterError(f"profiles.toml: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"profiles.toml: {error}") from None
    if not isinstance(profiles.get(name), dict):
        there = ", ".join(key for key in profiles if isinstance(profiles[key], dict)) or "none"
        raise ParameterError(f"profiles.toml has no profile {name!r}; there are: {there}")
    known = {notebook.name for notebook in notebooks}
    tables = {key: value for key, value in profiles[name].items() if isinstance(value, dict)}
    if unknown := set(tables) - known:
        raise ParameterError(f"profile {name}: no notebook is called {sorted(unknown)[0]!r}")
    common = {key: value for key, value in profiles[name].items() if key not in tables}
    timeout = common.pop(TIMEOUT, None)
    if timeout is not None and (type(timeout) is not int or timeout < 1):
        raise ParameterError(f"profile {name}: {TIMEOUT} is {timeout!r}, expected a positive int")
    parameters = {}
    for notebook in notebooks:
        given = {} if notebook.broken else common | tables.get(notebook.name, {})
        checked = {key: _check(notebook, key, value) for key, value in given.items()}
        parameters[notebook.name] = notebook.defaults | checked
    return Profile(name, timeout, parameters)


def override(
    parameters: Mapping[str, Mapping[str, Any]],
    notebooks: list[Notebook],
    assignments: Iterable[str],
) -> dict[str, dict[str, Any]]:
    """Return the parameters of the given notebooks after assignments of the form ``NAME=VALUE``.

    Raises:
        ParameterError: an assignment has no ``=``, a notebook does not have the parameter, or the
            value does not have the parameter's type
    """
    result = {notebook.name: dict(parameters[notebook.name]) for notebook in notebooks}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ParameterError(f"write a parameter as NAME=VALUE, not {assignment!r}")
        for notebook in notebooks:
            if notebook.broken:
                continue
            default = _default(notebook, name)
            value = text if isinstance(default, str) else _parse(text)
            result[notebook.name][name] = _check(notebook, name, value)
    return result


def type_name(default: Any) -> str:
    """Return the type of a parameter as its default shows it, such as "list of int"."""
    if isinstance(default, list):
        return "list of " + " or ".join(dict.fromkeys(map(type_name, default)))
    return type(default).__name__


def _load(path: Path, home: Path) -> Notebook:
    """Load a notebook, which must be a file below the folder ``home``."""
    name = f"{path.parent.name}/{path.stem}"
    try:
        if not path.resolve().is_relative_to(home):
            raise ParameterError(
                "a link to a file outside notebooks/: only the project's own notebooks can run"
            )
        if not path.is_file():
            raise ParameterError("not a notebook: not a file, or a link that leads nowhere")
        return _read(name, path)
    except ParameterError as error:
        broken = str(error)
    except OSError as error:
        broken = f"not a notebook: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        broken = f"not a notebook: {type(error).__name__}: {error}"
    return Notebook(name, path, [], {}, broken=broken)


def _read(name: str, path: Path) -> Notebook:
    text = path.read_text(encoding="utf-8")
    if "\n<<<<<<< " in f"\n{text}":
        raise ParameterError("not a notebook: it contains conflict markers of a merge")
    document = json.loads(text)
    if (found := document["nbformat"]) != FORMAT:
        raise ParameterError(
            f"of notebook format {found!r}, not {FORMAT}: open it in JupyterLab and save it"
        )
    cells = [_cell(number, cell) for number, cell in enumerate(document["cells"], 1)]
    if not cells:
        raise ParameterError("it has no cells")
    metadata = document.get("metadata", {})
    spec = metadata.get("kernelspec", {})
    language = spec.get("language") or metadata.get("language_info", {}).get("name") or "python"
    if language.lower() != "python":
        raise ParameterError(
            f"its language is {language}, but only Python notebooks can run: choose a Python "
            "kernel in JupyterLab (Kernel > Change Kernel) and save it"
        )
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) > 1:
        raise ParameterError(f"{len(tagged)} cells are tagged parameters, expected one")
    defaults = _literals(tagged[0]["source"]) if tagged else {}
    return Notebook(name, path, cells, defaults, spec.get("name"))


def _cell(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell with its source as one string."""
    if cell["cell_type"] not in ("code", "markdown", "raw"):
        raise ValueError(f"cell {number} is of type {cell['cell_type']!r}")
    source = "".join(cell["source"])
    source.encode()  # text that is not valid Unicode can be neither run nor saved
    metadata = cell.get("metadata", {})
    list(metadata.get("tags", []))
    return cell | {"source": source, "metadata": metadata}


def _literals(source: str) -> dict[str, Any]:
    """Return the assignments in the cell of parameters."""
    values = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(name)], value=ast.expr() as value):
                    values[name] = ast.literal_eval(value)
                case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(f"line {statement.lineno} is not such an assignment")
            if not _has_type(values[name]):
                raise ValueError(f"{name} = {values[name]!r} has no type to check values against")
            _storable(values[name])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ParameterError(
            "the cell of parameters may hold only NAME = literal "
            f"(bool, int, float, str, or a non-empty list of them): {error}"
        ) from None
    return values


def _has_type(default: Any) -> bool:
    if isinstance(default, list):
        return bool(default) and all(map(_has_type, default))
    return isinstance(default, bool | int | float | str)


def _default(notebook: Notebook, name: str) -> Any:
    if name not in notebook.defaults:
        there = ", ".join(notebook.defaults) or "none"
        raise ParameterError(f"{notebook.name} has no parameter {name!r}; it has: {there}")
    return notebook.defaults[name]


def _check(notebook: Notebook, name: str, value: Any) -> Any:
    """Return the value if it has the parameter's type; an int becomes a float where expected."""
    default = _default(notebook, name)
    try:
        checked = _conform(value, default)
        _storable(checked)
        return checked
    except TypeError:
        raise ParameterError(
            f"{notebook.name}: parameter {name} is {_printable(value)}, "
            f"expected {type_name(default)}"
        ) from None
    except (ValueError, OverflowError) as error:
        raise ParameterError(
            f"{notebook.name}: parameter {name} is {_printable(value)}, "
            f"which JSON cannot represent: {error}"
        ) from None


def _storable(value: Any) -> None:
    """Raise an error for a value that JSON or UTF-8 cannot represent, such as NaN."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _printable(value: Any) -> str:
    """Return a value for a message, shortened if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with thousands of digits
        return f"of type {type(value).__name__}, and too long to print"


def _conform(value: Any, default: Any) -> Any:
    if isinstance(default, list) and isinstance(value, list):
        return [_conform_to_any(element, default) for element in value]
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is type(default) and not isinstance(default, list):
        return value
    raise TypeError


def _conform_to_any(value: Any, defaults: list[Any]) -> Any:
    for default in defaults:
        try:
            return _conform(value, default)
        except TypeError:
            continue
    raise TypeError


def _parse(text: str) -> Any:
    """Return a value from the command line: TOML or a Python literal, or else the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
        if set(document) == {"value"}:
            return document["value"]
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text  # of the wrong type, which the caller reports
    return list(value) if isinstance(value, tuple) else value
