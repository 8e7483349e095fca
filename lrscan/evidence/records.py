"""Measurements on disk: tidy CSV rows, with their provenance in a JSON file beside them.

`<records>/<device>/<experiment>.csv` and `<experiment>.json`. What is read back equals
what was written, bit for bit: floats are written in their shortest exact form.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan.core.files import write_files
from lrscan.evidence import workspace

if TYPE_CHECKING:
    import pandas

IDENTITY = (
    "experiment",
    "device",
    "algorithm",
    "direction",
    "model",
    "dtype",
    "precision",
    "layout",
    "T",
    "B",
    "C",
    "seed",
    "profile",
)
# Timings: median and quartiles of `runs`, the bytes moved, and the time of a plain
# elementwise kernel that moves as many.
_TIMES = ("runs", "q1_ms", "median_ms", "q3_ms", "bytes", "reference_ms")
COLUMNS = (*IDENTITY, *_TIMES)
# Timings of a group of processes: of its slowest rank, and the bytes of one.
RANK_COLUMNS = (*IDENTITY, "ranks", *_TIMES)
# Accuracy checks: the largest error that was seen, and the bound it was held against.
ACCURACY_COLUMNS = (*IDENTITY, "error", "bound")
# Training: a row an iteration of a `run`, which is the name of its settings; `held_out` is the
# accuracy on fresh sequences, where it was taken; `steps` the length of its sequences, in a
# curriculum from `start_steps` up to T (0: there is none).
TRAINING_COLUMNS = (
    *IDENTITY,
    "run",
    "layers",
    "distractors",
    "initialisation",
    "rate",
    "start_steps",
    "iteration",
    "steps",
    "seconds",
    "loss",
    "accuracy",
    "gradient_norm",
    "held_out",
)
_SCHEMAS = (COLUMNS, RANK_COLUMNS, ACCURACY_COLUMNS, TRAINING_COLUMNS)

_INTEGERS = frozenset(
    {"T", "B", "C", "seed", "ranks", "runs", "bytes", "layers", "iteration"}
    | {"start_steps", "steps"}
)
_FLOATS = frozenset(
    {"q1_ms", "median_ms", "q3_ms", "reference_ms", "error", "bound"}
    | {"rate", "seconds", "loss", "accuracy", "gradient_norm", "held_out"}
)


@dataclass(frozen=True, eq=False)
class Records:
    """One experiment's measurements on one device.

    experiment   its name
    device       the device's slug, such as "cpu-2-core"
    table        pandas DataFrame, a row a measurement, missing values where a column
                 does not apply
    provenance   {"experiment", "device", "measurements": [what provenance.collect returned]}
    path         the CSV file
    """

    experiment: str
    device: str
    table: "pandas.DataFrame"
    provenance: dict[str, Any]
    path: Path

    @property
    def device_label(self) -> str:
        """The device's name for figures: "CPU, 2 cores, AMD EPYC"."""
        return self.provenance["measurements"][-1]["device_label"]

    @property
    def on_gpu(self) -> bool:
        """Whether they were measured on a GPU."""
        return self.provenance["measurements"][-1]["device_type"] == "cuda"

    def rows(self) -> list[dict[str, Any]]:
        """The table as :func:`write` takes it: a mapping for each row, without missing values."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return [
            {name: value for name, value in row.items() if value is not None}
            for row in table.to_dict("records")
        ]

    @property
    def left(self) -> int:
        """How much of what was planned is not measured yet: shapes, or training runs."""
        return self.provenance["measurements"][-1].get("left", 0)


def say_left(provenance: dict[str, Any], left: int) -> None:
    """Note in a measurement's provenance how much is left, which :attr:`Records.left` reads."""
    provenance.pop("left", None)
    if left:
        provenance["left"] = left


