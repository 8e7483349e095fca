"""The sheet that figures are drawn on: size, fonts, colours, axes, title, key and small print.

All figures have one width and the same sizes of text, so that they read alike on a page and on a
phone. Every algorithm, model and setting keeps one colour and one marker in all of them
(:data:`LOOKS`). Values of the paper have the colour and the marker of the same thing, hollow and
dotted. Matplotlib is imported when something is drawn, not with the experiments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas

from lrscan.evidence import paper
from lrscan.evidence.records import Records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 6.4  # inches; at 400 pixels, the width of a phone, the small print is 7 pixels high
CALLOUT, TITLE, TEXT, KEY, TICKS, SMALL = 15, 13, 10, 9.5, 9, 8  # sizes of text in points
GREY, FAINT = "0.35", "0.88"
_MARGIN = 0.1  # inches
_KEY: dict[str, Any] = {
    "loc": "upper left",
    "fontsize": KEY,
    "frameon": False,
    "borderaxespad": 0,
    "borderpad": 0,
    "handlelength": 1.8,
    "handletextpad": 0.5,
    "columnspacing": 1.4,
}


class Look(NamedTuple):
    """The colour and the marker of one thing in all figures."""

    colour: str
    marker: str


# The colours of Okabe and Ito, which the colour-blind can tell apart, and shades of grey.
_BLUE, _SKY, _GREEN = "#0072B2", "#56B4E9", "#009E73"
_ORANGE, _RED, _PURPLE, _BROWN = "#E69F00", "#D55E00", "#CC79A7", "#8C5A2B"
_RIVAL = "0.5"
LOOKS = {
    # Algorithms.
    "single_pass": Look(_BLUE, "o"),
    "blocked": Look(_ORANGE, "s"),
    "serial": Look(_GREEN, "^"),
    "serial_paper": Look(_RED, "v"),
    "auto": Look("0.1", "o"),
    "packed": Look(_PURPLE, "D"),
    "paper": Look("0.45", "D"),
    # Ways to call a model.
    "whole": Look("0.5", "s"),
    "pieces": Look(_BLUE, "o"),
    # Other implementations.
    "accelerated-scan warp": Look(_RIVAL, "P"),
    "accelerated-scan triton": Look(_RIVAL, "X"),
    "torchlpc": Look(_RIVAL, "*"),
    "jax associative_scan": Look(_RIVAL, "d"),
    "torch associative_scan": Look(_RIVAL, "p"),
    "torch.mul": Look(_RIVAL, "s"),
    # Models.
    "GILR-LSTM": Look(_BLUE, "o"),
    "LSTM (torch)": Look(_RED, "s"),
    "LSTM (the paper's)": Look(_PURPLE, "D"),
    "SRU": Look(_GREEN, "^"),
    "QRNN(2)": Look(_ORANGE, "v"),
    "QRNN(10)": Look(_BROWN, "P"),
    # Initialisations.
    "graded": Look(_PURPLE, "s"),
    "scaled": Look(_GREEN, "^"),
    "chrono": Look("0.4", "o"),
    "early": Look(_SKY, "D"),
    # Directions.
    "forward": Look(_BLUE, "o"),
    "backward": Look(_RED, "s"),
    # Types of numbers.
    "float64": Look("0.1", "o"),
    "float32": Look(_BLUE, "s"),
    "float16": Look(_ORANGE, "^"),
    "bfloat16": Look(_RED, "v"),
    "complex128": Look(_PURPLE, "D"),
    "complex64": Look(_GREEN, "P"),
}


def look(name: str) -> Look:
    """Return the look of a thing; one that the table lacks is grey."""
    return LOOKS.get(name, Look(_RIVAL, "o"))


def tints(colour: Any, count: int) -> list[Any]:
    """Return ``count`` tints of a colour, the last of them the colour itself."""
    from matplotlib.colors import to_rgb

    shares = [1 - 0.68 * (count - 1 - n) / max(1, count - 1) for n in range(count)]
    return [tuple(1 - share * (1 - part) for part in to_rgb(colour)) for share in shares]


def shades(count: int) -> list[Any]:
    """Return colours from light to dark for ``count`` sizes of one kind, in ascending order."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](0.2 + 0.75 * n / max(1, count - 1)) for n in range(count)]


