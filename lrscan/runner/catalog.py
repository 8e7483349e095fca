"""The notebooks: which there are, their parameters, and the values a profile gives them.

A notebook is known by its path below `notebooks/`, without the suffix, such as
`reproduce/02_kernel_speedup`. It is read as JSON: nothing of Jupyter is needed here.
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

FOLDERS = ("learn", "reproduce")  # in the order in which they are run
FORMAT = 4  # the one in which notebooks are written since 2015
TIMEOUT = "timeout_s"  # the one key of a profile that is no parameter
MEASURE = "measure"  # the parameter: take measurements, or read records


class ParameterError(ValueError):
    """A notebook, a parameter or a value that there is not."""


@dataclass(frozen=True)
class Notebook:
    """A source notebook.

    name       its path below `notebooks/`, without the suffix
    path       the file
    cells      its cells, as in the file
    defaults   its parameters and their values when it is opened by hand
    kernel     the kernel that it asks for
    broken     why it cannot be run, for a file that is no notebook; it has no cells then
    """

    name: str
    path: Path
    cells: list[dict[str, Any]]
    defaults: dict[str, Any]
    kernel: str | None = None
    broken: str | None = None

    def measures(self, parameters: Mapping[str, Any]) -> bool:
        """Whether it takes measurements, and so wants the machine for itself.

        It does if its parameter `measure` is true and its code looks at it.
        """
        return bool(parameters.get(MEASURE)) and any(
            cell["cell_type"] == "code" and re.search(rf"\b{MEASURE}\b", cell["source"])
            for cell in self.cells
            if "parameters" not in cell.get("metadata", {}).get("tags", [])
        )


@dataclass(frozen=True)
class Profile:
    """A profile of `profiles.toml`: the values of every notebook's parameters."""

    name: str
    timeout_s: int | None
    parameters: dict[str, dict[str, Any]]


def discover(root: Path) -> list[Notebook]:
    """The project's notebooks, in the order in which they are run.

    One that cannot be run is among them, and `broken` says why: it keeps no other from being run.
    """
    folders = (root / "notebooks" / folder for folder in FOLDERS)
    paths = [path for folder in folders for path in sorted(folder.glob("[!.]*.ipynb"))]
    return [_load(path, root.resolve() / "notebooks") for path in paths]


def select(notebooks: list[Notebook], prefixes: Iterable[str]) -> list[Notebook]:
    """The notebooks whose names begin with one of the prefixes; all of them without any.

    Raises
    ------
    ParameterError
        A prefix selects nothing.
    """
    prefixes = [prefix.removeprefix("notebooks/").removesuffix(".ipynb") for prefix in prefixes]
    for prefix in prefixes:
        if not any(notebook.name.startswith(prefix) for notebook in notebooks):
            there = ", ".join(notebook.name for notebook in notebooks) or "none"
            raise ParameterError(f"no notebook begins with {prefix!r}; there are: {there}")
    return [n for n in notebooks if not prefixes or n.name.startswith(tuple(prefixes))]


def whole(notebook: Notebook) -> Notebook:
    """The notebook itself, where nothing can be done without it.

    Raises
    ------
    ParameterError
        It is broken.
    """
    if notebook.broken:
        raise ParameterError(f"{notebook.name} is broken: {notebook.broken}")
    return notebook


def load_profile(root: Path, name: str, notebooks: list[Notebook]) -> Profile:
    """A profile, checked against all notebooks.

    Raises
    ------
    ParameterError
        `profiles.toml` cannot be read or has no such profile; or the profile names a
        notebook or a parameter that there is not, or gives a value of the wrong type.
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
        raise ParameterError(f"profile {name}: {TIMEOUT} is {timeout!r}, expected int above 0")
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
    """The parameters of the given notebooks, with `NAME=VALUE` put in.

    Raises
    ------
    ParameterError
        An assignment has no `=`, one of the notebooks does not have the parameter, or the
        value does not have its type.
    """
    result = {notebook.name: dict(parameters[notebook.name]) for notebook in notebooks}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ParameterError(f"a parameter is given as NAME=VALUE, not {assignment!r}")
        for notebook in notebooks:
            if notebook.broken:
                continue
            default = _default(notebook, name)
            value = text if isinstance(default, str) else _parse(text)
            result[notebook.name][name] = _check(notebook, name, value)
    return result


def type_name(default: Any) -> str:
    """The type that a parameter's default stands for, such as "list of int"."""
    if isinstance(default, list):
        return "list of " + " or ".join(dict.fromkeys(map(type_name, default)))
    return type(default).__name__


def _load(path: Path, home: Path) -> Notebook:
    """A notebook below the folder `home`."""
    name = f"{path.parent.name}/{path.stem}"
    try:
        if not path.resolve().is_relative_to(home):
            raise ParameterError(
                "a link to a file outside notebooks/: only the project's own notebooks are run"
            )
        if not path.is_file():
            raise ParameterError("not a notebook: no file, or a link that leads nowhere")
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
        raise ParameterError("not a notebook: a merge left its conflict markers")
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
            f"its language is {language}, and only Python is run here: choose a Python kernel in "
            "JupyterLab (Kernel > Change Kernel) and save it"
        )
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) > 1:
        raise ParameterError(f"{len(tagged)} cells are tagged parameters, expected one")
    defaults = _literals(tagged[0]["source"]) if tagged else {}
    return Notebook(name, path, cells, defaults, spec.get("name"))


def _cell(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with its source in one text."""
    if cell["cell_type"] not in ("code", "markdown", "raw"):
        raise ValueError(f"cell {number} is of type {cell['cell_type']!r}")
    source = "".join(cell["source"])
    source.encode()  # what is no Unicode can be neither run nor saved
    metadata = cell.get("metadata", {})
    list(metadata.get("tags", []))
    return cell | {"source": source, "metadata": metadata}


def _literals(source: str) -> dict[str, Any]:
    """The assignments of a cell of parameters."""
    values = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(name)], value=ast.expr() as value):
                    values[name] = ast.literal_eval(value)
                case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(f"line {statement.lineno} is no assignment")
            if not _has_type(values[name]):
                raise ValueError(f"{name} = {values[name]!r} has no type to check values against")
            _storable(values[name])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ParameterError(
            "the cell of parameters holds NAME = literal only "
            f"(bool, int, float, str, or a list of them with an element): {error}"
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
    """The value, a whole number turned into a float where one is expected."""
    default = _default(notebook, name)
    try:
        checked = _conform(value, default)
        _storable(checked)
        return checked
    except TypeError:
        raise ParameterError(
            f"{notebook.name}: parameter {name} is {_told(value)}, expected {type_name(default)}"
        ) from None
    except (ValueError, OverflowError) as error:
        raise ParameterError(
            f"{notebook.name}: parameter {name} is {_told(value)}, which has no JSON: {error}"
        ) from None


def _storable(value: Any) -> None:
    """Refuse what no report or record could hold: JSON has no NaN, and UTF-8 no half a pair."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _told(value: Any) -> str:
    """A value for a message, however long it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
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
    """A value from the command line: TOML or a Python literal, else the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
        if set(document) == {"value"}:
            return document["value"]
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text  # of the wrong type: the caller says so
    return list(value) if isinstance(value, tuple) else value
