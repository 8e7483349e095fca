"""How near the operator comes to the speed of memory, in every layout, beside its rivals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas
import torch

from lrscan.evidence import provenance, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import candidates, canvas, rivals, timing
from lrscan.experiments.cases import Case, cpu_cases, gpu_cases
from lrscan.experiments.registry import Experiment
from lrscan.experiments.resume import in_pieces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# At this size a GPU's memory reaches its full speed, and a larger one does not change it.
_LARGE_BYTES = 2**28
# The columns that tell one case of a dtype from another.
_CASE = ["layout", "T", "B", "C"]


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
    """Time of the operator in every layout, forward and backward, beside that of moving the bytes.

    Outputs are allocated beforehand, and compared before anything is timed. The reference reads and
    writes the same bytes: on a CPU ``torch.add`` forward, and backward a loop that reads three
    tensors and writes two; on a GPU a copy on the device. With ``compare`` other implementations
    are measured too, on the same numbers, forward. What was not available is in the provenance.
    With ``rivals_later`` the cases that have rivals are left for a call that resumes. ``resume``
    and ``until`` as for :func:`lrscan.experiments.resume.in_pieces`, with a piece for each case.
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
    """(rows, what was not available and why)"""
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
        calls.clear()  # frees what the rivals hold
    if where.type == "cuda":
        torch.cuda.empty_cache()
    shape = f"{case.dtype} {case.layout} {tuple(case.shape)}"
    return rows, missing | {f"{name}, {shape}": why for name, why in reasons.items()}


def summarise(records: Records) -> pandas.Series:
    """The share of the speed of memory that each row reached.

    It is the time of moving the row's bytes over the row's time. The first is the reference's,
    measured in the same run. On a GPU the fastest of the large copies of a run stands for all of
    them: some ways to make a copy are slow at some sizes, and a share above one would only say that
    such a way was taken.
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
    """Share of the speed of memory, for every layout and algorithm.

    A row of panels for each dtype, a column for each direction.
    """
    table = records.table.assign(share=summarise(records))
    table = table.sort_values(["T", "C"], kind="stable").sort_values(
        "layout", key=lambda layout: -layout.str.len(), kind="stable"
    )
    dtypes = list(records.table["dtype"].unique())
    most = max(len(part[_CASE].drop_duplicates()) for _, part in table.groupby("dtype"))
    height = max(4.0, 0.2 * most + 0.6)
    figure, panels = canvas.axes(len(dtypes), 2, width=5.0, height=height)
    algorithms = sorted(table["algorithm"].unique())
    colours = canvas.colours(len(algorithms))
    styles = list(zip(algorithms, colours, canvas.MARKERS * 2, strict=False))
    for (dtype, row), (direction, column) in canvas.grid(dtypes, ("forward", "backward")):
        panel, of_dtype = panels[row][column], table[table["dtype"] == dtype]
        part = of_dtype[of_dtype["direction"] == direction]
        order = of_dtype[_CASE].drop_duplicates().reset_index(drop=True)
        names = [_label(one) for one in order.itertuples()] if column == 0 else [""] * len(order)
        panel.axvline(1, c="0.6", lw=1)
        for algorithm, colour, marker in styles:
            one = part[part["algorithm"] == algorithm]
            at = order.merge(one, on=_CASE, how="left")["share"]
            if at.notna().any():
                panel.plot(at, order.index, marker, mfc="none", c=colour, label=algorithm)
        panel.set_yticks(order.index, names, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlim(0, None)
        panel.set_title(f"{dtype}, {direction}", fontsize=9)
        panel.set_xlabel("share of the speed of memory", fontsize=8)
    named: dict[str, Any] = {}
    for panel in panels.flat:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), fontsize=7, loc="outside right center")
    title = "Time to move the bytes over time of the recurrence\n"
    title += "TC: channels lie side by side; CT: time does"
    return canvas.labelled(figure, records, title)


def _label(row: Any) -> str:
    """A row of tensors: its layout and sizes."""
    batch = f", B {row.B:,}" if row.B > 1 else ""
    return f"{row.layout}  T {row.T:,}{batch}, C {row.C:,}"


EXPERIMENT = Experiment(
    name="throughput",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "elements", "runs", "compare"),
    options=("rivals_later",),
    resumes=True,
    figures={"throughput": plot},
)
