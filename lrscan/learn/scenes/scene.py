"""The drawing engine: a scene is a list of simple shapes, in frames.

A scene has three forms, all made from one list of shapes: a matplotlib figure (a static picture
with everything in it), an interactive player (:mod:`lrscan.learn.scenes.player`), and text. A shape
is visible from its ``frame`` on; the player highlights the shapes of the current frame.

Colours come from the palette of Okabe and Ito. Styles also differ in lightness and line, so that a
picture can be read in grey and by colour-blind people.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lrscan.evidence.figures import own_settings

INK, BLUE, ORANGE, GREEN, GREY = "#222222", "#0072b2", "#e69f00", "#009e73", "#767676"
INCH = 0.62  # inches per unit of a scene


class Style(NamedTuple):
    """The look of a box or a line."""

    face: str
    ink: str = INK
    line: str = "-"
    width: float = 0.9
    hatch: str = ""


STYLES = {
    "plain": Style("white"),
    "input": Style("#f2f2f2", line="--"),
    "pair": Style("#cfe3f1"),
    "state": Style(BLUE, ink="white"),
    "carry": Style(ORANGE, width=1.6),
    "wait": Style("white", line=":", hatch="////"),
    "wrong": Style(INK, ink="white", width=2.0),
    "faint": Style("white", ink=GREY, line=":"),
    "good": Style(GREEN, ink="white"),
}


class Box(NamedTuple):
    """A labelled box with its centre at (x, y)."""

    x: float
    y: float
    text: str
    style: str = "plain"
    frame: int = 0
    width: float = 0.84
    height: float = 0.52
    until: int | None = None


class Arrow(NamedTuple):
    """An arrow between the centres of two boxes of one size; it stops at their edges."""

    x0: float
    y0: float
    x1: float
    y1: float
    style: str = "plain"
    frame: int = 0
    width: float = 0.84
    height: float = 0.52
    until: int | None = None


class Text(NamedTuple):
    """Words without a box; ``align`` is "center", "left" or "right"."""

    x: float
    y: float
    text: str
    frame: int = 0
    align: str = "center"
    bold: bool = False
    until: int | None = None


class Line(NamedTuple):
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    style: str = "plain"
    frame: int = 0
    until: int | None = None


class Dot(NamedTuple):
    """A marker with a label next to it, ``offset`` points away."""

    x: float
    y: float
    text: str
    marker: str = "o"
    style: str = "state"
    frame: int = 0
    offset: tuple[float, float] = (9, 0)
    until: int | None = None


Shape = Box | Arrow | Text | Line | Dot
Extent = tuple[tuple[float, float], tuple[float, float]]  # least and greatest x, and y


class Axes(NamedTuple):
    """Two logarithmic axes, for scenes that are plots."""

    x: str
    y: str
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]


@dataclass
class Scene:
    """Shapes in frames, and the words for them.

    Attributes:
        title:    one line
        alt:      a description of the picture
        captions: one for each frame; they are the text form
        shapes:   the shapes, in the order of drawing
        axes:     the axes of a plot; None for a drawing
    """

    title: str
    alt: str
    captions: list[str]
    shapes: list[Shape] = field(default_factory=list)
    axes: Axes | None = None

    def text(self) -> str:
        """Return the scene in words, a line for each frame."""
        lines = [f"{k}. {caption}" for k, caption in enumerate(self.captions)]
        return "\n".join([self.title, self.alt, *lines])

    def figure(self, frame: int | None = None) -> Figure:
        """Return the picture of one frame; by default it shows everything."""
        return self._draw(frame)[0]

    def svg(self) -> tuple[str, list[tuple[int, int | None]]]:
        """Return the SVG, with ids "shape-K", and the frames (from, until) of each shape."""
        figure, _ = self._draw(None, tagged=True)
        buffer = io.StringIO()
        with own_settings():
            matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lrscan"})
            figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
        svg = buffer.getvalue()
        return svg[svg.index("<svg") :], [(shape.frame, shape.until) for shape in self.shapes]

    @own_settings()
    def _draw(self, frame: int | None, tagged: bool = False) -> tuple[Figure, plt.Axes]:
        last = len(self.captions) - 1 if frame is None else frame
        drawn = [
            (k, shape)
            for k, shape in enumerate(self.shapes)
            if tagged or shape.frame <= last and (shape.until is None or last < shape.until)
        ]
        axes = self.axes
        extent = None if axes else _extent([shape for _, shape in drawn])
        size = _size(extent) if extent else (6.4, 4.0)
        figure, panel = plt.subplots(figsize=size, layout="constrained")
        plt.close(figure)  # so that pyplot does not show it a second time
        for k, shape in drawn:
            artist = _DRAW[type(shape)](panel, shape)
            if tagged:
                artist.set_gid(f"shape-{k}")
        if axes:
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set(xlabel=axes.x, ylabel=axes.y, xlim=axes.x_limits, ylim=axes.y_limits)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=8)
            panel.grid(color="0.92")
            panel.set_axisbelow(True)
            panel.minorticks_off()
        if extent:
            panel.set(xlim=extent[0], ylim=extent[1])
            panel.axis("off")
        panel.set_title(self.title, fontsize=10)
        return figure, panel


def _extent(shapes: list[Shape]) -> Extent:
    """Return the limits of the shapes in x and in y, with a margin."""
    xs, ys = [], []
    for shape in shapes:
        match shape:
            case Box(x=x, y=y, width=w, height=h):
                xs += [x - w / 2, x + w / 2]
                ys += [y - h / 2, y + h / 2]
            case Text(x=x, y=y, text=text, align=align):
                wide = 0.115 * max(map(len, text.split("\n")))
                left = {"left": 0, "center": wide / 2, "right": wide}[align]
                xs += [x - left, x - left + wide]
                ys += [y - 0.3, y + 0.3]
            case Line(points=points):
                xs += [x for x, _ in points]
                ys += [y for _, y in points]
            case Dot(x=x, y=y):
                xs += [x]
                ys += [y]
    return (min(xs) - 0.2, max(xs) + 0.2), (min(ys) - 0.2, max(ys) + 0.2)


def _size(extent: Extent) -> tuple[float, float]:
    (left, right), (low, high) = extent
    return (right - left) * INCH, (high - low) * INCH + 0.35


def _box(panel: plt.Axes, box: Box) -> _Together:
    style = STYLES[box.style]
    corner = (box.x - box.width / 2, box.y - box.height / 2)
    rounding = "round,pad=0,rounding_size=0.1"
    patch = FancyBboxPatch(
        corner,
        box.width,
        box.height,
        boxstyle=rounding,
        fc=style.face,
        ec=INK,
        lw=style.width,
        ls=style.line,
        hatch=style.hatch,
        zorder=3,
    )
    return _Together([panel.add_patch(patch), _words(panel, box.x, box.y, box.text, style.ink)])


def _words(
    panel: plt.Axes,
    x: float,
    y: float,
    text: str,
    ink: str = INK,
    align: str = "center",
    weight: str = "normal",
) -> Artist:
    return panel.text(
        x, y, text, ha=align, va="center", fontsize=9, color=ink, weight=weight, zorder=4
    )


def _arrow(panel: plt.Axes, arrow: Arrow) -> Artist:
    style = STYLES[arrow.style]
    colour = INK if style.face in ("white", INK) else style.face
    dx, dy = arrow.x1 - arrow.x0, arrow.y1 - arrow.y0
    sides = [half / abs(d) for half, d in ((arrow.width / 2, dx), (arrow.height / 2, dy)) if d]
    cut = min([*sides, 0.45])  # the share of the arrow that is inside a box
    patch = FancyArrowPatch(
        (arrow.x0 + cut * dx, arrow.y0 + cut * dy),
        (arrow.x1 - cut * dx, arrow.y1 - cut * dy),
        arrowstyle="-|>",
        mutation_scale=8,
        shrinkA=0,
        shrinkB=0,
        color=colour,
        lw=style.width + 0.3,
        ls=style.line,
        zorder=2,
    )
    return panel.add_patch(patch)


def _text(panel: plt.Axes, text: Text) -> Artist:
    weight = "bold" if text.bold else "normal"
    return _words(panel, text.x, text.y, text.text, align=text.align, weight=weight)


def _line(panel: plt.Axes, line: Line) -> Artist:
    style = STYLES[line.style]
    colour = INK if style.face in ("white", INK) else style.face
    xs, ys = zip(*line.points, strict=True)
    return panel.plot(xs, ys, color=colour, ls=style.line, lw=style.width + 0.5, zorder=1)[0]


def _dot(panel: plt.Axes, dot: Dot) -> _Together:
    style = STYLES[dot.style]
    marker = panel.plot(
        [dot.x], [dot.y], dot.marker, ms=9, mfc=style.face, mec=INK, ls="none", zorder=5
    )[0]
    words = panel.annotate(
        dot.text,
        (dot.x, dot.y),
        xytext=dot.offset,
        textcoords="offset points",
        fontsize=8.5,
        ha="left" if dot.offset[0] > 0 else "right",
        va="center",
        zorder=6,
    )
    return _Together([marker, words])


class _Together:
    """Artists that are shown and hidden together."""

    def __init__(self, artists: list[Artist]) -> None:
        self.artists = artists

    def set_gid(self, gid: str) -> None:
        for part, artist in zip("ab", self.artists, strict=True):
            artist.set_gid(gid + part)


_DRAW: dict[type, Callable[[plt.Axes, Any], Artist | _Together]] = {
    Box: _box,
    Arrow: _arrow,
    Text: _text,
    Line: _line,
    Dot: _dot,
}
