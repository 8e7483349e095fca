"""The models behind the lessons, and the scenes drawn from them."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from projects import in_run

from lrscan.core.algebra import compose
from lrscan.learn.machines import (
    banks,
    interleave,
    lookback,
    monoids,
    numerics,
    protocol,
    roofline,
    trace,
    warp,
)
from lrscan.learn.machines.interleave import Read, Release, Wait, Write, explore
from lrscan.learn.scenes import draw, long_memory, memory, plane, player, serial_parallel
from lrscan.learn.scenes.scene import STYLES, Box, Line, Scene, Text

A, X = [1, 2, 0, 1, 1, 2, 1, 3], [3, 1, 4, 1, 5, 9, 2, 6]
LOG = SimpleNamespace(
    accesses=[
        SimpleNamespace(array=name, thread=t, index=t, epoch=e, kind=kind)
        for t in range(4)
        for name, e, kind in (("x", 0, "read"), ("y", 1, "write"))
    ]
)
SCENES = {
    **{name: scene(A, X, 1) for name, scene in draw.ALGORITHMS.items()},
    "chain": draw.chain(A, X),
    "brackets": draw.brackets(list(zip(A, X, strict=True)), "tree"),
    "gradient chain": draw.gradient_chain(A, X, A),
    "surrogate": draw.surrogate(),
    "serial and parallel": serial_parallel.serial_against_parallel(A, X, 1, processors=3),
    "problem 2b": long_memory.problem_2b_with_network(5, 4, seed=0),
    "accesses": memory.accesses(LOG, "x", 4, 4),
    "memory": memory.launch(LOG, {"x": "reads", "y": "writes"}, 4),
    "timeline": draw.timeline(lookback.simulate(6, 3, "look-back", {1: 5})),
    "banks": memory.banks(banks.tree_index, [1, 2, 4], "tree"),
    "work and depth": plane.work_depth([4, 16, 64], 4),
    "roofline": plane.roofline(roofline.H100, "float32"),
    "curves": plane.curves("t", "x", "y", {"a": [(1, 1e-3), (2, float("inf"))]}, 1.0),
}


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_has_a_picture_a_stepper_and_a_text(name):
    scene = SCENES[name]
    assert len(scene.alt) > 40 and len(scene.captions) > 1
    assert all(0 <= shape.frame < len(scene.captions) for shape in scene.shapes)
    assert {shape.frame for shape in scene.shapes} <= set(range(len(scene.captions)))
    svg, frames = scene.svg()
    assert len(frames) == len(scene.shapes)
    for k in range(len(frames)):
        assert re.search(rf'id="shape-{k}[ab]?"', svg), k
    assert scene.figure().axes and scene.figure(0).axes
    for caption in scene.captions:
        assert caption in scene.text()


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
@pytest.mark.parametrize("name", draw.ALGORITHMS)
def test_the_lines_from_h0_meet_no_box_and_no_label(name, steps):
    shapes = draw.ALGORITHMS[name](A[:steps], X[:steps], 1.2345678).shapes
    boxes = [shape for shape in shapes if isinstance(shape, Box)]
    lines = [shape.points for shape in shapes if isinstance(shape, Line)]
    labels = [shape.x for shape in shapes if isinstance(shape, Text) and shape.align == "right"]
    assert lines
    for (x0, y0), (x1, y1) in (two for points in lines for two in itertools.pairwise(points)):
        assert max(labels) < min(x0, x1)
        for box in boxes:
            beside = min(abs(x0 - box.x), abs(x1 - box.x)) > box.width / 2 and (
                (x0 - box.x) * (x1 - box.x) > 0
            )
            above = min(abs(y0 - box.y), abs(y1 - box.y)) >= box.height / 2 - 1e-9 and (
                (y0 - box.y) * (y1 - box.y) > 0
            )
            assert beside or above


def test_styles_differ_in_grey():
    def grey(colour):
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    looks = {
        (round(grey(s.face.replace("white", "#ffffff")) / 10), s.line, s.hatch)
        for s in STYLES.values()
    }
    assert len(looks) == len(STYLES)


def test_a_stepper_contains_its_data_and_needs_no_network():
    page = player.compare(SCENES, "serial", "Blelloch").html()
    data = page[page.index('getElementById("') :].split("), ", 1)[1].rsplit(");</script>", 1)[0]
    found = json.loads(data.replace("<\\/", "</"))
    first = [panel["choices"][0][1] for panel in found["panels"]]
    captions = [found["scenes"][k]["captions"] for k in first]
    assert captions == [SCENES["serial"].captions, SCENES["Blelloch"].captions]
    assert len(found["scenes"]) == len(SCENES)  # each only once, though two panels offer it
    outside = set(re.findall(r"https?://[\w./]+", page)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/1999/02/22",
        "http://purl.org/dc/elements/1.1/",
        "http://creativecommons.org/ns",
        "http://purl.org/dc/dcmitype/StillImage",
    }
    assert not outside and "import(" not in page and "fetch(" not in page
    assert "src=" not in page and "@import" not in page


def test_two_steppers_on_a_page_do_not_share_an_id():
    one = player.Player(SCENES["chain"])
    roots = [re.search(r'<div id="([\w-]+)"', one.html())[1] for _ in range(2)]
    assert roots[0] != roots[1]


def test_text_in_a_scene_cannot_end_the_script():
    scene = Scene("</script><b>", "alt", ["a </script>", "b"], [Box(0, 0, "x"), Text(0, 1, "y")])
    page = player.Player(scene).html()
    assert page.count("</script>") == 1 and "<b>" not in page.split("<script>")[0]


def test_a_player_without_a_scene_is_refused():
    for panels in ((), ({},)):
        with pytest.raises(ValueError, match="at least one scene"):
            player.Player(*panels)


@pytest.mark.parametrize(
    ("a", "x", "h0", "message"),
    [
        ("1 two", "1 2", "0", "'two' is not a number"),
        ("1 2", "1", "0", "a has 2 numbers, but x has 1"),
        ("", "", "0", "a has 0 numbers, expected 1 to 16"),
        ("1 " * 17, "1 " * 17, "0", "a has 17 numbers"),
        ("1", "1", "x", "'x' is not a number"),
    ],
)
def test_wrong_typed_input_is_refused_by_value(a, x, h0, message):
    with pytest.raises(ValueError, match=message):
        player.read_numbers(a, x, h0)


def test_typed_input_is_read_as_numbers():
    assert player.read_numbers("1, 2 0.5", "3 -1 4", "") == ([1, 2, 0.5], [3, -1, 4], 0)


def test_the_explorer_draws_again_for_every_change(monkeypatch, capsys):
    drawn = []
    monkeypatch.delenv("LRSCAN_RUN", raising=False)
    monkeypatch.setattr(player, "Player", lambda *scenes: drawn.append([s.alt for s in scenes]))
    box = player.explore(draw.ALGORITHMS, a="1 2", x="3 4")
    (left, _), (a, x) = box.children[0].children, box.children[1].children
    assert len(drawn) == 1 and "The serial scan of 2 steps" in drawn[0][0]
    left.value = "Blelloch"
    assert "The Blelloch scan of 2 steps" in drawn[-1][0]
    a.value = "1 2 3"
    assert len(drawn) == 2 and "a has 3 numbers, but x has 2" in capsys.readouterr().out
    x.value = "3 4 5"
    assert "The Blelloch scan of 3 steps" in drawn[-1][0]


def test_the_explorer_is_a_plain_stepper_in_a_headless_run(monkeypatch):
    in_run(monkeypatch, notebook="learn/03")
    page = player.explore(draw.ALGORITHMS, a="1 2 3", x="4 5 6")
    assert isinstance(page, player.Player)
    assert list(page.panels[0]) == list(draw.ALGORITHMS)


@pytest.mark.parametrize("steps", [1, 2, 9, 64])
def test_chunks_cover_time_and_equal_the_loop(steps):
    a, x = [(-1) ** t * (t % 3) for t in range(steps)], [t - 4 for t in range(steps)]
    for processors in range(1, steps + 1):
        chunks = trace.chunks(a, x, 7, processors=processors)
        assert [p.start for p in chunks] == [0, *(p.stop for p in chunks[:-1])]
        assert chunks[-1].stop == steps
        assert [h for p in chunks for h in p.states] == trace.serial(a, x, 7).states
        for chunk in chunks:
            assert chunk.states[-1] == chunk.product * chunk.carry + chunk.end


def test_a_warp_shuffles_in_lock_step():
    def scan(lane, value):
        for distance in (1, 2, 4, 8, 16):
            below = yield warp.Up(value, distance)
            value += below if lane >= distance else 0
        return value

    done = warp.run(scan, list(range(32)))
    assert done.values == list(itertools.accumulate(range(32)))
    assert len(done.shuffles) == 5 and done.shuffles[1][:4] == [0, 1, 0, 1]

    def other(lane, value):
        above = yield warp.Down(value, 1)
        last = yield warp.From(value, 31)
        return above, last

    assert warp.run(other, list(range(32))).values[30:] == [(31, 31), (31, 31)]


def test_lanes_that_miss_a_shuffle_are_named():
    def apart(lane, value):
        if lane > 3:
            value = yield warp.Up(value, 1)
        return value

    def different(lane, value):
        return (yield warp.Up(value, 1 if lane else 2))

    with pytest.raises(warp.Divergence, match="lanes 0 to 3 did not take part .* lanes 4 to 31"):
        warp.run(apart, list(range(32)))
    with pytest.raises(warp.Divergence, match="different shuffles"):
        warp.run(different, list(range(32)))


def test_the_explorer_finds_a_lost_update_and_no_problem_with_a_release():
    def add():
        value = yield Read("n", 0)
        yield Write("n", 0, value + 1)
        return value

    lost = explore([add, add], {"n": [0]}, lambda r: "lost" if list(r.values()) == [0, 0] else None)
    assert lost.problem == "lost" and len(lost.schedule) == 4

    def second():
        yield Wait("flag", 0)
        return (yield Read("n", 0))

    def first(store):
        yield Write("n", 0, 5)
        yield store("flag", 0, 1)

    def right(results):
        return "early" if results.get(1, 5) != 5 else None

    for store, relaxed, problem in (
        (Release, True, None),
        (Write, False, None),
        (Write, True, "early"),
    ):
        programs = [lambda store=store: first(store), second]
        found = explore(programs, {"n": [0], "flag": [0]}, right, relaxed=relaxed)
        assert found.problem == problem


def test_the_explorer_sees_programs_that_wait_for_each_other():
    def waits(k):
        yield Wait("flag", 1 - k)
        yield Release("flag", k, 1)

    found = explore([lambda: waits(0), lambda: waits(1)], {"flag": [0, 0]}, lambda r: None)
    assert found.problem == "stuck: program 0 waits for flag[1], program 1 waits for flag[0]"
    with pytest.raises(IndexError, match=r"program 0 accesses flag\[7\]"):
        explore([lambda: iter([Read("flag", 7)])], {"flag": [0]}, lambda r: None)


def test_the_explorer_gives_up_on_too_many_situations(monkeypatch):
    monkeypatch.setattr(interleave, "MOST_STATES", 50)
    with pytest.raises(RuntimeError, match="more than 50 situations"):
        protocol.run(protocol.look_back, 3)


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_look_back_is_right_in_every_order(tiles):
    for program in (protocol.look_back, protocol.one_word):
        assert protocol.run(program, tiles).problem is None


@pytest.mark.parametrize("mode", ["chain", "look-back"])
@pytest.mark.parametrize("late", [None, 0, 3, 11])
def test_a_timeline_does_one_thing_at_a_time_and_takes_every_carry(mode, late):
    line = lookback.simulate(12, 4, mode, {} if late is None else {late: 7})
    for processor in range(4):
        own = sorted(s[3:] for s in line.spans if s.processor == processor)
        assert all(stop <= start for (_, stop), (start, _) in zip(own, own[1:], strict=False))
    for tile, sources in enumerate(line.sources):
        at = tile - 1
        for source in sources:  # totals back to back, then a prefix
            kind, index = source.split()
            assert int(index) == at
            at = -1 if kind == "prefix" else at - 1
        assert at == -1
    assert mode == "look-back" or all(len(sources) <= 1 for sources in line.sources)


def test_a_timeline_refuses_impossible_arguments():
    with pytest.raises(ValueError, match="0 tiles on 2 processors"):
        lookback.simulate(0, 2, "chain")
    with pytest.raises(ValueError, match="mode is 'ring'"):
        lookback.simulate(1, 1, "ring")
    with pytest.raises(ValueError, match="tile 5 is delayed, but there are tiles 0 to 3"):
        lookback.simulate(4, 2, "chain", {5: 1})


def test_banks_count_turns():
    assert banks.ways(range(32)) == 1 and banks.ways([7] * 32) == 1
    assert banks.ways([32 * k for k in range(32)]) == 32 and banks.ways([]) == 0


def test_the_roofline_is_the_lower_roof():
    roofs = roofline.Roofs("m", 100.0, {"float32": 50.0})
    assert roofline.attainable(roofs, roofline.ElementCost(3, 3), "float32") == (0.25, 25.0)
    assert roofline.attainable(roofs, roofline.ElementCost(120, 3), "float32")[1] == 50.0


def test_a_scan_over_any_monoid_is_the_running_result():
    words = list("abcdefg")
    assert monoids.scan(str.__add__, words) == list(itertools.accumulate(words))
    pairs = [(2, 3), (1, 4), (-1, 2), (0, 5), (3, 1)]
    composed = monoids.scan(lambda p, q: compose(*p, *q), pairs)
    assert composed == list(itertools.accumulate(pairs, lambda p, q: compose(*p, *q)))
    first, second = np.array([[1.0, 2], [3, 4]]), np.array([[2.0, 1], [1, 1]])
    both = monoids.apply_fraction(monoids.fraction_after(first, second), 0.7)
    assert both == pytest.approx(monoids.apply_fraction(second, monoids.apply_fraction(first, 0.7)))


@pytest.mark.parametrize("method", numerics.METHODS.values(), ids=numerics.METHODS)
def test_every_formula_is_the_recurrence_over_few_steps(method):
    assert numerics.error(method, *numerics.gates(20, 0.8)) < 1e-13


def test_the_error_of_a_result_that_is_not_finite_is_infinite():
    a, x = numerics.gates(8, 0.9)
    a[3] = 0
    assert numerics.error(numerics.division, a, x) == float("inf")
    assert numerics.error(numerics.tree, a, x) < 1e-14
    assert torch.isfinite(numerics.serial(a, x)).all()
