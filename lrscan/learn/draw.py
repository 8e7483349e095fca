"""Drawings of traces."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrscan.learn import trace
from lrscan.learn.trace import Piece

INK, ACCENT, PALE = "#222222", "#0072b2", "#e8eef4"


def dependence_chain(a: Sequence[float], x: Sequence[float], h0: float = 0.0) -> Figure:
    """Every state with the arrows of what it waits for."""
    states = trace.serial(a, x, h0)
    figure, panel = _canvas(len(a), rows=2)
    _node(panel, -1, 0, f"{h0:g}")
    panel.text(-1, -0.55, "h0", ha="center", fontsize=8)
    for t, (a_t, x_t, h) in enumerate(zip(a, x, states, strict=True)):
        _node(panel, t, 1, f"{a_t:g}, {x_t:g}", PALE)
        _node(panel, t, 0, f"{h:g}")
        _arrow(panel, (t, 1), (t, 0))
        _arrow(panel, (t - 1, 0), (t, 0), ACCENT)
        panel.text(t, -0.55, f"step {t + 1}", ha="center", fontsize=8)
    panel.text(-1, 1, "a, x", ha="center", va="center", fontsize=9)
    panel.set_title("The serial loop: each state waits for the one to its left", fontsize=10)
    return figure


def blocked(pieces: list[Piece], a: Sequence[float], x: Sequence[float]) -> Figure:
    """Algorithm 1 as three rows: reduce, pass the carries, run again."""
    figure, panel = _canvas(len(a), rows=4)
    for k, piece in enumerate(pieces):
        middle = (piece.start + piece.stop - 1) / 2
        width = piece.stop - piece.start
        panel.axvspan(piece.start - 0.46, piece.stop - 0.54, color=PALE, zorder=0)
        panel.text(middle, 3.55, f"processor {k + 1}", ha="center", fontsize=9)
        _node(panel, middle, 2, f"P, R = {piece.product:g}, {piece.end:g}")
        _node(panel, middle - width * 0.3, 1, f"{piece.carry:g}", ACCENT, ink="white")
        if k + 1 < len(pieces):
            after = pieces[k + 1]
            onward = (after.start + after.stop - 1) / 2 - (after.stop - after.start) * 0.3
            _arrow(panel, (middle - width * 0.3, 1), (onward, 1), ACCENT)
            _arrow(panel, (middle, 2), (onward, 1))
        for t in range(piece.start, piece.stop):
            _node(panel, t, 3, f"{a[t]:g}, {x[t]:g}", "white")
            _arrow(panel, (t, 3), (middle, 2))
            _node(panel, t, 0, f"{piece.states[t - piece.start]:g}", "white")
            if t > piece.start:
                _arrow(panel, (t - 1, 0), (t, 0))
        _arrow(panel, (middle - width * 0.3, 1), (piece.start, 0), ACCENT)
    for y, label in ((3, "a, x"), (2, "1. reduce"), (1, "2. carry"), (0, "3. run")):
        panel.text(-1, y, label, ha="center", va="center", fontsize=9)
    panel.set_title("Algorithm 1: all processors work at once; only the carries wait", fontsize=10)
    return figure


def _canvas(steps: int, rows: int) -> tuple[Figure, plt.Axes]:
    size = (1.0 * steps + 1.6, 0.85 * rows + 0.7)
    figure, panel = plt.subplots(figsize=size, layout="constrained")
    plt.close(figure)
    panel.set_xlim(-1.7, steps - 0.4)
    panel.set_ylim(-0.8, rows - 0.1)
    panel.axis("off")
    return figure, panel


def _node(panel, x: float, y: float, text: str, face: str = "white", ink: str = INK) -> None:
    box = {"boxstyle": "round,pad=0.3", "fc": face, "ec": INK, "lw": 0.8}
    panel.text(x, y, text, ha="center", va="center", fontsize=9, color=ink, bbox=box, zorder=3)


def _arrow(panel, start, stop, colour: str = INK) -> None:
    arrow = {"arrowstyle": "->", "color": colour, "lw": 1.1, "shrinkA": 13, "shrinkB": 13}
    panel.annotate("", xy=stop, xytext=start, arrowprops=arrow, zorder=2)
