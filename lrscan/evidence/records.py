"""Measurements on disk: tidy CSV rows, with their provenance in a JSON file next to them.

The files are ``<records>/<device>/<experiment>.csv`` and ``<experiment>.json``. Values read back
equal the values written, bit for bit: floats are written in their shortest exact form.
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

__all__ = ["Records", "add", "devices", "find", "read", "write"]

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
# Timings: median and quartiles over `runs`, the bytes moved, and the time of a plain
# elementwise kernel that moves as many bytes.
_TIMES = ("runs", "q1_ms", "median_ms", "q3_ms", "bytes", "reference_ms")
COLUMNS = (*IDENTITY, *_TIMES)
# Timings of a group of processes: those of its slowest rank, and the bytes of one rank.
RANK_COLUMNS = (*IDENTITY, "ranks", *_TIMES)
# Accuracy checks: the largest error found, and the bound that it must not exceed.
ACCURACY_COLUMNS = (*IDENTITY, "error", "bound")
# Training: one row per iteration of a `run`, which is named after its settings. `held_out` is the
# accuracy on fresh sequences, in those iterations that measured it. `steps` is the length of the
# sequences: a curriculum raises it from `start_steps` to T; `start_steps` of 0 means no curriculum.
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
    """Measurements of one experiment on one device.

    Attributes:
        experiment: the experiment's name
        device: the device's name in paths, such as "cpu-2-core"
        table: a pandas DataFrame with one row per timing, accuracy check or training iteration;
            entries are missing where a column does not apply
        provenance: {"experiment": ..., "device": ..., "measurements": [...]}; each measurement is
            a result of :func:`lrscan.evidence.provenance.collect`
        path: the CSV file

    Example:
        >>> from lrscan.evidence import records
        >>> measured = records.read("call_cost", "h200")
        >>> measured.device_label, measured.on_gpu
        ('NVIDIA H200', True)
        >>> measured.rows()[0]["dtype"]
        'float32'
    """

    experiment: str
    device: str
    table: "pandas.DataFrame"
    provenance: dict[str, Any]
    path: Path

    @property
    def device_label(self) -> str:
        """The device's name for figures, such as "CPU, 2 cores, AMD EPYC"."""
        return self.provenance["measurements"][-1]["device_label"]

    @property
    def on_gpu(self) -> bool:
        """True if the measurements were taken on a GPU."""
        return self.provenance["measurements"][-1]["device_type"] == "cuda"

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as :func:`write` takes them: dictionaries without missing values."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return [
            {name: value for name, value in row.items() if value is not None}
            for row in table.to_dict("records")
        ]

    @property
    def left(self) -> int:
        """Number of planned shapes, or planned training runs, that are not measured yet."""
        return self.provenance["measurements"][-1].get("left", 0)


