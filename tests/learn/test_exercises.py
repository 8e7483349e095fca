"""Checks of the exercises name typical mistakes.

The checks that need the simulator are tested in ``tests/cuda/simulator``.
"""

import json

import nbformat
import numpy as np
import pytest
from lessons import NOTEBOOKS, checks, exercises
from projects import in_run

from lrscan.learn import editions
from lrscan.learn.exercises import lesson_01, lesson_02, lesson_07, lesson_08, lesson_09
from lrscan.learn.exercises.check import Check, NotYet, NotYours, compared

CHECKS = checks(lesson_01, lesson_02, lesson_07, lesson_08, lesson_09)
MISTAKES = [(key, name) for key, check in CHECKS.items() for name in check.mistakes]


@pytest.mark.parametrize(("key", "name"), MISTAKES, ids=lambda value: value.replace(" ", "-"))
def test_a_typical_mistake_is_named(key, name):
    problem = CHECKS[key].verdict(CHECKS[key].mistakes[name].answer)
    assert problem is not None and problem.name == name, problem
    assert len(problem.words) > 40


def test_every_check_knows_a_mistake():
    assert all(check.mistakes for check in CHECKS.values())


def test_a_wrong_answer_is_printed_for_a_learner_and_raised_in_a_headless_run(monkeypatch, capsys):
    def swapped(a1, x1, a2, x2):
        return a1 * a2, a1 * x2 + x1

    monkeypatch.delenv("LRSCAN_RUN", raising=False)
    lesson_02.compose(swapped)
    assert "Not yet: swapped operands. That is the second map" in capsys.readouterr().out
    lesson_02.compose(lambda a1, x1, a2, x2: (a2 * a1, a2 * x1 + x2))
    assert capsys.readouterr().out == "Right: one map followed by another is again one map.\n"
    in_run(monkeypatch, notebook="learn/02")
    with pytest.raises(NotYet, match="swapped operands"):
        lesson_02.compose(swapped)


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (lambda a1, x1, a2, x2: None, "nothing returned", "Replace the three dots"),
        (lambda a1, x1, a2, x2: ..., "nothing returned", "Replace the three dots"),
        (lambda a1, x1, a2, x2: 1 / 0, "ZeroDivisionError", "your code fails: division by zero"),
        (lambda a1, x1: (a1, x1), "TypeError", "positional argument"),
        (lambda a1, x1, a2, x2: (1, 2), "another value", "but the right answer is (10, 22)"),
        (lambda a1, x1, a2, x2: "?", "another value", "it gives '?'"),
    ],
)
def test_other_wrong_answers_are_explained(answer, name, words):
    problem = lesson_02.compose.verdict(answer)
    assert problem.name == name and words in problem.words


def test_a_check_that_fails_itself_gives_no_verdict():
    check = compared("halves", lambda value: value // 0, [(4,)], {})
    with pytest.raises(NotYours, match="your answer was not judged.*ZeroDivisionError"):
        check(lambda value: value / 2)


def test_an_answer_may_work_in_place_without_changing_the_next_check():
    def zeroed(a, x, starts):
        a[starts] = 0
        return a, x

    for _ in range(2):
        assert lesson_09.reset.verdict(zeroed) is None
        assert lesson_09.reset.verdict(lambda a, x, starts: (a, x)).name == "another value"


@pytest.mark.parametrize(
    "answer",
    [10**400, {1: 2}, [[1], [2, 3]], lambda: 0, 1j],
    ids=["huge", "dict", "ragged", "function", "complex"],
)
def test_no_answer_breaks_a_check(answer):
    for check in (lesson_02.compose, lesson_08.attainable, lesson_09.gilr):
        assert check.verdict(lambda *inputs: answer).name == "another value"
    assert Check("", lambda given: len(given), {}).verdict(0).name == "TypeError"


def test_every_formula_that_keeps_the_digits_is_right_in_float32():
    for right in (
        lambda z: -np.log1p(np.exp(z)),
        lambda z: -np.logaddexp(0, z),
        lambda z: np.log(1 / (1 + np.exp(z))),
    ):
        assert lesson_07.log_complement.verdict(right) is None


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.delenv("LRSCAN_RUN", raising=False)


EXERCISES = exercises(simulated=False)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_every_stub_fails_and_says_what_to_do(exercise, alone, capsys):
    exercise.run(exercise.stub)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and len(said) > 60


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_every_solution_passes(exercise, alone, capsys):
    exercise.run(exercise.solution)
    assert capsys.readouterr().out.startswith("Right: ")


def test_a_check_has_the_name_of_its_exercise():
    for exercise in [*EXERCISES, *exercises(simulated=True)]:
        name = exercise.name.split("-")[1]
        assert exercise.check.startswith(f"check.{name}({name}"), exercise.name
        number = int(exercise.name[:2])
        assert f"from lrscan.learn.exercises import lesson_{number:02} as check" in exercise.context


def test_every_notebook_has_two_or_three_exercises():
    every = [*EXERCISES, *exercises(simulated=True)]
    for notebook in NOTEBOOKS:
        assert 2 <= sum(e.notebook == notebook.name for e in every) <= 4, notebook.name
    assert {e.notebook for e in every} == {notebook.name for notebook in NOTEBOOKS}


def test_editions_for_students_and_with_solutions(tmp_path):
    root = NOTEBOOKS[0].path.parents[2]
    written = editions.write(root, tmp_path)
    assert len(written) == 2 * len(NOTEBOOKS)
    every = {e.name: e for e in [*EXERCISES, *exercises(simulated=True)]}
    for notebook in NOTEBOOKS:
        texts = {}
        for edition in ("student", "solutions"):
            path = tmp_path / edition / notebook.path.name
            nbformat.validate(nbformat.read(path, as_version=4))
            cells = json.loads(path.read_text())["cells"]
            assert all("solution" not in cell["metadata"] for cell in cells)
            texts[edition] = ["".join(cell["source"]) for cell in cells]
        for exercise in (e for e in every.values() if e.notebook == notebook.name):
            assert exercise.stub in texts["student"]
            assert exercise.solution not in texts["student"]
            assert exercise.solution in texts["solutions"]


def test_editions_without_lessons_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no lessons in"):
        editions.write(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
