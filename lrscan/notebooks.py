"""The notebooks: which there are, their parameters, and the values a profile gives them.

A notebook is known by its path below `notebooks/`, without the suffix, such as
`reproduce/02_kernel_speedup`. It is read as JSON: nothing of Jupyter is needed here.
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("learn", "reproduce")  # in the order in which they are run
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
    """

    name: str
    path: Path
    cells: list[dict[str, Any]]
    defaults: dict[str, Any]
    kernel: str | None = None

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

    Raises
    ------
    ParameterError
        A file is not a notebook or a link to one elsewhere, or its cell of parameters holds
        more than literals.
    """
    folders = (root / "notebooks" / folder for folder in FOLDERS)
    paths = [path for folder in folders for path in sorted(folder.glob("[!.]*.ipynb"))]
    for path in paths:
        if not path.resolve().is_relative_to(root.resolve() / "notebooks"):
            raise ParameterError(
                f"{path.parent.name}/{path.stem} is a link to a file outside notebooks/: "
                "only the project's own notebooks are run"
            )
    return [_load(path) for path in paths]


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


def load_profile(root: Path, name: str, notebooks: list[Notebook]) -> Profile:
    """A profile, checked against all notebooks.

    Raises
    ------
    ParameterError
        `profiles.toml` cannot be read or has no such profile; or the profile names a
        notebook or a parameter that there is not, or gives a value of the wrong type.
    """
    try:
        profiles = tomllib.loads((root / "notebooks" / "profiles.toml").read_text())
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"profiles.toml: {error}") from None
    if name not in profiles:
        there = ", ".join(profiles) or "none"
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
        given = common | tables.get(notebook.name, {})
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
            default = _default(notebook, name)
            value = text if isinstance(default, str) else _parse(text)
            result[notebook.name][name] = _check(notebook, name, value)
    return result


def type_name(default: Any) -> str:
    """The type that a parameter's default stands for, such as "list of int"."""
    if isinstance(default, list):
        return "list of " + " or ".join(dict.fromkeys(map(type_name, default)))
    return type(default).__name__


def _load(path: Path) -> Notebook:
    name = f"{path.parent.name}/{path.stem}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell | {"source": "".join(cell["source"])} for cell in document["cells"]]
        kernel = document.get("metadata", {}).get("kernelspec", {}).get("name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(f"{name}: not a notebook: {error!r}") from None
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) > 1:
        raise ParameterError(f"{name}: {len(tagged)} cells are tagged parameters, expected one")
    defaults = _literals(name, tagged[0]["source"]) if tagged else {}
    return Notebook(name, path, cells, defaults, kernel)


def _literals(notebook: str, source: str) -> dict[str, Any]:
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
    except (ValueError, SyntaxError) as error:
        raise ParameterError(
            f"{notebook}: the cell of parameters holds NAME = literal only "
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
        return _conform(value, default)
    except TypeError:
        raise ParameterError(
            f"{notebook.name}: parameter {name} is {value!r}, expected {type_name(default)}"
        ) from None


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
    except tomllib.TOMLDecodeError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text  # of the wrong type: the caller says so
    return list(value) if isinstance(value, tuple) else value
