"""The lessons that use the simulator: its log, their exercises, and the names of mistakes."""

import numpy as np
import pytest
from lessons import checks, exercises
from projects import in_run

from lrscan.core.algebra import compose
from lrscan.learn.exercises import lesson_03, lesson_04, lesson_05, lesson_06
from lrscan.learn.exercises.check import NotYet, NotYours
from lrscan.learn.machines import kernels, simulator, trace, traffic, warp

CHECKS = checks(lesson_03, lesson_04, lesson_05, lesson_06)
EXERCISES = {exercise.name: exercise for exercise in exercises(simulated=True)}
A, X = np.array([[1, -1, 1, 1, -1, 1, 1, -1], [3, 1, 4, 1, 5, 9, 2, 6]], dtype=np.float32)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("LRSCAN_RUN", raising=False)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_stub_fails_and_explains_what_to_do(name, capsys):
    exercise = EXERCISES[name]
    exercise.run(exercise.stub)
    output = capsys.readouterr().out
    assert output.startswith("Not yet: ") and len(output) > 60


@pytest.mark.parametrize("name", EXERCISES)
def test_every_solution_passes(name, capsys):
    exercise = EXERCISES[name]
    exercise.run(exercise.solution)
    assert capsys.readouterr().out.startswith("Right: ")


# (exercise, mistake, text of the solution, the wrong text that replaces it).
MISTAKES = [
    (
        "03-scan_round",
        "swapped operands",
        "compose(a[i - distance], x[i - distance], p, r)",
        "compose(p, r, a[i - distance], x[i - distance])",
    ),
    (
        "03-scan_round",
        "forgotten copy",
        "    a_out[i], x_out[i] = p, r",
        "        a_out[i], x_out[i] = p, r",
    ),
    ("04-block_scan", "missing barrier", "cuda.syncthreads()  # all have read", "pass"),
    (
        "04-block_scan",
        "missing barrier",
        "        cuda.syncthreads()\n        p, r",
        "        p, r",
    ),
    (
        "04-block_scan",
        "too many barriers",
        "        cuda.syncthreads()\n        p, r",
        "        cuda.syncthreads()\n        cuda.syncthreads()\n        p, r",
    ),
    (
        "04-block_scan",
        "too many barriers",
        "        distance *= 2\n",
        "        distance *= 2\n    cuda.syncthreads()\n",
    ),
    (
        "04-block_scan",
        "barrier not reached by all",
        "        if i >= distance:\n",
        "        if i >= distance:\n            cuda.syncthreads()\n",
    ),
    ("04-block_scan", "forgotten start", "h[i] = P[i] * h0 + R[i]", "h[i] = R[i]"),
    (
        "04-block_scan",
        "swapped operands",
        "compose(P[i - distance], R[i - distance], p, r)",
        "compose(p, r, P[i - distance], R[i - distance])",
    ),
    (
        "04-block_scan",
        "exclusive for inclusive",
        "    if i < a.size:\n        h[i] = P[i] * h0 + R[i]",
        "    cuda.syncthreads()\n    if i < a.size:\n"
        "        h[i] = h0 if i == 0 else P[i - 1] * h0 + R[i - 1]",
    ),
    ("04-cell_of", "conflicts remain", "i + i // 32", "i"),
    ("04-cell_of", "two elements in one cell", "i + i // 32", "i // 2"),
    ("04-cell_of", "too many cells", "i + i // 32", "33 * i"),
    ("04-cell_of", "not a cell", "i + i // 32", "i + i / 32"),
    ("04-cell_of", "not a cell", "i + i // 32", "-(i + i // 32)"),
    ("04-cell_of", "not a cell", "i + i // 32", "[i]"),
    ("04-warp_scan", "not a pair", "return p, r", "return r"),
    ("04-warp_scan", "not a pair", "return p, r", "return (p, r) if lane else None"),
    (
        "04-warp_scan",
        "shuffle inside an if",
        "        p_below",
        "        if lane < distance:\n            break\n        p_below",
    ),
    (
        "04-warp_scan",
        "swapped operands",
        "compose(p_below, r_below, p, r)",
        "compose(p, r, p_below, r_below)",
    ),
    ("04-warp_scan", "no guard", "if lane >= distance", "if lane >= 0"),
    (
        "05-tile_scan",
        "forgotten carry",
        "        before = carry[tile - 1]\n",
        "        before = 0\n",
    ),
    ("05-tile_scan", "h0 for the carry", "        before = carry[tile - 1]\n", ""),
    (
        "05-tile_scan",
        "flag before value",
        "        carry[tile] = P[i] * before + R[i]\n        ready[tile] = 1\n",
        "        ready[tile] = 1\n        carry[tile] = P[i] * before + R[i]\n",
    ),
    (
        "05-tile_scan",
        "flag before value",
        "        ready[tile] = 1\n",
        "    if i == 30:\n        ready[tile] = 1\n",
    ),
    ("05-tile_scan", "no wait", "        while ready[tile - 1] == 0:\n            pass\n", ""),
    (
        "05-tile_scan",
        "no wait",
        "        while ready[tile - 1] == 0:\n            pass\n",
        "        ready[tile - 1]\n",
    ),
    (
        "05-tile_scan",
        "no wait",
        "        while ready[tile - 1] == 0:\n            pass\n        before = carry[tile - 1]\n",
        "        if ready[tile - 1] == 1:\n            before = carry[tile - 1]\n",
    ),
    (
        "05-tile_scan",
        "no wait",
        "        while ready[tile - 1] == 0:\n            pass\n        before = carry[tile - 1]\n",
        "        before = h[tile * 32 - 1]\n",
    ),
    (
        "05-tile_scan",
        "flag not set",
        "        ready[tile] = 1\n",
        "        ready[tile] = tile + 1\n",
    ),
    (
        "05-tile_scan",
        "another carry",
        "        carry[tile] =",
        "        if t < a.size:\n            carry[tile] =",
    ),
    (
        "05-tile_scan",
        "missing barrier",
        "        cuda.syncthreads()\n        P[i], R[i] = p, r\n",
        "        P[i], R[i] = p, r\n",
    ),
    (
        "05-look_back",
        "flag before value",
        '    yield Write("total", k, pair)\n    yield Release("flag", k, 1)\n',
        '    yield Release("flag", k, 1)\n    yield Write("total", k, pair)\n',
    ),
    ("05-look_back", "plain store for the flag", "Release(", "Write("),
    ("05-look_back", "swapped operands", "compose(*found, *carry)", "compose(*carry, *found)"),
    ("05-look_back", "no look-back", 'yield Release("flag", k, 1)', "pass"),
    ("05-look_back", "stuck", 'Release("flag", k,', 'Release("flag", k, 0 *'),
    ("06-gradients", "coefficient not shifted", "np.append(a[1:], 0)", "a"),
    ("06-gradients", "h[t] for h[t-1]", "before * g", "h * g"),
    ("06-gradients", "forgotten start", "np.append(h0,", "np.append(0.0,"),
    ("06-my_scan", "beyond rounding", "before = carry[tile - 1]", "before = 0"),
]