def write(
    experiment: str,
    rows: Iterable[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    *,
    directory: Path | None = None,
) -> Records:
    """Write an experiment's rows and provenance, replacing what was there.

    Arguments
    ---------
    experiment   its name; the file's name
    rows         mappings from column to value; missing columns stay empty, and
                 `experiment`, `device` need not be given
    provenance   what `provenance.collect` returned
    directory    the folder with one folder a device; default: that of this run

    Returns
    -------
    Records
        Read back from the files.

    Raises
    ------
    ValueError
        A column is unknown, a value is NaN, there are no rows, or a row is of another device.
    TypeError
        A value does not have its column's type.
    """
    return _write(experiment, rows, [dict(provenance)], directory)


def add(
    experiment: str,
    rows: Iterable[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    *,
    key: tuple[str, ...],
    same: Callable[[Mapping[str, Any]], bool] | None = None,
    directory: Path | None = None,
) -> Records:
    """Write rows beside those that are there, replacing those that agree with them in ``key``.

    Arguments
    ---------
    experiment, rows, directory   as for `write`; all rows agree in ``key``
    provenance   what `provenance.collect` returned, of these rows
    key          the columns that tell one part of the records from another
    same         which provenance it replaces; default: the one with the same parameters

    Returns
    -------
    Records
        All of them, read back from the files.

    Raises
    ------
    ValueError, TypeError
        As `write`, and for rows that differ in ``key``.
    """
    workspace.check_name(experiment)
    rows = [dict(row) for row in rows]
    if len(parts := {tuple(row.get(name) for name in key) for row in rows}) > 1:
        raise ValueError(f"{experiment}: the rows are of {len(parts)} parts, not one")
    measurements = [dict(provenance)]
    folder = workspace.records_folder() if directory is None else Path(directory)
    if parts and (folder / provenance["device"] / f"{experiment}.csv").is_file():
        there = read(experiment, provenance["device"], directory=folder)
        part = parts.pop()
        rows = [row for row in there.rows() if tuple(row.get(name) for name in key) != part] + rows
        measurements = [
            one
            for one in there.provenance["measurements"]
            if not (same(one) if same else one["parameters"] == provenance["parameters"])
        ] + measurements
    return _write(experiment, rows, measurements, directory)


def _write(
    experiment: str,
    rows: Iterable[Mapping[str, Any]],
    measurements: list[dict[str, Any]],
    directory: Path | None,
) -> Records:
    workspace.check_name(experiment)
    import pandas

    whole = [dict(row) for row in rows]
    if not whole:
        raise ValueError(f"{experiment}: no rows to write")
    identity = {"experiment": experiment, "device": measurements[-1]["device"]}
    columns = _columns(experiment, whole)
    for row in whole:
        for name, value in identity.items():
            if row.setdefault(name, value) != value:
                raise ValueError(f"{experiment}: {name} is {value!r}, but a row has {row[name]!r}")
    table = pandas.DataFrame()
    for name in columns:
        values = [_checked(experiment, name, row.get(name)) for row in whole]
        table[name] = pandas.Series(values, dtype=_dtype(name))

    directory = workspace.records_folder() if directory is None else Path(directory)
    path = directory / identity["device"] / f"{experiment}.csv"
    document = identity | {"measurements": measurements}
    text = table.to_csv(index=False, lineterminator="\n")
    write_files({path: text, path.with_suffix(".json"): json_text(document)})
    return read(experiment, identity["device"], directory=directory)


def read(experiment: str, device: str, *, directory: Path | None = None) -> Records:
    """Read an experiment's records of a device.

    Arguments
    ---------
    experiment, device   their names
    directory            the folder with one folder a device; default: the committed records

    Raises
    ------
    FileNotFoundError
        There are none; the message says what there is.
    ValueError
        A column is unknown.
    """
    import pandas

    directory = workspace.committed_records() if directory is None else Path(directory)
    path = directory / device / f"{experiment}.csv"
    if not _both(path):
        there = ", ".join(f"{p.parent.name}/{p.stem}" for p in sorted(directory.glob("*/*.csv")))
        raise FileNotFoundError(
            f"no records of {experiment!r} on {device!r} (a .csv with its .json); "
            f"{workspace.relative(directory)} has: {there or 'nothing'}"
        )
    # Texts first: before pandas 3.1 its reader may round a float. "NA" is a text too.
    texts = pandas.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    _columns(experiment, [dict.fromkeys(texts)])
    table = texts.astype({name: _dtype(name) for name in texts})
    provenance = json.loads(path.with_suffix(".json").read_bytes())
    return Records(experiment, device, table, provenance, path)


def _both(path: Path) -> bool:
    """Whether there is a CSV file with its JSON."""
    return path.is_file() and path.with_suffix(".json").is_file()


def find(experiment: str, device: str, *, directory: Path) -> Records | None:
    """As :func:`read`, but None where there are no such records."""
    if not _both(directory / device / f"{experiment}.csv"):
        return None
    return read(experiment, device, directory=directory)


def devices(experiment: str) -> list[str]:
    """The devices with committed records of an experiment; none outside a checkout."""
    try:
        folder = workspace.committed_records()
    except workspace.WorkspaceError:
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{experiment}.csv"))


def json_text(value: Any) -> str:
    """JSON as it is committed: sorted keys, two spaces, one form for each value.

    Raises
    ------
    TypeError, ValueError
        A value has no exact JSON form.
    """
    return json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Numbers of NumPy and the like as Python's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"provenance holds plain values only, not {value!r}")


def _columns(experiment: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The schema that holds all columns of the rows."""
    given = dict.fromkeys(name for row in rows for name in row)
    for schema in _SCHEMAS:
        if set(given) <= set(schema):
            return schema
    known = {name for schema in _SCHEMAS for name in schema}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{experiment}: unknown column {', '.join(map(repr, unknown))}")
    mixed = [name for name in given if name not in IDENTITY]
    raise ValueError(f"{experiment}: timings and accuracy checks in one table: {', '.join(mixed)}")


def _checked(experiment: str, column: str, value: Any) -> float | int | str | None:
    """A value as it stands in the table; or the error that fits."""
    if value is None:
        return None
    if column in _FLOATS:
        if isinstance(value, Real) and not isinstance(value, bool):
            if math.isnan(value):  # it would read back as "not measured"
                raise ValueError(f"{experiment}: {column} is NaN")
            return float(value)
        expected = "a number"
    elif column in _INTEGERS:
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        expected = "a whole number"
    else:
        if isinstance(value, str):
            return value
        expected = "text"
    raise TypeError(f"{experiment}: {column} is {expected}, not {value!r}")


def _dtype(column: str) -> str:
    """The pandas dtype of a column."""
    return "Int64" if column in _INTEGERS else "float64" if column in _FLOATS else "string"
