"""A picture of problem 2b: a sequence of the task, above the network that reads it.

Source: Martin and Cundy 2018, arXiv:1709.04057, sections 3.3 and 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lrscan.learn.scenes.scene import Arrow, Box, Scene, Shape, Text
from lrscan.tasks import problem_2b

STEP = 1.05  # from one step to the next
CELL = 0.4  # height of an element of a vector
WIDE = 0.62  # width of a vector
OUTPUT = 0.72  # width of an output's box
MINUS = "\N{MINUS SIGN}"
LAYER = 1.05  # from one layer to the next
LABELS = -STEP - 0.6  # right end of the labels, which are left of the sequence
STYLES = {1: "state", -1: "carry"}


def problem_2b_with_network(
    steps: int, width: int, *, seed: int, layers: int = 2, distractors: str = "any"
) -> Scene:
    """Draw one sequence of :func:`lrscan.tasks.problem_2b`, and a GILR-LSTM over its steps.

    There is a frame for the sequence, one for each layer, and one for the read-out of the last
    output. The sequence is the first one of the stream of the task.

    Args:
        steps:       the length of the sequence
        width:       the number of elements of an input
        seed:        the seed of the task
        layers:      the number of layers of the network
        distractors: see :func:`lrscan.tasks.problem_2b`

    Raises:
        ValueError: a size, the seed or a choice is not valid
    """
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise ValueError(f"layers must be an int of at least 1, not {layers!r}")
    tokens, label = problem_2b(steps, 1, seed=seed, width=width, distractors=distractors)
    index, sign = (part[:, 0].tolist() for part in tokens if part is not None)
    right = 1 if label.item() else -1
    answer = _signed(right)
    bottom = -CELL * (width - 0.5)
    rows = [bottom - 0.75 - LAYER * layer for layer in range(layers)]
    shapes = [*_sequence(index, sign, width), *_network(rows, steps, bottom)]
    shapes += _read_out(rows[-1], steps, right, layers + 1)
    listed = ", ".join(f"{MINUS * (s < 0)}e{k}" for k, s in zip(index, sign, strict=True))
    again = [str(t) for t, k in enumerate(index) if t and k == 0]
    trap = f" +e0 comes again later, at step {' and '.join(again)}." if again else ""
    return Scene(
        "Problem 2b: what was the sign at step 0?",
        f"A sequence of length {steps}: columns of {width} elements, all of them 0 except one. "
        f"This one is {answer} at e0 in the first column, and 1 at a random place in each other "
        f"column.{trap} Below the sequence is a GILR-LSTM, with {layers} "
        f"layer{'s' * (layers != 1)}: each has a box for every step, and arrows carry the state "
        "from step to step. A linear read-out of the last output alone should answer "
        f"{answer}.",
        [
            f"The sequence: {listed}.{trap}",
            *(
                f"Layer {n}: surrogate and cell pass from step to step."
                for n in range(1, layers + 1)
            ),
            f"The last output, h[{steps - 1}], is read out. The right answer is {answer}.",
        ],
        shapes,
    )


def _signed(sign: int) -> str:
    return f"{sign:+}".replace("-", MINUS)


def _sequence(index: Sequence[int], sign: Sequence[int], width: int) -> Iterator[Shape]:
    """Draw a column for each step: one basis vector, with the sign of the class at step 0."""
    yield Text(LABELS, 0.5, "Step", align="right")
    middle = -CELL * (width - 1) / 2
    yield Text(LABELS, middle, "Input x[t],\nblank is 0", align="right")
    for k in range(width):
        yield Text(-0.7, -CELL * k, f"e{k}")
    for t, (k, s) in enumerate(zip(index, sign, strict=True)):
        yield Text(STEP * t, 0.5, str(t))
        yield Box(STEP * t, middle, "", width=WIDE, height=CELL * width)
        text = "1" if t else _signed(s)
        yield Box(STEP * t, -CELL * k, text, STYLES[s], width=WIDE, height=CELL)


def _network(rows: Sequence[float], steps: int, bottom: float) -> Iterator[Shape]:
    """Draw a row for each layer: the state comes from the left, the input from above."""
    for layer, y in enumerate(rows, 1):
        yield Text(LABELS, y, f"Layer {layer}:\nGILR-LSTM,\nstate passed on", layer, "right")
        yield Box(-STEP, y, "0", "input", layer, OUTPUT)
        above = bottom + 0.26 if layer == 1 else y + LAYER
        for t in range(steps):
            yield Arrow(STEP * t, above, STEP * t, y, frame=layer)
            yield Arrow(STEP * (t - 1), y, STEP * t, y, "good", layer, OUTPUT)
            yield Box(STEP * t, y, f"h[{t}]", "pair", layer, OUTPUT)


def _read_out(y: float, steps: int, sign: int, frame: int) -> Iterator[Shape]:
    """Draw a linear function below the last output, and the answer that it should give."""
    x, after = STEP * (steps - 1), y - LAYER
    yield Text(x - 1.15, after, "Linear read-out of\nthe last output", frame, "right")
    yield Arrow(x, y, x, after, frame=frame)
    yield Box(x, after, f"w * h[{steps - 1}] + b", "plain", frame, 1.9)
    yield Text(x - 1.15, after - 0.9, "Right answer:\nthe sign at step 0", frame, "right")
    yield Arrow(x, after, x, after - 0.9, frame=frame)
    yield Box(x, after - 0.9, _signed(sign), STYLES[sign], frame, WIDE)
