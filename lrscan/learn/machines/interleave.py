"""An explorer that runs a few programs in every order of their memory accesses.

A program is a generator that yields its accesses::

    value = yield Read("flag", 0)            read the current value
    value = yield Wait("flag", 0)            sleep until it is not 0, then read it
    yield Write("total", 0, 3)               an ordinary store
    yield Release("flag", 0, 1)              a store that arrives after all earlier ones

Between any two of these, any other program may run. With ``relaxed`` memory, as on a GPU, ordinary
stores of a program may also arrive late and in another order; a Release arrives after them.
:func:`explore` visits every situation once, and returns the shortest failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_STATES = 100_000


class TooMany(RuntimeError):
    """There are more situations than can be visited."""


@dataclass(frozen=True)
class Read:
    """Read ``array[index]``."""

    array: str
    index: int


@dataclass(frozen=True)
class Wait:
    """Spin until ``array[index]`` is not 0, and read it."""

    array: str
    index: int


@dataclass(frozen=True)
class Write:
    """Store to ``array[index]``; other programs may see it after a later store."""

    array: str
    index: int
    value: Any


@dataclass(frozen=True)
class Release:
    """Store to ``array[index]``; a program that sees it sees all earlier stores, too."""

    array: str
    index: int
    value: Any


class Exploration(NamedTuple):
    """The result of :func:`explore`.

    Attributes:
        states:   the number of different situations that were visited
        problem:  what went wrong in one of them, or None
        schedule: the events that led to the problem, a line for each
        results:  what the programs that had ended returned, in the failing order or in any order
        memory:   what the arrays held then
    """

    states: int
    problem: str | None
    schedule: list[str]
    results: dict[int, Any]
    memory: dict[str, tuple]

    def __str__(self) -> str:
        if self.problem is None:
            return f"every order is right ({self.states} situations)"
        lines = [f"{k}. {line}" for k, line in enumerate(self.schedule, 1)]
        return "\n".join([self.problem, *lines])


class _State(NamedTuple):
    memory: tuple  # ((array, values), ...)
    answers: tuple  # for each program, the answers it has received so far
    pending: tuple  # for each program, its stores that have not arrived


class _Done(NamedTuple):
    result: Any


def explore(
    programs: Sequence[Callable[[], Generator]],
    memory: Mapping[str, Sequence],
    check: Callable[[dict[int, Any]], str | None],
    *,
    relaxed: bool = False,
    noun: str = "program",
) -> Exploration:
    """Run the programs in every order.

    Args:
        programs: functions that start one generator each
        memory:   the arrays and their first contents; a Wait takes 0 for "not yet"
        check:    takes the results of the programs that have ended, by number; returns what is
                  wrong with them, or None
        relaxed:  whether ordinary stores may arrive late
        noun:     the word for a program in a schedule

    Returns:
        The shortest failure, or the outcome of all orders if there is none.

    Raises:
        IndexError: a program reaches outside an array
        TooMany:    there are more than MOST_STATES situations
    """
    names = list(memory)
    start = _State(
        tuple(tuple(memory[name]) for name in names),
        tuple(() for _ in programs),
        tuple(() for _ in programs),
    )
    known: dict[tuple, Any] = {}

    def next_action(k: int, answers: tuple) -> Any:
        """Return the action of program k after these answers."""
        if (k, answers) not in known:
            program = programs[k]()
            try:
                action = next(program)
                for answer in answers:
                    action = program.send(answer)
            except StopIteration as end:
                action = _Done(end.value)
            known[k, answers] = action
        return known[k, answers]

    parents: dict[_State, tuple[_State, str] | None] = {start: None}
    queue = deque([start])

    def outcome(problem: str | None) -> Exploration:
        schedule = _schedule(parents, state) if problem else []
        memory = dict(zip(names, state.memory, strict=True))
        return Exploration(len(parents), problem, schedule, results, memory)

    while queue:
        state = queue.popleft()
        actions = [next_action(k, answers) for k, answers in enumerate(state.answers)]
        results = {k: a.result for k, a in enumerate(actions) if isinstance(a, _Done)}
        if problem := check(results):
            return outcome(problem)
        if len(results) == len(programs):
            continue
        moves = [
            (after, f"{noun} {k}{line}")
            for after, k, line in _moves(state, actions, names, relaxed)
        ]
        if not moves:
            waiting = ", ".join(
                f"{noun} {k} waits for {a.array}[{a.index}]"
                for k, a in enumerate(actions)
                if isinstance(a, Wait)
            )
            return outcome(f"stuck: {waiting}")
        for after, line in moves:
            if after not in parents:
                parents[after] = (state, line)
                queue.append(after)
        if len(parents) > MOST_STATES:
            raise TooMany(f"more than {MOST_STATES:,} situations: take fewer programs")
    return outcome(None)


def _moves(
    state: _State, actions: list, names: list[str], relaxed: bool
) -> Iterator[tuple[_State, int, str]]:
    """Yield every next situation, the program that leads to it, and the event."""
    for k, action in enumerate(actions):
        for j, (array, index, value) in enumerate(state.pending[k]):
            if any(p[:2] == (array, index) for p in state.pending[k][:j]):
                continue  # stores to one place stay in order
            left = state.pending[k][:j] + state.pending[k][j + 1 :]
            stored = _store(state, names, array, index, value)
            pending = _put(state.pending, k, left)
            line = f"'s store {array}[{index}] = {value} arrives"
            yield stored._replace(pending=pending), k, line
        if isinstance(action, _Done):
            continue
        where = f"{action.array}[{action.index}]"
        if not 0 <= action.index < len(state.memory[names.index(action.array)]):
            raise IndexError(f"program {k} accesses {where}, which does not exist")
        match action:
            case Read() | Wait():
                value = _load(state, names, k, action)
                if isinstance(action, Read) or value != 0:
                    yield _answer(state, k, value), k, f" reads {where}: {value}"
            case Write(array, index, value) if relaxed:
                pending = (*state.pending[k], (array, index, value))
                after = state._replace(pending=_put(state.pending, k, pending))
                yield _answer(after, k, None), k, f" stores {where} = {value} (on its way)"
            case Write(array, index, value):
                after = _store(state, names, array, index, value)
                yield _answer(after, k, None), k, f" stores {where} = {value}"
            case Release(array, index, value) if not state.pending[k]:
                after = _store(state, names, array, index, value)
                yield _answer(after, k, None), k, f" releases {where} = {value}"


def _load(state: _State, names: list[str], k: int, action: Read | Wait) -> Any:
    own = [p[2] for p in state.pending[k] if p[:2] == (action.array, action.index)]
    return own[-1] if own else state.memory[names.index(action.array)][action.index]


def _store(state: _State, names: list[str], array: str, index: int, value: Any) -> _State:
    n = names.index(array)
    return state._replace(memory=_put(state.memory, n, _put(state.memory[n], index, value)))


def _answer(state: _State, k: int, value: Any) -> _State:
    return state._replace(answers=_put(state.answers, k, (*state.answers[k], value)))


def _put(values: tuple, k: int, value: Any) -> tuple:
    return (*values[:k], value, *values[k + 1 :])


def _schedule(parents: dict, state: _State) -> list[str]:
    lines = []
    while parents[state]:
        state, line = parents[state]
        lines.append(line)
    return lines[::-1]