@pytest.mark.parametrize(
    ("name", "mistake", "right", "wrong"),
    MISTAKES,
    ids=[f"{name}-{mistake}".replace(" ", "-") for name, mistake, *_ in MISTAKES],
)
def test_a_mistake_in_a_solution_is_named(name, mistake, right, wrong, capsys):
    exercise = EXERCISES[name]
    assert right in exercise.solution
    exercise.run(exercise.solution.replace(right, wrong))
    assert capsys.readouterr().out.startswith(f"Not yet: {mistake}. ")


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key, check in CHECKS.items() for name in check.mistakes]
)
def test_a_typical_mistake_is_named(key, name):
    problem = CHECKS[key].verdict(CHECKS[key].mistakes[name].answer)
    assert problem is not None and problem.name == name, problem
    assert len(problem.words) > 40


def test_an_answer_may_work_in_place_without_changing_the_next_check():
    def downward(pairs, distance):
        for i in reversed(range(distance, len(pairs))):
            pairs[i] = compose(*pairs[i - distance], *pairs[i])
        return pairs

    def upward(pairs, distance):
        for i in range(distance, len(pairs)):
            pairs[i] = compose(*pairs[i - distance], *pairs[i])
        return pairs

    for _ in range(2):
        assert lesson_03.one_round.verdict(downward) is None
        assert lesson_03.one_round.verdict(upward).name == "read after write"


