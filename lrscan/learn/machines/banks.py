"""Where the lanes of a warp meet in shared memory: a map of the 32 banks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from lrscan.learn.scenes.scene import Box, Scene, Shape, Text

BANKS = 32
CELL = 0.5


def tree_index(lane: int, stride: int) -> int:
    """What a lane touches at one level of the tree: the last cell of its left half."""
    return 2 * stride * lane + stride - 1


def padded(index: int) -> int:
    """The same with one unused cell after every 32 (Harris, Sengupta and Owens 2007)."""
    return index + index // BANKS


def ways(indices: Sequence[int]) -> int:
    """Turns that one access of a warp takes: the most different addresses in one bank.

    Lanes that read the same address are served together.
    """
    banks = defaultdict(set)
    for index in indices:
        banks[index % BANKS].add(index)
    return max(map(len, banks.values()), default=0)


def scene(
    index_of: Callable[[int, int], int], strides: Sequence[int], title: str, lanes: int = 32
) -> Scene:
    """A column for each bank, and in it the lanes that want it; a frame a stride."""
    shapes: list[Shape] = []
    captions = []
    for bank in range(BANKS):
        shapes.append(Box(bank * CELL, 0, str(bank), "input", 0, CELL * 0.94, 0.4))
    shapes.append(Text(-0.5, 0, "bank", align="right"))
    for frame, stride in enumerate(strides):
        until = frame + 1 if frame + 1 < len(strides) else None
        indices = [index_of(lane, stride) for lane in range(lanes)]
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
            f"Stride {stride}: {lanes} lanes at {', '.join(map(str, indices[:6]))}"
            f", ...; the fullest bank has {turns}, so {turns} {noun}."
        )
    alt = f"Map of 32 memory banks, {title}. " + " ".join(captions)
    return Scene(title, alt, captions, shapes)