def mark(label: str, colour: Any, marker: str = "", **style: Any) -> Any:
    """Return a line that is drawn nowhere, for an entry of the key."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, label=label, **{"ls": ""} | style)


def paper_mark() -> Any:
    """Return the entry of the key for the paper's values."""
    return mark(f"hollow: the paper ({paper.HARDWARE})", *look("paper"), **hollow())


def hollow(**style: Any) -> dict[str, Any]:
    """Return the style of the paper's values: hollow markers on a dotted line."""
    return {"mfc": "white", "ls": ":", "lw": 1.2, "zorder": 1.5} | style


def axes(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, Any]:
    """Return a figure as wide as all others, and its panels by row and column.

    Args:
        rows:    rows of panels
        columns: columns of panels; more than two are hard to read on a phone
        height:  of a panel with its labels, in inches
        options: for ``Figure.subplots``
    """
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, height * rows),
        squeeze=False,
        layout="constrained",
        **options,
    )
    plt.close(figure)  # pyplot must not show it a second time
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["bottom", "left"]].set_color("0.6")
        panel.tick_params(which="both", color="0.6", labelsize=TICKS)
        panel.grid(color=FAINT, lw=0.8)
        panel.set_axisbelow(True)
    return figure, panels


def subtitle(panel: Any, text: str) -> None:
    """Put a title over one panel."""
    panel.set_title(text, loc="left", fontsize=TEXT)


def row_title(row: Sequence[Any], text: str) -> None:
    """Put a title over a row of panels; it may be wider than the first of them."""
    for panel in row:
        subtitle(panel, " ")  # makes room for the text, which the layout does not see
    title = row[0].annotate(
        text, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=TEXT
    )
    title.set_in_layout(False)


def log_axes(panel: Any, lengths: Iterable[int], first: Iterable[int] = ()) -> None:
    """Make both axes logarithmic, with a tick at each length."""
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    length_ticks(panel, lengths, first)


def length_ticks(panel: Any, lengths: Iterable[int], first: Iterable[int] = ()) -> None:
    """Put a tick at each length of a logarithmic axis, and its number where there is room.

    Args:
        panel:   its x axis has base 2
        lengths: in steps
        first:   those of the lengths that get their numbers first; then the longest do
    """
    lengths = sorted(set(lengths))
    octaves = math.log2(lengths[-1] / lengths[0]) or 1.0
    columns = panel.get_subplotspec().get_gridspec().ncols
    inches = {n: (WIDTH / columns - 0.8) * math.log2(n / lengths[0]) / octaves for n in lengths}
    preferred = set(first)
    numbered: list[int] = []
    for n in sorted(lengths, key=lambda n: (n not in preferred, -n)):
        room = [abs(inches[n] - inches[other]) for other in numbered]
        needed = [0.04 * (len(f"{n:,}") + len(f"{other:,}")) + 0.08 for other in numbered]
        if all(there > wanted for there, wanted in zip(room, needed, strict=True)):
            numbered.append(n)
    panel.set_xticks(sorted(numbered), [f"{n:,}" for n in sorted(numbered)])
    panel.set_xticks(lengths, minor=True)
    panel.tick_params(axis="x", which="minor", labelbottom=False)


def plain_ticks(
    panel: Any, unit: str = "", *, steps: Sequence[int] = (1, 2, 5), axis: str = "y"
) -> None:
    """Put ticks at these multiples of powers of ten on a logarithmic axis, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    scale = {"x": panel.xaxis, "y": panel.yaxis}[axis]
    scale.set_major_locator(LogLocator(subs=steps, numticks=99))
    scale.set_minor_locator(NullLocator())
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{number(value)}{unit}"))


def short(value: float) -> str:
    """Return a number with two digits, or all of those before the point: 0.85, 1.6, 78, 1,001."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"


