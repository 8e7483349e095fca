"""Plots made by the drawing engine: the plane of work and depth, the roofline, and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """Rounds against operations of every scan, a frame for each length.

    To the left is faster on a machine that is wide enough; lower is cheaper on one that is not.
    """
    longest = max(lengths)
    shapes: list[Shape] = []
    captions = []
    for frame, n in enumerate(lengths):
        until = frame + 1 if frame + 1 < len(lengths) else None
        words = []
        for name, marker in MARKERS.items():
            rounds, work = counts.cost(name, n, min(processors, n))
            offset = (-9, -4) if name == "blocked, tree" else (9, 5 if name == "blocked" else 0)
            shapes.append(Dot(rounds, work, name, marker, STYLES[name], frame, offset, until))
            words.append(f"{name}: {rounds:,} rounds, {work:,} operations")
        shapes.append(Text(1.3, longest * 12, f"n = {n:,}", frame, "left", True, until))
        captions.append(f"n = {n:,}, blocked on {min(processors, n)}. " + "; ".join(words) + ".")
    limits = (0.8, longest * 12), (0.8, longest * 30)
    return Scene(
        f"Work and depth, {processors} processors for the blocked ones",
        "Operations over rounds on logarithmic axes. " + captions[-1],
        captions,
        shapes,
        Axes("rounds (depth)", "operations (work)", *limits),
    )


def roofline(roofs: Roofs, dtype: str) -> Scene:
    """The two roofs of a device and where the scans stand under them, a frame for each scan."""
    shapes: list[Shape] = []
    peak = roofs.flops_per_s[dtype]
    ridge = peak / roofs.bytes_per_s
    low, high = 0.02, ridge * 10
    roof = ((low, low * roofs.bytes_per_s), (ridge, peak), (high, peak))
    shapes.append(Line(roof, "wrong"))
    captions = [
        f"{roofs.name}, {dtype}: memory feeds {roofs.bytes_per_s / 1e9:,.0f} GB/s, the units "
        f"do {peak / 1e9:,.0f} Gflop/s; the roofs meet at {ridge:.1f} flops a byte."
    ]
    for frame, ((name, cost), marker) in enumerate(zip(ALGORITHMS.items(), "sov", strict=True), 1):
        intensity, flops = attainable(roofs, cost, dtype)
        elements = flops / cost.flops
        style = ("plain", "carry", "state")[frame - 1]
        label = f"{name}: {elements / 1e9:,.1f} G elements/s"
        offset = ((12, -12), (12, -4), (12, -2))[frame - 1]
        shapes.append(Dot(intensity, flops, label, marker, style, frame, offset))
        captions.append(
            f"{name}: {cost.flops} flops and {cost.crossings * SIZES[dtype]} bytes an "
            f"element, {intensity:.3f} flops a byte: at most {elements / 1e9:,.1f} thousand "
            f"million elements a second."
        )
    return Scene(
        f"Roofline of {roofs.name}, {dtype}",
        f"Attainable speed over flops a byte on logarithmic axes. {' '.join(captions)}",
        captions,
        shapes,
        Axes("flops a byte", "flop/s", (low, high), (low * roofs.bytes_per_s / 2, peak * 4)),
    )


def curves(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ceiling: float,
) -> Scene:
    """Lines through points on logarithmic axes, a frame for each line.

    A value that is infinite or above ``ceiling`` is drawn on the upper edge, as a failure.
    """
    shapes: list[Shape] = []
    captions = ["The axes; no line yet."]
    shown = [y for points in lines.values() for _, y in points if 0 < y < ceiling]
    low = min(shown) / 3
    for frame, ((name, points), style, marker) in enumerate(
        zip(lines.items(), ("plain", "state", "carry", "good"), "sovD", strict=False), 1
    ):
        inside = tuple((x, min(max(y, low), ceiling)) for x, y in points)
        shapes.append(Line(inside, style, frame))
        last = len(inside) - 1
        for k, (x, y) in enumerate(inside):
            above = (9, 6) if frame % 2 else (9, -6)  # labels of close lines stay apart
            shapes.append(Dot(x, y, name if k == last else "", marker, style, frame, above))
        words = ", ".join(f"{x:g}: {'fails' if y >= ceiling else f'{y:.1e}'}" for x, y in points)
        captions.append(f"{name}: {words}.")
    xs = [x for points in lines.values() for x, _ in points]
    limits = (min(xs) / 1.5, max(xs) * 8), (low / 2, ceiling * 3)
    alt = f"{y_label} over {x_label}, logarithmic. {' '.join(captions[1:])}"
    return Scene(title, alt, captions, shapes, Axes(x_label, y_label, *limits))
