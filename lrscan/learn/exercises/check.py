"""The parts of every check: the verdict, comparing answers, and naming mistakes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lrscan.evidence import context


class NotYet(Exception):
    """An answer is not right yet.

    Attributes:
        name:  the name of the mistake, such as "swapped operands"
        words: what is wrong, and where to look
    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"Not yet: {name}. {words}")
        self.name, self.words = name, words


class NotYours(Exception):
    """A part of a check does not work here, so there is no verdict on the answer."""

    def __init__(self, part: str, error: Exception) -> None:
        super().__init__(
            f"{part} does not work here, so your answer was not judged. Run `lrscan doctor` to "
            f"find out why. {type(error).__name__}: {error}"
        )


class Mistake(NamedTuple):
    """A typical wrong answer, and what to say about it."""

    answer: Callable
    words: str


class Check:
    """A check, to be called with the learner's answer.

    Attributes:
        title:    what a right answer has shown
        examine:  raises NotYet for a wrong answer
        mistakes: typical wrong answers that the check recognises, by name
    """

    def __init__(
        self, title: str, examine: Callable[..., None], mistakes: Mapping[str, Mistake]
    ) -> None:
        self.title, self.examine, self.mistakes = title, examine, mistakes

    def verdict(self, *answer: Any) -> NotYet | None:
        """Return None if the answer is right, else what is wrong with it.

        Raises:
            NotYours: a part of the check does not work
        """
        try:
            self.examine(*answer)
        except NotYet as problem:
            return problem
        except NotYours:
            raise
        except Exception as error:  # an answer that the check did not expect
            return NotYet(type(error).__name__, f"The check cannot read your answer: {error}.")
        return None

    def __call__(self, *answer: Any) -> None:
        problem = self.verdict(*answer)
        if problem is None:
            print(f"Right: {self.title}.")
        elif context.current().headless:
            raise problem
        else:
            print(problem)


def call(answer: Callable, *arguments: Any) -> Any:
    """Return the result of an answer.

    Raises:
        NotYet: the answer raises, or returns nothing
    """
    try:
        got = _on_copies(answer, arguments)
    except NotYet:
        raise
    except Exception as error:  # whatever a learner's code does
        raise NotYet(
            type(error).__name__, f"For {_words(arguments)} your code fails: {error}"
        ) from None
    if got is None or got is ...:
        raise NotYet(
            "nothing returned", "Replace the three dots with your code, and return the result."
        )
    return got


def _on_copies(answer: Callable, arguments: tuple) -> Any:
    """Return the result for copies of the arguments, because an answer may work in place."""
    return answer(*copy.deepcopy(arguments))


def same(one: Any, other: Any) -> bool:
    """Return True if both are equal up to rounding in single precision."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, str):
        return isinstance(one, str) and one == other
    try:
        first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return False
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-5, atol=1e-6)


def compared(
    title: str,
    right: Callable,
    cases: Iterable[tuple],
    mistakes: Mapping[str, Mistake],
) -> Check:
    """Make a check that compares the answer with the right one on some cases.

    If a wrong answer agrees with a typical mistake on all cases, the check names the mistake.
    """
    cases = list(cases)

    def examine(answer: Callable) -> None:
        for case in cases:
            try:
                expected = _on_copies(right, case)
            except Exception as error:
                raise NotYours("The right answer", error) from error
            got = call(answer, *case)
            if same(got, expected):
                continue
            for name, mistake in mistakes.items():
                if _behaves_as(answer, mistake.answer, cases):
                    raise NotYet(name, mistake.words)
            raise NotYet(
                "another value",
                f"For {_words(case)} it gives {_word(got)}, but the right answer is "
                f"{_word(expected)}.",
            )

    return Check(title, examine, mistakes)


def _behaves_as(answer: Callable, mistake: Callable, cases: list[tuple]) -> bool:
    try:
        return all(same(_on_copies(answer, case), _on_copies(mistake, case)) for case in cases)
    except Exception:  # one of them fails on a case where the other does not
        return False


def _words(arguments: tuple) -> str:
    return ", ".join(_word(argument) for argument in arguments)


def _word(value: Any) -> str:
    name = getattr(value, "__name__", None)
    text = (
        name or np.array2string(value, precision=4)
        if isinstance(value, np.ndarray)
        else (name or repr(value))
    )
    return text if len(text) <= 160 else text[:157] + "..."
