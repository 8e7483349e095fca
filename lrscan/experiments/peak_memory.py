"""Peak memory of a training step, in one call and in pieces of time."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing as mp

from lrscan import nn, tasks
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.context import environment
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments.models import NAMES
from lrscan.experiments.registry import Experiment, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INPUT, _HIDDEN, _LAYERS = 128, 64, 2
# Linux resets the peak of a process that writes 5 to this file.
_CLEAR = Path("/proc/self/clear_refs")


def measure(*, seed: int, whole_steps: int, piece_steps: int) -> Records:
    """Measure the peak memory of a training step, in one call and in pieces of time, on the CPU.

    The model is a GILR-LSTM of two layers with 64 units on tokens, minibatch 1. Each of the two is
    measured in a process of its own, after kernels have been compiled: the number is what a step
    adds to the memory held before it. Freed blocks go back to the system at once, so the peak
    counts only memory in use.

    Args:
        seed:        of the tokens
        whole_steps: length of the sequence
        piece_steps: length of a piece
    """
    identity = {
        "direction": "training",
        "model": "GILRLSTM",
        "dtype": "float32",
        "layout": "TC",
        "T": whole_steps,
        "B": 1,
        "C": _HIDDEN,
        "seed": seed,
        "profile": workspace.profile(),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in ("whole", "pieces")}
        with environment(MALLOC_MMAP_THRESHOLD_="65536"):
            mp.spawn(_work, (paths, seed, whole_steps, piece_steps), nprocs=len(paths))
        rows = [{"algorithm": name, "bytes": int(path.read_text())} for name, path in paths.items()]
    parameters = {"whole_steps": whole_steps, "piece_steps": piece_steps}
    origin = provenance.collect("cpu", parameters, seed)
    return records.write("peak_memory", [identity | row for row in rows], origin)


def _work(
    number: int, paths: Mapping[str, Path], seed: int, whole_steps: int, piece_steps: int
) -> None:
    """Write to a file how much a step adds to the peak of this process."""
    torch.set_num_threads(1)
    name, path = list(paths.items())[number]
    net = nn.GILRLSTM(_INPUT, _HIDDEN, _LAYERS)

    def step(steps: int) -> None:
        tokens = tasks.problem_2b(steps, 1, seed=seed, width=_INPUT)[0]
        if name == "whole":
            last = net(tokens)[0][-1]
        else:
            last = nn.in_pieces(net, tokens, steps=piece_steps)[0]
        last.sum().backward()

    # The first step compiles. Where its peak cannot be reset, a small one does.
    step(whole_steps if _CLEAR.exists() else piece_steps)
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    before = _peak_bytes()
    step(whole_steps)
    path.write_text(str(_peak_bytes() - before))


def _peak_bytes() -> int:
    """Return the most memory that this process has held."""
    if _CLEAR.exists():
        status = Path("/proc/self/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found is None:
            raise RuntimeError("/proc/self/status has no VmHWM")
        return int(found[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


@own_settings()
def plot(records: Records) -> Figure:
    """Draw what a training step adds to the memory of its process, in one call and in pieces."""
    figure, ((panel,),) = canvas.axes(1, 1, height=1.25)
    table = records.table
    steps = records.provenance["measurements"][-1]["parameters"]["piece_steps"]
    names = {"whole": "in one call", "pieces": f"in pieces of {steps:,} steps"}
    mebibytes = dict(zip(table["algorithm"], table["bytes"] / 2**20, strict=True))
    colours = [canvas.look(name).colour for name in mebibytes]
    bars = panel.barh([names[one] for one in mebibytes], [*mebibytes.values()], color=colours)
    panel.bar_label(bars, fmt="%.0f MiB", padding=4, fontsize=canvas.TEXT)
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.grid(visible=False)
    panel.tick_params(axis="y", length=0, labelsize=canvas.TEXT)
    panel.set_xlabel("MiB at the peak of a training step")
    one: Any = next(table.itertuples())
    about = f"{NAMES.get(one.model, one.model)}, {one.T:,} time steps, {one.C} hidden units"
    title = f"In pieces a training step needs {mebibytes['pieces']:.0f} MiB"
    title += f" instead of {mebibytes['whole']:.0f} MiB"
    return canvas.labelled(figure, records, title, about, threads="1 thread")


EXPERIMENT = Experiment(
    name="peak_memory",
    notebook="reproduce/07_beyond_one_device",
    measure=measure,
    parameters=("seed", "whole_steps", "piece_steps"),
    figures={
        "peak_memory": Plot(
            plot,
            "Memory at the peak of a training step: one call takes many times as much as pieces "
            "of time.",
        ),
    },
)
