"""Plots by the drawing engine: the plane of work and depth, the roofline, and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lrscan.learn.machines import counts
from lrscan.learn.machines.roofline import ALGORITHMS, SIZES, Roofs, attainable
from lrscan.learn.scenes.scene import Axes, Dot, Line, Scene, Shape, Text

MARKERS = {
    "serial": "s",
    "Hillis-Steele": "^",
    "Blelloch": "v",
    "blocked": "o",
    "blocked, tree": "D",
}
STYLES = {
    "serial": "plain",
    "Hillis-Steele": "carry",
    "Blelloch": "good",
    "blocked": "state",
    "blocked, tree": "wrong",
}


def work_depth(lengths: Sequence[int], processors: int) -> Scene:
    """Plot operations over rounds for every scan, a frame for each length.

    Further left is faster on a machine with enough lanes; lower is cheaper on one with few.
    """
    longest = max(lengths)
    limits = (0.8, longest * 12), (0.8, longest * 30)
    shapes: list[Shape] = list(_legend(limits[0][1], limits[1][1]))
    captions = []
    for frame, n in enumerate(lengths):
        until = frame + 1 if frame + 1 < len(lengths) else None
        words = []
        for name, marker in MARKERS.items():
            rounds, work = counts.cost(name, n, min(processors, n))
            shapes.append(Dot(rounds, work, "", marker, STYLES[name], frame, until=until))
            words.append(f"{name}: {rounds:,} rounds, {work:,} operations")
        shapes.append(Text(1.3, longest * 12, f"n = {n:,}", frame, "left", True, until))
        captions.append(
            f"n = {n:,}, blocked scans on {min(processors, n)} processors. {'; '.join(words)}."
        )
    return Scene(
        f"Fewer rounds cost more operations (blocked scans on {processors} processors)",
        "Operations over rounds of five scans, on logarithmic axes. " + captions[-1],
        captions,
        shapes,
        Axes("rounds (depth)", "operations (work)", *limits),
    )


def _legend(right: float, top: float) -> Iterator[Shape]:
    """Explain the markers in the lower right corner, which no scan reaches."""
    for k, (name, marker) in enumerate(MARKERS.items()):
        yield Dot(right**0.6, top ** (0.42 - 0.09 * k), name, marker, STYLES[name])


def roofline(roofs: Roofs, dtype: str) -> Scene:
    """Plot the two roofs of a device and the scans under them, a frame for each scan."""
    shapes: list[Shape] = []
    peak = roofs.flops_per_s[dtype]
    ridge = peak / roofs.bytes_per_s
    low, high = 0.02, ridge * 10
    roof = ((low, low * roofs.bytes_per_s), (ridge, peak), (high, peak))
    shapes.append(Line(roof, "wrong"))
    captions = [
        f"{roofs.name}, {dtype}: the memory delivers {roofs.bytes_per_s / 1e9:,.0f} GB/s, the "
        f"arithmetic units do {peak / 1e9:,.0f} Gflop/s; the roofs meet at {ridge:.1f} flops per "
        "byte."
    ]
    for frame, ((name, cost), marker) in enumerate(zip(ALGORITHMS.items(), "sov", strict=True), 1):
        intensity, flops = attainable(roofs, cost, dtype)
        elements = flops / cost.flops
        style = ("plain", "carry", "state")[frame - 1]
        label = f"{name}: {elements / 1e9:,.1f} billion elements/s"
        offset = ((12, -12), (12, -4), (12, -2))[frame - 1]
        shapes.append(Dot(intensity, flops, label, marker, style, frame, offset))
        captions.append(
            f"{name}: {cost.flops} flops and {cost.crossings * SIZES[dtype]} bytes per element, "
            f"{intensity:.3f} flops per byte: at most {elements / 1e9:,.1f} billion elements per "
            "second."
        )
    return Scene(
        f"Every scan is far below the peak: {roofs.name}, {dtype}",
        f"Attainable speed over flops per byte, on logarithmic axes. {' '.join(captions)}",
        captions,
        shapes,
        Axes(
            "flops per byte moved (intensity)",
            "attainable flops per second",
            (low, high),
            (low * roofs.bytes_per_s / 2, peak * 4),
        ),
    )


def curves(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ceiling: float,
) -> Scene:
    """Plot lines on logarithmic axes, a frame for each line.

    Args:
        title:   the title of the plot
        x_label: the label of the horizontal axis
        y_label: the label of the vertical axis
        lines:   points (x, y) by the name of the line
        ceiling: a value of at least so much is a failure, drawn at this height
    """
    shapes: list[Shape] = []
    captions = ["The axes; no line yet."]
    shown = [y for points in lines.values() for _, y in points if 0 < y < ceiling]
    low, left = min(shown) / 3, min(x for points in lines.values() for x, _ in points)
    right = max(x for points in lines.values() for x, _ in points)
    if any(y >= ceiling for points in lines.values() for _, y in points):
        shapes.append(Line(((left, ceiling), (right, ceiling)), "faint"))
        shapes.append(Text(left, ceiling * 1.7, "failure", align="left"))
    for frame, ((name, points), style, marker) in enumerate(
        zip(lines.items(), ("plain", "state", "carry", "good"), "sovD", strict=False), 1
    ):
        inside = tuple((x, min(max(y, low), ceiling)) for x, y in points)
        shapes.append(Line(inside, style, frame))
        last = len(inside) - 1
        for k, (x, y) in enumerate(inside):
            offset = (9, 6) if frame % 2 else (9, -6)  # keeps labels of close lines apart
            shapes.append(Dot(x, y, name if k == last else "", marker, style, frame, offset))
        words = ", ".join(f"{x:g}: {'fails' if y >= ceiling else f'{y:.1e}'}" for x, y in points)
        captions.append(f"{name}: {words}.")
    limits = (left / 1.5, right * 8), (low / 2, ceiling * 4)
    alt = f"{title}: {y_label} over {x_label}, on logarithmic axes. {' '.join(captions[1:])}"
    return Scene(title, alt, captions, shapes, Axes(x_label, y_label, *limits))
