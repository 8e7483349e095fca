"""The paper's drawings are legible, and show the traces and the random sequences exactly."""

import re
from itertools import combinations

import pytest
import torch
from matplotlib.path import Path

from lrscan.core.reference import linear_recurrence_reference
from lrscan.learn.machines import counts, machine
from lrscan.learn.scenes.long_memory import MINUS, problem_2b_with_network
from lrscan.learn.scenes.scene import Arrow, Box, Line, Scene, Text
from lrscan.learn.scenes.serial_parallel import FIRST, ROUND, serial_against_parallel
from lrscan.tasks import problem_2b

SPLITS = [(24, 4), (32, 8), (1, 1), (2, 2), (3, 1), (8, 2), (4, 4), (7, 3), (11, 5)]
TASKS = [
    {"steps": 10, "width": 6, "seed": 13},
    {"steps": 10, "width": 6, "seed": 0},
    {"steps": 12, "width": 9, "seed": 7, "distractors": "apart"},
    {"steps": 1, "width": 2, "seed": 1, "layers": 1},
    {"steps": 4, "width": 3, "seed": 2, "layers": 3},
]


def split(n, p):
    a, x = [(-1) ** t * (t % 3) for t in range(n)], [t - 4 for t in range(n)]
    return a, x, serial_against_parallel(a, x, 7, processors=p)


def boxes(scene, *styles):
    return [s for s in scene.shapes if isinstance(s, Box) and s.style in styles]


def operations(scene):
    """Return the boxes of operations: those that appear in some round."""
    return [box for box in boxes(scene, "pair", "carry", "state") if box.frame]