# (exercise, text of the solution, the text of another right answer that replaces it).
OTHERS = [
    (
        "04-block_scan",
        "    P = cuda.shared.array(32, float32)\n    R = cuda.shared.array(32, float32)",
        "    P, R = cuda.shared.array(32, float32), cuda.shared.array(32, float32)",
    ),
    ("04-cell_of", "i + i // 32", "i + int(i / 32)"),
    ("04-warp_scan", "return p, r", "return [p, r]"),
    (
        "05-tile_scan",
        "        while ready[tile - 1] == 0:\n            pass\n",
        "        if i == 0:\n            while ready[tile - 1] == 0:\n                pass\n"
        "        cuda.syncthreads()\n",
    ),
    (
        "05-tile_scan",
        "        ready[tile] = 1\n",
        "    cuda.syncthreads()\n    if i == 0:\n        ready[tile] = 1\n",
    ),
]


@pytest.mark.parametrize(("name", "one", "other"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_another_right_answer_is_accepted(name, one, other, capsys):
    exercise = EXERCISES[name]
    assert one in exercise.solution
    exercise.run(exercise.solution.replace(one, other))
    assert capsys.readouterr().out.startswith("Right: ")


def test_one_barrier_per_round_is_enough_with_two_arrays(capsys):
    exercise = EXERCISES["04-block_scan"]
    array = "cuda.shared.array(32, float32)"
    two = (
        exercise.solution.replace(f"P = {array}", f"P, P2 = {array}, {array}")
        .replace(f"R = {array}", f"R, R2 = {array}, {array}")
        .replace("cuda.syncthreads()  # all have read", "P, P2, R, R2 = P2, P, R2, R")
    )
    exercise.run(two)
    assert capsys.readouterr().out.startswith("Right: ")


def test_a_wrong_solution_is_raised_in_a_headless_run(monkeypatch):
    in_run(monkeypatch, notebook="learn/04")
    with pytest.raises(NotYet, match="missing barrier"):
        lesson_04.block_scan(kernels.missing_barrier)


@pytest.mark.parametrize("order", ["ascending", "descending", 0, 1])
def test_a_missing_barrier_is_found_in_every_order(order):
    h = np.zeros(8, np.float32)
    log = simulator.launch(kernels.missing_barrier, 1, 32, A, X, np.float32(1), h, order=order)
    race = log.races()[0]
    assert race.first.kind == "write" and race.first.thread != race.second.thread
    right = np.array_equal(h, trace.serial(A.tolist(), X.tolist(), 1).states)
    assert right == (order == "descending")


def test_bank_conflicts_follow_from_the_addresses():
    values, sums = np.ones(1024, np.float32), np.zeros(32, np.float32)
    for stride in (1, 2, 4, 8, 16):
        for padding, turns in ((0, 2 * stride), (1, 1)):
            log = simulator.launch(kernels.tree_level, 1, 32, values, sums, stride, padding)
            assert max(ways for _, ways in log.conflicts()) == turns
            assert (sums == 2).all() and not log.races() and not log.stranded


def test_bytes_of_the_packages_kernels():
    assert traffic.bytes_moved("serial", 256, 4) == 12
    assert 20 <= traffic.bytes_moved("blocked", 256, 4) < 21
    assert 19.9 < traffic.bytes_moved("serial", 256, 4, backward=True) < 20.1


def test_an_error_in_a_kernel_is_reported(capsys):
    def outside(a, x, h0, h):
        h[99] = 0

    lesson_04.block_scan(outside)
    assert "Not yet: IndexError. The kernel fails" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["04-block_scan", "05-tile_scan", "06-my_scan"])
def test_an_error_of_the_simulator_is_not_blamed_on_the_learner(name, monkeypatch):
    def broken(*_):
        raise AttributeError("no such thing on this machine")

    monkeypatch.setattr(simulator.numpy_support, "as_dtype", broken)
    with pytest.raises(NotYours, match="simulator does not work here.*no such thing"):
        EXERCISES[name].run(EXERCISES[name].solution)


def test_a_warp_program_without_a_shuffle_is_refused():
    with pytest.raises(TypeError, match="yields no shuffle"):
        warp.run(lambda lane, v: v, list(range(32)))
