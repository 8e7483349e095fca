"""Scenes of memory: reads and writes of cells, and the banks that lanes access."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from lrscan.learn.machines.accesses import Log
from lrscan.learn.machines.banks import BANKS, ways
from lrscan.learn.scenes.scene import Arrow, Box, Scene, Shape, Text

LANES = 32
CELL = 0.5  # width of a bank


def accesses(log: Log, array: str, threads: int, cells: int, label: str = "") -> Scene:
    """Draw the reads and writes of an array, from a log of the simulator.

    Each stretch between two barriers is a row and a frame. Threads are below the cells of their own
    number. Black arrows are reads; orange arrows are writes to the row of cells below. Further
    threads and cells are left out.

    Args:
        log:     from the simulator
        array:   the name of the array in the log, such as "shared 0" for the first shared array
        threads: the number of threads to draw
        cells:   the number of cells to draw
        label:   the name of the array in the picture; by default its name in the log
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
        f"Accesses to {label} between barriers: reads are black, writes are orange",
        f"Cells of {label} in rows, and {threads} threads between them, with an arrow for every "
        "access. " + " ".join(captions[1:]),
        captions,
        shapes,
    )


def launch(log: Log, arrays: dict[str, str], cells: int) -> Scene:
    """Draw the reads of one array and the writes of another in one launch, a frame per thread.

    Args:
        log:    from the simulator
        arrays: the array that is read, then the array that is written, as in
                ``{"x": "reads", "x_out": "writes"}``
        cells:  the number of cells to draw
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
        captions.append(
            f"Thread {thread} reads {_elements(source, reads)} and writes "
            f"{_elements(target, writes)}."
        )
    return Scene(
        f"Each thread reads {source} (black arrows) and writes {target} (orange arrows)",
        "A row of cells that are read, a row of threads, a row of cells that are written, with "
        f"an arrow for every access. {' '.join(captions[1:])}",
        captions,
        shapes,
    )


def _elements(array: str, indices: Sequence[int]) -> str:
    return ", ".join(f"{array}[{index}]" for index in indices) or "nothing"


def banks(index_of: Callable[[int, int], int], strides: Sequence[int], title: str) -> Scene:
    """Draw a column for each bank with the lanes that access it, a frame for each stride.

    Args:
        index_of: returns the cell that a lane accesses, for (lane, stride)
        strides:  the strides to draw
        title:    the title of the picture
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
            f"Stride {stride}: the {LANES} lanes access the cells "
            f"{', '.join(map(str, indices[:6]))}, ...; the fullest bank takes {turns} {noun}."
        )
    alt = f"{title}: a map of {BANKS} memory banks. " + " ".join(captions)
    return Scene(title, alt, captions, shapes)
