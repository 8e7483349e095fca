"""The parts of every check: the verdict, comparing answers, and naming mistakes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lrscan.evidence import context


class NotYet(Exception):
    """An answer that is not right yet.

    name   of the mistake, such as "swapped operands"
    words  what is wrong, and where to look
    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"Not yet: {name}. {words}")
        self.name, self.words = name, words


class NotYours(Exception):
    """The machinery of a check does not work here, so there is no verdict on the answer."""

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__(
            f"{what} does not work here, so your answer was not judged; `lrscan doctor` looks at "
            f"this machine. {type(error).__name__}: {error}"
        )


class Mistake(NamedTuple):
    """A typical wrong answer, and what to say about it."""

    answer: Callable
    words: str


class Check:
    """A check, to be called with the learner's answer.

    examine   raises NotYet for a wrong answer
    mistakes  typical wrong answers, by name, that it recognises
    """

    def __init__(
        self, title: str, examine: Callable[..., None], mistakes: Mapping[str, Mistake]
    ) -> None:
        self.title, self.examine, self.mistakes = title, examine, mistakes

    def verdict(self, *answer: Any) -> NotYet | None:
        """None if the answer is right, else what is wrong with it.

        Raises NotYours if that could not be found out.
        """
        try:
            self.examine(*answer)
        except NotYet as problem:
            return problem
        except NotYours:
            raise
        except Exception as error:  # an answer of a kind that the check did not think of
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
    """The result of an answer. Raises NotYet if the answer raises, or returns nothing."""
    try:
        got = _fresh(answer, arguments)
    except NotYet:
        raise
    except Exception as error:  # whatever a learner's code does
        raise NotYet(
            type(error).__name__, f"For {_words(arguments)} your code stops: {error}"
        ) from None
    if got is None or got is ...:
        raise NotYet("nothing returned", "Replace the three dots, and return the result.")
    return got


def _fresh(answer: Callable, arguments: tuple) -> Any:
    """The result for a copy of the arguments, since an answer may work in place."""
    return answer(*copy.deepcopy(arguments))


def same(one: Any, other: Any) -> bool:
    """Equal, up to rounding in single precision."""
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
    """A check that calls the answer on cases and compares it with the right one.

    A wrong answer that agrees with a typical mistake on all cases is called by its name.
    """
    cases = list(cases)

    def examine(answer: Callable) -> None:
        for case in cases:
            try:
                expected = _fresh(right, case)
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
                f"For {_words(case)} it gives {_word(got)}, but the "
                f"right answer is {_word(expected)}.",
            )

    return Check(title, examine, mistakes)


def _behaves_as(answer: Callable, mistake: Callable, cases: list[tuple]) -> bool:
    try:
        return all(same(_fresh(answer, case), _fresh(mistake, case)) for case in cases)
    except Exception:  # one of them stops on a case where the other does not
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