def say_left(provenance: dict[str, Any], left: int) -> None:
    """Store in a measurement's provenance how much is left to measure (:attr:`Records.left`)."""
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
    """Write an experiment's rows and provenance, and replace earlier files.

    Args:
        experiment: the name of the experiment, and of the files
        rows: mappings from column to value. Missing columns stay empty; "experiment" and "device"
            are filled in.
        provenance: a result of :func:`lrscan.evidence.provenance.collect`
        directory: the folder that has one folder per device; by default that of this run

    Returns:
        The records, read back from the files.

    Raises:
        ValueError: a column is unknown, a value is NaN, there are no rows, or a row belongs to
            another device or experiment
        TypeError: a value does not have the type of its column

    Example:
        >>> from pathlib import Path
        >>> from lrscan.evidence import provenance, records
        >>> row = {"algorithm": "serial", "T": 16, "runs": 5, "median_ms": 0.25}
        >>> origin = provenance.collect("cpu", {"lengths": [16]}, seed=0)
        >>> written = records.write("timing", [row], origin, directory=Path("records"))
        >>> written.table["median_ms"].tolist()
        [0.25]
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
    """Add rows to an experiment's records, and replace the rows with the same values of ``key``.

    Args:
        experiment: as for :func:`write`
        rows: as for :func:`write`; all rows have the same values in the columns ``key``
        provenance: a result of :func:`lrscan.evidence.provenance.collect` for these rows
        key: the columns that distinguish one part of the records from another
        same: returns True for each stored provenance that the new one replaces; by default those
            with the same parameters
        directory: as for :func:`write`

    Returns:
        All records of the experiment, read back from the files.

    Raises:
        ValueError: as for :func:`write`; or the rows differ in ``key``
        TypeError: as for :func:`write`

    Example:
        >>> from pathlib import Path
        >>> from lrscan.evidence import provenance, records
        >>> origin = provenance.collect("cpu", {}, seed=0)
        >>> for steps, ms in [(16, 0.25), (64, 0.5), (16, 0.125)]:
        ...     rows = [{"T": steps, "median_ms": ms}]
        ...     found = records.add("timing", rows, origin, key=("T",), directory=Path("records"))
        >>> [(row["T"], row["median_ms"]) for row in found.rows()]
        [(64, 0.5), (16, 0.125)]
    """
    workspace.check_name(experiment)
    rows = [dict(row) for row in rows]
    if len(parts := {tuple(row.get(name) for name in key) for row in rows}) > 1:
        names = ", ".join(key)
        raise ValueError(f"{experiment}: the rows differ in {names}; add each part by itself")
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
    """Read an experiment's records on a device.

    Args:
        experiment: the name of the experiment
        device: the device's name in paths, such as "cpu-2-core"
        directory: the folder that has one folder per device; by default the committed records

    Raises:
        FileNotFoundError: there are no such records; the message lists those that exist
        ValueError: a column is unknown

    Example:
        >>> from lrscan.evidence import records
        >>> measured = records.read("kernel_speedup", "h200")
        >>> print(*sorted(set(measured.table["direction"])))
        forward
    """
    import pandas

    directory = workspace.committed_records() if directory is None else Path(directory)
    path = directory / device / f"{experiment}.csv"
    if not _is_complete(path):
        there = ", ".join(f"{p.parent.name}/{p.stem}" for p in sorted(directory.glob("*/*.csv")))
        raise FileNotFoundError(
            f"no records of {experiment!r} on {device!r} (a .csv with its .json); "
            f"{workspace.relative(directory)} has: {there or 'nothing'}"
        )
    # Read text first: before version 3.1, pandas may round a float as it reads. "NA" is text, too.
    texts = pandas.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    _columns(experiment, [dict.fromkeys(texts)])
    table = texts.astype({name: _dtype(name) for name in texts})
    provenance = json.loads(path.with_suffix(".json").read_bytes())
    return Records(experiment, device, table, provenance, path)


def _is_complete(path: Path) -> bool:
    """Return True if a CSV file exists and has its JSON file."""
    return path.is_file() and path.with_suffix(".json").is_file()


def find(experiment: str, device: str, *, directory: Path) -> Records | None:
    """Read an experiment's records as :func:`read` does, or return None if there are none.

    Example:
        >>> from pathlib import Path
        >>> from lrscan.evidence import records
        >>> records.find("kernel_speedup", "abacus", directory=Path("records")) is None
        True
    """
    if not _is_complete(directory / device / f"{experiment}.csv"):
        return None
    return read(experiment, device, directory=directory)


def devices(experiment: str) -> list[str]:
    """Return the devices with committed records of an experiment; none outside a checkout.

    Example:
        >>> from lrscan.evidence import records
        >>> "h200" in records.devices("kernel_speedup")
        True
    """
    try:
        folder = workspace.committed_records()
    except workspace.WorkspaceError:
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{experiment}.csv"))


def json_text(value: Any) -> str:
    """Return a value as JSON in the form that is committed: sorted keys, two spaces of indentation.

    Raises:
        TypeError: a value is neither text nor a number, a list, a mapping, a bool or None
        ValueError: a number is NaN or infinite
    """
    return json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Convert numbers of NumPy and similar types to Python's own."""
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
    raise TypeError(f"provenance must hold JSON values only, not {value!r}")


def _columns(experiment: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the schema that has all columns of the rows."""
    given = dict.fromkeys(name for row in rows for name in row)
    for schema in _SCHEMAS:
        if set(given) <= set(schema):
            return schema
    known = {name for schema in _SCHEMAS for name in schema}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{experiment}: unknown column {', '.join(map(repr, unknown))}")
    mixed = [name for name in given if name not in IDENTITY]
    raise ValueError(f"{experiment}: no one table has all of these columns: {', '.join(mixed)}")


def _checked(experiment: str, column: str, value: Any) -> float | int | str | None:
    """Return a value as the table stores it, or raise an error that names the column."""
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
    raise TypeError(f"{experiment}: {column} must be {expected}, not {value!r}")


def _dtype(column: str) -> str:
    """Return the pandas dtype of a column."""
    return "Int64" if column in _INTEGERS else "float64" if column in _FLOATS else "string"