@pytest.mark.parametrize(("n", "p"), SPLITS)
def test_the_counts_shown_are_those_of_the_closed_forms(n, p):
    scene = split(n, p)[2]
    chunk, compose, step = -(-n // p), machine.FLOPS["compose"], machine.FLOPS["step"]
    flops = {"serial": n * step, "blocked": chunk * (compose + step) + (p - 1) * step}
    shown = [s.text.replace("\n", " ") for s in scene.shapes if isinstance(s, Text) and s.bold]
    for name, some in flops.items():
        rounds, work = counts.cost(name, n, p)
        words = f"{rounds} rounds?, {work} operations?, {some} flops in sequence"
        assert sum(bool(re.fullmatch(words, text)) for text in shown) in (1, 2)
        assert re.search(words, scene.alt)
    numbers = [int(number) for number in re.findall(r"\d+", scene.title)]
    assert numbers == [n, n, counts.cost("blocked", n, p).rounds, p]


@pytest.mark.parametrize(("n", "p"), SPLITS)
def test_every_processor_has_one_box_in_a_round_and_every_operation_its_box(n, p):
    done = operations(split(n, p)[2])
    assert len({(box.x, box.y) for box in done}) == len(done)
    assert all(box.y == pytest.approx(-ROUND * box.frame) for box in done)
    left, right = [b for b in done if b.x < FIRST], [b for b in done if b.x >= FIRST]
    assert [(b.text, b.frame) for b in left] == [(str(t), t + 1) for t in range(n)]
    assert len({b.x for b in right}) == p
    kinds = {style: [b.text for b in right if b.style == style] for style in ("pair", "state")}
    steps = sorted(map(str, range(n)))
    assert sorted(kinds["pair"]) == sorted(kinds["state"]) == steps
    assert len(right) == counts.cost("blocked", n, p).work


@pytest.mark.parametrize(("n", "p"), SPLITS)
def test_both_sides_show_every_state_of_the_oracle(n, p):
    a, x, scene = split(n, p)
    a, x, start = torch.tensor(a), torch.tensor(x), torch.tensor(7)
    states = dict(enumerate(linear_recurrence_reference(a, x, start).tolist()))
    sides = [caption.split("Algorithm 1:") for caption in scene.captions[1:]]
    for side in zip(*sides, strict=True):
        said = re.findall(r"h\[(\d+)\] = (\S+?)[;.] ?", "".join(side))
        assert {int(t): float(value) for t, value in said} == states
        assert len(said) == n


@pytest.mark.parametrize(("n", "p"), SPLITS)
def test_an_operation_waits_only_for_earlier_ones(n, p):
    scene = split(n, p)[2]
    rounds = {(box.x, box.y): box.frame for box in boxes(scene, "pair", "carry", "state", "input")}
    arrows = [shape for shape in scene.shapes if isinstance(shape, Arrow)]
    for arrow in arrows:
        assert rounds[arrow.x0, arrow.y0] < rounds[arrow.x1, arrow.y1] == arrow.frame
    waiting = {(arrow.x1, arrow.y1) for arrow in arrows}
    alone = [box for box in operations(scene) if (box.x, box.y) not in waiting]
    assert {(box.style, box.frame) for box in alone} == {("pair", 1)} and len(alone) == p


@pytest.mark.parametrize("given", TASKS, ids=lambda given: f"seed-{given['seed']}")
def test_the_sequence_drawn_is_the_tasks(given):
    scene = problem_2b_with_network(**given)
    task = {name: value for name, value in given.items() if name != "layers"}
    tokens, label = problem_2b(task.pop("steps"), 1, **task)
    *cells, answer = boxes(scene, "state", "carry")
    shown = torch.zeros(given["steps"], given["width"])
    rows = {
        s.y: int(s.text[1:])
        for s in scene.shapes
        if isinstance(s, Text) and re.fullmatch(r"e\d+", s.text)
    }
    for t, cell in enumerate(sorted(cells, key=lambda cell: cell.x)):
        shown[t, rows[cell.y]] = float(cell.text.replace(MINUS, "-"))
        assert (cell.style == "carry") == cell.text.startswith(MINUS)
    assert torch.equal(shown, tokens.dense(given["width"], torch.float32)[:, 0])
    sign = int(answer.text.replace(MINUS, "-"))
    assert (sign, answer.style) == ((1, "state") if label.item() else (-1, "carry"))
    again = (tokens.index[1:] == 0).any().item()
    assert ("+e0 comes again later" in scene.captions[0]) == again


@pytest.mark.parametrize("given", TASKS, ids=lambda given: f"seed-{given['seed']}")
def test_a_state_comes_from_the_left_and_from_above_and_the_last_is_read(given):
    scene = problem_2b_with_network(**given)
    outputs = boxes(scene, "pair")
    layers, steps = given.get("layers", 2), given["steps"]
    assert len(outputs) == layers * steps and len(scene.captions) == layers + 2
    arrows = [shape for shape in scene.shapes if isinstance(shape, Arrow)]
    places = {(box.x, box.y) for box in [*outputs, *boxes(scene, "input")]}
    for box in outputs:
        into = [arrow for arrow in arrows if (arrow.x1, arrow.y1) == (box.x, box.y)]
        carried, given_down = sorted(into, key=lambda arrow: arrow.style != "good")
        assert carried.y0 == box.y and (carried.x0, carried.y0) in places
        assert given_down.x0 == box.x and given_down.y0 > box.y
    out = [a for a in arrows if (a.x0, a.y0) == (outputs[-1].x, outputs[-1].y)]
    assert [(arrow.frame, arrow.x1) for arrow in out] == [(layers + 1, outputs[-1].x)]


def overlaps(scene):
    """Return words that overlap other words, a box's edge, an arrow, a line or the margin."""
    figure = scene.figure()
    figure.canvas.draw()
    panel = figure.axes[0]
    words = [(text.get_text(), text.get_window_extent()) for text in panel.texts if text.get_text()]
    found = [(a, b) for (a, one), (b, two) in combinations(words, 2) if one.overlaps(two)]
    for artist in [*panel.patches, *panel.lines]:
        path = artist.get_transform().transform_path(artist.get_path())
        parts = [Path(points) for points in path.to_polygons(closed_only=False)]
        found += [
            (t, str(artist))
            for t, box in words
            if any(part.intersects_bbox(box, filled=False) for part in parts)
        ]
    whole = figure.bbox
    found += [
        (t, "the margin")
        for t, box in words
        if not (
            whole.containsx(box.x0)
            and whole.containsx(box.x1)
            and whole.containsy(box.y0)
            and whole.containsy(box.y1)
        )
    ]
    return found


@pytest.mark.parametrize(
    "scene",
    [*(split(n, p)[2] for n, p in SPLITS), *(problem_2b_with_network(**t) for t in TASKS)],
    ids=lambda scene: scene.title[:24],
)
def test_no_words_overlap_anything(scene):
    assert overlaps(scene) == []


@pytest.mark.parametrize(
    "shape",
    [
        Text(0.4, 0, "words"),
        Box(0.7, 0, "", width=1.0),
        Arrow(0, 1, 0, -1),
        Line(((-1, 0.0), (1, 0.0))),
    ],
    ids=lambda shape: type(shape).__name__,
)
def test_words_that_overlap_something_are_found(shape):
    scene = Scene("title", "alt", ["caption"], [Text(0, 0, "some words"), Text(0, -2, "x"), shape])
    assert overlaps(scene)


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match="processors is 4, expected 1 to 3"):
        serial_against_parallel([1] * 3, [1] * 3, processors=4)
    for layers in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"layers must be an int of at least 1, not {layers}"):
            problem_2b_with_network(4, 4, seed=0, layers=layers)
    with pytest.raises(ValueError, match="steps must be an int of at least 1, not 0"):
        problem_2b_with_network(0, 4, seed=0)
