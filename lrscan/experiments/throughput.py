"""Share of the speed of memory that the operator and its rivals reach, in every layout."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas
import torch

from lrscan.evidence import provenance, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import candidates, canvas, rivals, timing
from lrscan.experiments.cases import Case, cpu_cases, gpu_cases
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.resume import in_pieces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# From this size on a GPU's memory reaches its full speed.
_LARGE_BYTES = 2**28
# The columns that identify a case, apart from the dtype.
_CASE = ["layout", "T", "B", "C"]
_DIRECTIONS = ("forward", "backward")


def measure(
    *,
    device: str,
    seed: int,
    elements: int,
    runs: int,
    compare: bool,
    rivals_later: bool = False,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Measure the time of the operator in every layout, and that of moving the same bytes.

    Forward and backward are measured. Outputs are allocated beforehand, and compared before
    anything is timed. The reference reads and writes the same bytes. On a GPU it is a copy on the
    device. On a CPU it is ``torch.add`` forward, and a loop that reads three tensors and writes two
    backward.

    Args:
        device:       "auto", "cpu" or "cuda"
        seed:         of the inputs
        elements:     of a tensor, about
        runs:         samples of each time
        compare:      measure other implementations too, forward, on the same numbers; the
                      provenance says which were not available
        rivals_later: leave the cases with rivals for a call that resumes
        resume:       see :func:`lrscan.experiments.resume.in_pieces`, with a piece for each case
        until:        likewise
    """
    where = provenance.resolve_device(device)
    parameters = {"elements": elements, "runs": runs, "compare": compare}
    cases = (gpu_cases if where.type == "cuda" else cpu_cases)(elements, compare)
    return in_pieces(
        "throughput",
        [case.identity for case in cases],
        lambda number: _measure_case(cases[number], where, seed, runs),
        provenance.collect(where, parameters, seed),
        resume=resume,
        until=until,
        later=[case.identity for case in cases if case.against and rivals_later],
    )


def _measure_case(
    case: Case, where: torch.device, seed: int, runs: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the rows of a case, and what was not available with the reasons."""
    a, x, dh, *outputs = candidates.tensors(case, where, seed)
    algorithms, missing = candidates.algorithms(case, where)
    forward, reasons = candidates.forward(case, algorithms, a, x, outputs[0])
    clocks = {name: rival.clock for name, rival in rivals.RIVALS.items()}
    rows = []
    for direction, moved, make in (
        ("forward", 3, lambda: forward),
        ("backward", 5, lambda: candidates.backward(case, algorithms, a, x, dh, outputs)),
    ):
        size = moved * x.element_size() * x.numel()
        calls = make()
        if where.type == "cuda":
            calls["reference"] = candidates.copy_on_device(size, where)
        timings = timing.time_all(calls, where, runs, clocks)
        reference = timings.pop("reference")
        common = case.identity | {
            "direction": direction,
            "seed": seed,
            "profile": workspace.profile(),
            "runs": runs,
            "bytes": size,
            "reference_ms": reference[1],
        }
        for algorithm, quartiles in timings.items():
            rows.append(common | {"algorithm": algorithm} | timing.columns(quartiles))
        calls.clear()  # frees the memory that rivals hold
    if where.type == "cuda":
        torch.cuda.empty_cache()
    shape = f"{case.dtype} {case.layout} {tuple(case.shape)}"
    return rows, missing | {f"{name}, {shape}": why for name, why in reasons.items()}


def summarise(records: Records) -> pandas.Series:
    """Return the share of the speed of memory that each row reached.

    The share is the time to move the row's bytes, which is that of the reference in the same run,
    over the row's time. On a GPU the speed of the fastest large copy is taken for all large rows:
    some copies are slow at some sizes, and a share above one would only say that the copy was.
    """
    table = records.table
    moving = table["reference_ms"]
    if records.on_gpu:
        large = table["bytes"] >= _LARGE_BYTES
        fastest = (moving / table["bytes"])[large].min()
        moving = moving.mask(large, table["bytes"] * fastest)
    return moving / table["median_ms"]


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the share of the speed of memory, for every layout and algorithm.

    A row of panels for each dtype, a column for each direction. A ring marks "auto", around the
    algorithm that it chooses.
    """
    table = records.table.assign(share=summarise(records))
    table = table.sort_values(["T", "C"], kind="stable").sort_values(
        "layout", key=lambda layout: -layout.str.len(), kind="stable"
    )
    dtypes = list(records.table["dtype"].unique())
    most = max(len(part[_CASE].drop_duplicates()) for _, part in table.groupby("dtype"))
    height = 0.17 * most + 0.75
    figure, panels = canvas.axes(len(dtypes), 2, height=height, sharex=True, sharey="row")
    names = [name for name in canvas.LOOKS if (table["algorithm"] == name).any()]
    for (row, dtype), (column, direction) in product(enumerate(dtypes), enumerate(_DIRECTIONS)):
        panel, of_dtype = panels[row][column], table[table["dtype"] == dtype]
        part = of_dtype[of_dtype["direction"] == direction]
        order = of_dtype[_CASE].drop_duplicates().reset_index(drop=True)
        panel.axvline(1, c=canvas.GREY, lw=1)
        for name in names:
            one = part[part["algorithm"] == name]
            at = order.merge(one, on=_CASE, how="left")["share"]
            panel.plot(at, order.index, c=canvas.look(name).colour, **_style(name))
        panel.set_yticks(order.index, [_label(one) for one in order.itertuples()])
        panel.tick_params(axis="y", labelsize=canvas.SMALL, length=0)
        if column == 0:
            panel.set_ylim(len(order) - 0.4, -0.6)
        canvas.subtitle(panel, f"{dtype}, {direction}")
    for panel in panels[-1]:
        panel.set_xlim(0, None)
        panel.set_xlabel("share of the speed of memory")
    key = [canvas.mark(name, canvas.look(name).colour, **_style(name)) for name in names]
    about = "Time to move the same bytes over the time of the recurrence. Axes and their sizes: "
    about += "the outermost first, the contiguous one last"
    return canvas.labelled(figure, records, _title(table), about, key)


def _style(name: str) -> dict[str, Any]:
    """Return the marker of an algorithm: a ring for "auto", full ones for all others."""
    marker = canvas.look(name).marker
    if name == "auto":
        return {"marker": marker, "ms": 9, "mfc": "none", "mew": 1.3, "ls": ""}
    return {"marker": marker, "ms": 5, "ls": ""}


def _title(table: pandas.DataFrame) -> str:
    """Return the finding: the range of "auto", forward, in every dtype."""
    rows = table[(table["algorithm"] == "auto") & (table["direction"] == "forward")]
    ranges = [
        (f"{100 * part.min():.0f} to {100 * part.max():.0f}%", dtype)
        for dtype, part in rows.groupby("dtype", sort=False)["share"]
    ]
    (first, dtype), *others = ranges
    text = f"A forward pass reaches {first} of the speed of memory in {dtype}"
    return ", ".join([text, *(f"{reached} in {name}" for reached, name in others)])


def _label(row: Any) -> str:
    """Return the layout and the sizes of tensors, in the order of their axes."""
    return f"{row.layout}  {' x '.join(f'{getattr(row, axis):,}' for axis in row.layout)}"


EXPERIMENT = Experiment(
    name="throughput",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "elements", "runs", "compare"),
    options=("rivals_later",),
    resumes=True,
    figures={
        "throughput": Plot(
            plot,
            "Share of the speed of memory that each algorithm reaches in every layout, "
            "forward on the left and backward on the right. A line marks a share of "
            "one.",
        ),
    },
)
