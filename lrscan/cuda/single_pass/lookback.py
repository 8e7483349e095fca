"""Handing states from tile to tile while all of them run: chained scan with look-back.

After Merrill and Garland, *Single-pass parallel prefix scan with decoupled look-back* (2016), with
a fixed order of combining in place of theirs, which depends on timing. Tiles of a column:

    time ->   tile 0   tile 1   tile 2 | tile 3   tile 4   tile 5 | tile 6 ...     radix 3
    map       (P,R)    (P,R)           | (P,R)    (P,R)           |
    state                              h                          h
              +------- group 0 --------+------- group 1 ----------+

A tile is the map h -> P h + R. If that is finite, the tile publishes it before it waits for
anything; the last tile of a group publishes a state instead, the one after it. A tile composes the
maps of the earlier tiles of its group, in order, waits for the state that its group begins with,
and applies them. With radix 1 there are no maps: a plain chain of states.

**No deadlock.** Tiles are numbered by tickets, which a running block draws, earlier times first. A
tile waits only for words of smaller tickets, whose blocks are running or done; so the smallest
ticket that is not done never waits for long, however few blocks the device keeps running.

**No fence.** Every word carries its own flag (:mod:`lrscan.cuda.memory`), so it does not matter in
which order a device shows words to other blocks. All words have to be zero at the start.

**Overflow and underflow.** A product P may be infinite where the states are finite, and zero where
it would make NaN of an infinite state. Maps also take a coefficient of exactly zero, which forgets
NaN and infinity, for a number as any other. So the state that maps lead to at the end of a tile
counts only if it is finite; else all steps of the group up to there are run one after the other. A
tile whose P is not finite waits for that, and publishes the constant map h -> 0 h + R. An algebra
that is not guarded needs none of this.

These functions are compiled into the kernels. tests/cuda/test_lookback.py runs them on a model of
memory that delays and reorders as much as it may, and tests/cuda/test_compiled_code.py looks for
the loads and stores of words in the machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

TICKET_BYTES = 8  # at the start of a workspace
WORD_BYTES = 8


class Words(NamedTuple):
    """How many words a value is: P, the coefficient of a map, and R, or a state."""

    P: int
    R: int


class Chain(NamedTuple):
    """Where a tile stands in the chain of all tiles.

    words    address of the words of all tiles: their maps, then the states between groups
    radix    tiles per group
    number   of the tile, in time
    tiles    in time
    columns  of all strips
    first    the tile's first column
    width    columns that it has
    """

    words: int
    radix: int
    number: int
    tiles: int
    columns: int
    first: int
    width: int


class Memory(Protocol):
    """What blocks share, and whole numbers: functions of :mod:`lrscan.cuda.memory`.

    ``P_of(words)`` and ``R_of(words)`` are its ``value_of`` for the two kinds of values.
    """

    load_words: Callable
    store_words: Callable
    complete: Callable
    words_of: Callable
    P_of: Callable
    R_of: Callable
    finite: Callable
    divide: Callable


class Composition(Protocol):
    """What is asked of an algebra, see :class:`lrscan.cuda.steps.Compiled`."""

    one: Any
    zero: Any
    nothing: Any
    step: Callable
    compose: Callable


class TileFunctions(Protocol):
    """What a tile knows about itself, as functions of its ``job``, whatever that is.

    map_of(job, j)           (P, R) of its column j
    begin(job, j)            the state before the first step of all
    put_earlier(job, i, P, R)
                             keep a map for all threads of the block, as number i
    earlier(job, i)          what was put there
    carry(job, j, h)         take h as the state that column j begins with
    redo(job, j, tiles, h)   run column j step by step, from the state h that so many tiles before
                             it begin with; carry the state that the tile begins with, and return
                             the one it ends with
    """

    map_of: Callable
    begin: Callable
    put_earlier: Callable
    earlier: Callable
    carry: Callable
    redo: Callable


def workspace_bytes(words: Words, tiles: int, columns: int, radix: int) -> int:
    """Size of the workspace: the ticket counter, the maps of tiles, the states between groups."""
    maps = tiles if radix > 1 else 0
    states = (tiles - 1) // radix
    return TICKET_BYTES + WORD_BYTES * columns * ((words.P + words.R) * maps + words.R * states)


def make_look_back(
    words: Words,
    memory: Memory,
    algebra: Composition,
    tile: TileFunctions,
    barrier: Callable,
    device: Callable,
    guarded: bool = True,
) -> Callable:
    """The function by which the threads of a block learn the state that their tile begins with.

    Args:
        words:   how many a value is
        memory, algebra, tile: functions, see the protocols
        barrier: waits for all threads of the block
        device:  compiles a function (the tests do not)
        guarded: whether a map that does not lead to a finite state is not believed

    Returns:
        ``look_back(job, chain, thread, threads)``, for each thread of a block. It puts
        ``width * (radix - 1)`` earlier maps at most.
    """
    load_words, store_words, complete = memory.load_words, memory.store_words, memory.complete
    words_of, P_of, R_of = memory.words_of, memory.P_of, memory.R_of
    finite, divide = memory.finite, memory.divide
    step, compose = algebra.step, algebra.compose
    one, zero, nothing = algebra.one, algebra.zero, algebra.nothing
    map_of, begin, carry, redo = tile.map_of, tile.begin, tile.carry, tile.redo
    put_earlier, earlier = tile.put_earlier, tile.earlier
    P_words, R_words, map_words = words.P, words.R, words.P + words.R
    P_bytes, R_bytes = WORD_BYTES * P_words, WORD_BYTES * R_words
    map_bytes = P_bytes + R_bytes

    @device
    def map_address(chain, number, j):
        """Of the words of the map of column j of the tile ``number``."""
        return chain.words + (chain.first + j) * map_bytes + number * (chain.columns * map_bytes)

    @device
    def state_address(chain, group, j):
        """Of the words of the state of column j after a group."""
        states = chain.words
        if chain.radix > 1:
            states = chain.words + chain.tiles * chain.columns * map_bytes
        return states + (chain.first + j) * R_bytes + group * chain.columns * R_bytes

    @device
    def publish_map(at, P, R):
        store_words(at, words_of(P))
        store_words(at + P_bytes, words_of(R))

    # All words of what is awaited are read before any is waited for: one way to memory for all.

    @device
    def await_map(at):
        found = load_words(at, map_words)
        while not complete(found):
            found = load_words(at, map_words)
        return P_of(found[:P_words]), R_of(found[P_words:])

    @device
    def await_state(at):
        found = load_words(at, R_words)
        while not complete(found):
            found = load_words(at, R_words)
        return R_of(found)

    @device
    def publish_maps(job, chain, rank, thread, threads):
        """The tile's own maps, before any wait; none where a state or nothing is handed on."""
        if rank == chain.radix - 1 or chain.number == chain.tiles - 1:
            return
        j = thread
        while j < chain.width:
            P, R = map_of(job, j)
            if not guarded or finite(P):
                publish_map(map_address(chain, chain.number, j), P, R)
            j += threads

    @device
    def collect_maps(job, chain, rank, thread, threads):
        """Those of the earlier tiles of the group: the threads share them, tile after tile."""
        i = thread
        while i < rank * chain.width:
            tiles, j = divide(i, chain.width)
            P, R = await_map(map_address(chain, chain.number - rank + tiles, j))
            put_earlier(job, i, P, R)
            i += threads

    @device
    def hand_on(job, chain, group, rank, thread, threads):
        """A thread takes a column: the state it begins with, by the earlier maps, and ends with."""
        closes, ends = rank == chain.radix - 1, chain.number == chain.tiles - 1
        j = thread
        while j < chain.width:
            P, R = one, zero
            i = j
            while i < rank * chain.width:
                earlier_P, earlier_R = earlier(job, i)
                P, R = compose(P, R, earlier_P, earlier_R)
                i += chain.width
            if group == 0:
                h = begin(job, j)
            else:
                h = await_state(state_address(chain, group - 1, j))
            start = step(P, R, h)
            carry(job, j, start)
            P, R = map_of(job, j)
            end = step(P, R, start)
            if guarded and not finite(end):
                end = redo(job, j, rank, h)
            if closes and not ends:
                store_words(state_address(chain, group, j), words_of(end))
            elif guarded and not finite(P) and not ends:
                publish_map(map_address(chain, chain.number, j), nothing, end)
            j += threads

    @device
    def look_back(job, chain, thread, threads):
        group, rank = divide(chain.number, chain.radix)
        publish_maps(job, chain, rank, thread, threads)
        collect_maps(job, chain, rank, thread, threads)
        barrier()
        hand_on(job, chain, group, rank, thread, threads)
        barrier()

    return look_back
