"""Scenes of memory: who reads and writes which cells, and who wants which bank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from lrscan.learn.machines.accesses import Log
from lrscan.learn.machines.banks import BANKS, ways
from lrscan.learn.scenes.scene import Arrow, Box, Scene, Shape, Text

LANES = 32
CELL = 0.5  # width of a bank


def accesses(log: Log, array: str, threads: int, cells: int, label: str = "") -> Scene:
    """Who reads and writes the cells of an array, from a log of the simulator.

    A row for each stretch between two barriers (a frame each): threads stand under the cells of
    their own number; black arrows are reads, orange ones writes into the row of cells below.
    Threads and cells beyond those asked for are left out.

    Args:
        log:            from the simulator
        array:          its name in the log, such as "shared 0" for the first shared array
        threads, cells: how many are drawn
        label:          what the array is called in the picture, if not by its name in the log
    """
    shapes: list[Shape] = []
    label = label or array
    captions = [f"{label}: {cells} cells, before the kernel."]
    own = [a for a in log.accesses if a.array == array and a.thread < threads and a.index < cells]
    epochs = sorted({a.epoch for a in own})
    high = 1.4  # height of a row
    for k in range(len(epochs) + 1):
        shapes.append(Text(-0.8, -2 * high * k, label, k, "right"))
        shapes += [Box(c, -2 * high * k, str(c), "input", k) for c in range(cells)]
    for k, epoch in enumerate(epochs):
        frame, y = k + 1, -(2 * k + 1) * high
        busy = sorted({(a.thread, a.kind, a.index) for a in own if a.epoch == epoch})
        shapes.append(Text(-0.8, y, "threads", frame, "right"))
        for thread in sorted({thread for thread, _, _ in busy}):
            shapes.append(Box(thread, y, f"t{thread}", "pair", frame))
        for thread, kind, index in busy:
            if kind == "read":
                shapes.append(Arrow(index, y + high, thread, y, frame=frame))
            else:
                shapes.append(Arrow(thread, y, index, y - high, "carry", frame))
        reads = sum(kind == "read" for _, kind, _ in busy)
        writes = len(busy) - reads
        noun = "barrier" if epoch == 1 else "barriers"
        captions.append(f"After {epoch} {noun}: {reads} reads (black), {writes} writes (orange).")
    return Scene(
        f"Reads and writes of {label} by {threads} threads",
        f"Cells of {label} in rows, threads between them, with an arrow for every access. "
        + " ".join(captions[1:]),
        captions,
        shapes,
    )


def launch(log: Log, arrays: dict[str, str], cells: int) -> Scene:
    """The reads of one array and the writes of another by one launch, a frame for each thread.

    Args:
        log:    from the simulator
        arrays: the name of the array that is read, and of the one that is written, as
                ``{"x": "reads", "x_out": "writes"}``
        cells:  how many cells are drawn
    """
    source, target = arrays
    shapes: list[Shape] = []
    for name, y in ((source, 0), (target, -2)):
        shapes.append(Text(-0.8, y, name, align="right"))
        shapes += [Box(c, y, str(c), "input") for c in range(cells)]
    captions = [f"{cells} cells before the launch."]
    for thread in sorted({access.thread for access in log.accesses}):
        own = [a for a in log.accesses if a.thread == thread]
        reads = [a.index for a in own if a.array == source and a.kind == "read"]
        writes = [a.index for a in own if a.array == target and a.kind == "write"]
        frame = len(captions)
        shapes.append(Box(thread, -1, f"t{thread}", "pair", frame))
        shapes += [Arrow(index, 0, thread, -1, frame=frame) for index in reads]
        shapes += [Arrow(thread, -1, index, -2, "carry", frame) for index in writes]
        captions.append(f"Thread {thread} reads {source}{reads} and writes {target}{writes}.")
    return Scene(
        f"What every thread reads of {source} and writes of {target}",
        "A row of cells that are read, a row of threads, a row of cells that are written, with "
        f"an arrow for every access. {' '.join(captions[1:])}",
        captions,
        shapes,
    )


def banks(index_of: Callable[[int, int], int], strides: Sequence[int], title: str) -> Scene:
    """A column for each bank, and in it the lanes that want it; a frame for each stride.

    Args:
        index_of: the cell that a lane touches, of (lane, stride)
        strides:  the strides that are drawn
        title:    of the picture
    """
    shapes: list[Shape] = []
    captions = []
    for bank in range(BANKS):
        shapes.append(Box(bank * CELL, 0, str(bank), "input", 0, CELL * 0.94, 0.4))
    shapes.append(Text(-0.5, 0, "bank", align="right"))
    for frame, stride in enumerate(strides):
        until = frame + 1 if frame + 1 < len(strides) else None
        indices = [index_of(lane, stride) for lane in range(LANES)]
        turns = ways(indices)
        columns: dict[int, int] = defaultdict(int)
        for lane, index in enumerate(indices):
            bank = index % BANKS
            columns[bank] += 1
            style = "pair" if columns[bank] == 1 else "carry"
            y = 0.36 * columns[bank] + 0.14
            box = Box(bank * CELL, y, str(lane), style, frame, CELL * 0.94, 0.3, until)
            shapes.append(box)
        noun = "turn" if turns == 1 else "turns"
        words = f"stride {stride}: {turns} {noun}"
        shapes.append(Text(BANKS * CELL, 0.6, words, frame, "left", until=until))
        captions.append(
            f"Stride {stride}: {LANES} lanes at {', '.join(map(str, indices[:6]))}"
            f", ...; the fullest bank has {turns}, so {turns} {noun}."
        )
    alt = f"Map of 32 memory banks, {title}. " + " ".join(captions)
    return Scene(title, alt, captions, shapes)