def number(value: float) -> str:
    """Return a number as figures write it: three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def callout(
    panel: Any,
    x: float,
    y: float,
    name: str,
    *,
    unit: str = "x",
    side: str = "upper left",
    gap: float = 4,
) -> None:
    """Write the value y of a point on one side of it, in the colour of what it belongs to.

    Args:
        panel: where the point is
        x:     of the point
        y:     of the point
        name:  of the thing, see :data:`LOOKS`
        unit:  put after the value
        side:  "upper left", "lower left" and so on
        gap:   points between the point and the text, vertically
    """
    vertical, horizontal = side.split()
    above, left = vertical == "upper", horizontal == "left"
    panel.annotate(
        f"{short(y)}{unit}",
        (x, y),
        xytext=(-7 if left else 7, gap if above else -gap),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom" if above else "top",
        fontsize=CALLOUT,
        weight="bold",
        color=look(name).colour,
    )


def finish(
    figure: Figure, title: str, about: str, small: str = "", key: Sequence[Any] = ()
) -> Figure:
    """Put title, subject and key over the panels and small print below, all flush left.

    Args:
        figure: from :func:`axes`, its panels drawn
        title:  the finding in a sentence, or the subject
        about:  what was measured, where, and how to read it
        small:  versions and counts, in one line
        key:    entries of the key, from :func:`mark`; None begins a new row
    """
    title, about = wrapped(title, TITLE, "bold"), wrapped(about, TEXT)
    rows = _flowed(key)
    panels = figure.get_figheight()
    title_height, about_height = _height(title, TITLE), _height(about, TEXT)
    key_height = _height("x", KEY)
    foot = _height(small, SMALL) + _MARGIN
    total = _MARGIN + title_height + about_height + len(rows) * key_height + panels + foot
    figure.set_size_inches(WIDTH, total)
    left, at = _MARGIN / WIDTH, total - _MARGIN
    flush: dict[str, Any] = {"x": left, "ha": "left", "va": "top"}
    figure.suptitle(title, y=at / total, fontsize=TITLE, weight="bold", **flush)
    at -= title_height
    figure.text(y=at / total, s=about, fontsize=TEXT, color=GREY, **flush)
    at -= about_height
    for row in rows:
        corner = (0.5 * left, at / total)
        figure.legend(handles=row, ncols=len(row), bbox_to_anchor=corner, **_KEY)
        at -= key_height
    flush |= {"va": "bottom"}
    figure.text(y=0.5 * _MARGIN / total, s=small, fontsize=SMALL, color=GREY, **flush)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(left / 2, foot / total, 1 - left, panels / total), hspace=0.06)
    return figure


def labelled(
    figure: Figure,
    records: Records,
    title: str,
    about: str = "",
    key: Sequence[Any] = (),
    threads: str = "",
) -> Figure:
    """Put title, device, subject, key and versions on the figure, see :func:`finish`.

    Args:
        figure:  from :func:`axes`, its panels drawn
        records: what was drawn
        title:   the finding in a sentence, or the subject
        about:   what was measured and how to read it; the device is put before it
        key:     entries of the key
        threads: how many threads there were, if not as many as the provenance says
    """
    latest = records.provenance["measurements"][-1]
    on_cpu = latest["device_type"] == "cpu"
    count = latest["threads"]["torch"] if on_cpu else 0
    runs = records.table["runs"].max() if "runs" in records.table else None
    notes = [
        f"median of {runs} runs" if pandas.notna(runs) else None,
        (threads or f"{count} thread{'s' * (count != 1)}") if on_cpu else None,
        f"torch {latest['versions']['torch']}, numba {latest['versions']['numba']}",
        f"profile {latest['profile'] or 'none'}",
        f"partial: {records.left} left to measure" if records.left else None,
    ]
    about = ". ".join(filter(None, (records.device_label, about)))
    return finish(figure, title, about, "; ".join(filter(None, notes)), key)


def wrapped(text: str, size: float, weight: str = "normal") -> str:
    """Return the text in lines that fit the width of a figure, equally long ones for a title."""
    widths = {word: _width(word + " ", size, weight) for word in text.split()}

    def lines(room: float) -> list[str]:
        found, left = list[list[str]](), 0.0
        for word in text.split():
            if widths[word] > left:
                found.append([])
                left = room
            found[-1].append(word)
            left -= widths[word]
        return [" ".join(words) for words in found]

    room = WIDTH - 2 * _MARGIN
    best = lines(room)
    if size == TITLE:
        while room > 0 and len(narrower := lines(room := room - 0.1)) == len(best):
            best = narrower
    return "\n".join(best)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def _height(text: str, size: float) -> float:
    """Return the height of lines of text with the space below them, in inches."""
    return (1.25 * (1 + text.count("\n")) + 0.35) * size / 72 if text else 0.0


def _flowed(key: Sequence[Any]) -> list[list[Any]]:
    """Return the entries of a key in rows that fit the width of a figure."""
    rows: list[list[Any]] = []
    left = 0.0
    for entry in key:
        if entry is None:
            left = 0.0
            continue
        width = _width(entry.get_label(), KEY) + 0.5
        if width > left:
            rows.append([])
            left = WIDTH - 2 * _MARGIN
        rows[-1].append(entry)
        left -= width
    return rows
