"""Passing states from tile to tile while all of them run: chained scan with look-back.

After Merrill and Garland, *Single-pass parallel prefix scan with decoupled look-back* (2016). Their
order of combining depends on timing; here it is fixed. Tiles of a column::

    time ->   tile 0   tile 1   tile 2 | tile 3   tile 4   tile 5 | tile 6 ...     radix 3
    map       (P,R)    (P,R)           | (P,R)    (P,R)           |
    state                              h                          h
              +------- group 0 --------+------- group 1 ----------+

A tile is the map h -> P h + R. If P is finite, the tile publishes it before it waits for
anything; the last tile of a group publishes a state instead, the one after it. A tile composes the
maps of the earlier tiles of its group, in order, waits for the state that its group begins with,
and applies them. With radix 1 there are no maps: a plain chain of states. The workspace::

    ticket  |  maps, of each tile and column: words of P, of R  |  states, of each group and column
                         (none with radix 1)

**No deadlock.** Tiles are numbered by tickets, which a running block draws, earlier times first. A
tile waits only for words of smaller tickets, whose blocks are running or done; so the smallest
ticket that is not done never waits for long, however few blocks the device keeps running.

**No fence.** Every word carries its own flag (:mod:`lrscan.cuda.memory`), so it does not matter in
which order a device shows words to other blocks. All words have to be zero at the start.

**Overflow and underflow.** A product P may be infinite where the states are finite, and zero where
it would make NaN of an infinite state. Maps also treat a coefficient of exactly zero, which forgets
NaN and infinity, like any other number. So the state that maps lead to at the end of a tile counts
only if it is finite; otherwise all steps of the group up to there are run one after the other. A
tile whose P is not finite waits for that, and publishes the constant map h -> 0 h + R. Where the
end of a tile is finite, so are the states it is made from, but those of other chunks need not be:
the kernel checks them again. An algebra that is not guarded needs none of this.

These functions are compiled into the kernels. tests/cuda/test_lookback.py runs them on a model of
memory that delays and reorders as much as it may, and tests/cuda/test_compiled_code.py looks for
the loads and stores of words in the machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

TICKET_BYTES = 8  # at the start of a workspace
WORD_BYTES = 8


class WordCounts(NamedTuple):
    """Numbers of words per value: for P, the coefficient of a map, and for R or a state."""

    P: int
    R: int


class Chain(NamedTuple):
    """Position of a tile in the chain of all tiles.

    Attributes:
        base: address of the words of all tiles: their maps, then the states between groups
        radix: tiles per group
        nth: the tile's number along time
        tiles: number of tiles along time
        columns: number of columns in all strips
        first: the tile's first column
        width: number of columns in the tile
    """

    base: int
    radix: int
    nth: int
    tiles: int
    columns: int
    first: int
    width: int


class Memory(Protocol):
    """Functions of :mod:`lrscan.cuda.memory` for words, values and integers.

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
    """The parts of an algebra that look-back needs, see :class:`lrscan.cuda.steps.Compiled`."""

    one: Any
    zero: Any
    zero_a: Any
    step: Callable
    compose: Callable


class TileFunctions(Protocol):
    """Functions of a tile. They pass on ``job``, which may be of any type.

    Attributes:
        map_of: ``(job, j)`` returns (P, R) of the tile's column j
        initial_state: ``(job, j)`` returns the state before the first step of the whole sequence
        put_earlier: ``(job, i, P, R)`` stores a map as number i, for all threads of the block
        earlier: ``(job, i)`` returns the map number i
        put_start: ``(job, j, h)`` stores the state h that column j of the tile starts from
        redo: ``(job, j, back, h)`` runs column j step by step. It begins with the tile that is
            ``back`` tiles before this one and starts from h, and ends with this tile. It stores the
            state that this tile starts from, and returns the one that it ends with.
    """

    map_of: Callable
    initial_state: Callable
    put_earlier: Callable
    earlier: Callable
    put_start: Callable
    redo: Callable


def workspace_bytes(counts: WordCounts, tiles: int, columns: int, radix: int) -> int:
    """Return the size of the workspace: ticket counter, maps of tiles, states between groups."""
    maps = tiles if radix > 1 else 0
    states = (tiles - 1) // radix
    return TICKET_BYTES + WORD_BYTES * columns * ((counts.P + counts.R) * maps + counts.R * states)


def make_look_back(
    counts: WordCounts,
    memory: Memory,
    algebra: Composition,
    tile: TileFunctions,
    barrier: Callable,
    inlined: Callable,
    guarded: bool = True,
) -> Callable:
    """Return the function with which a block finds the state that its tile begins with.

    Args:
        counts: how many words a value has
        memory, algebra, tile: functions, see the protocols
        barrier: function that waits for all threads of the block
        inlined: decorator that compiles a function (the tests do not compile)
        guarded: whether to run steps one by one if maps lead to a state that is not finite

    Returns:
        ``look_back(job, chain, thread, threads)``, to be called by each thread of a block. It
        stores at most ``width * (radix - 1)`` earlier maps.
    """
    load_words, store_words, complete = memory.load_words, memory.store_words, memory.complete
    words_of, P_of, R_of = memory.words_of, memory.P_of, memory.R_of
    finite, divide = memory.finite, memory.divide
    step, compose = algebra.step, algebra.compose
    one, zero, zero_a = algebra.one, algebra.zero, algebra.zero_a
    map_of, initial_state, redo = tile.map_of, tile.initial_state, tile.redo
    put_earlier, earlier, put_start = tile.put_earlier, tile.earlier, tile.put_start
    P_words, R_words, map_words = counts.P, counts.R, counts.P + counts.R
    P_bytes, R_bytes = WORD_BYTES * P_words, WORD_BYTES * R_words
    map_bytes = P_bytes + R_bytes

    @inlined
    def map_address(chain, nth, j):
        """Return the address of the map of column j of the tile ``nth``."""
        return chain.base + (chain.first + j) * map_bytes + nth * (chain.columns * map_bytes)

    @inlined
    def state_address(chain, group, j):
        """Return the address of the state of column j after a group."""
        states = chain.base
        if chain.radix > 1:
            states = chain.base + chain.tiles * chain.columns * map_bytes
        return states + (chain.first + j) * R_bytes + group * chain.columns * R_bytes

    @inlined
    def publish_map(at, P, R):
        store_words(at, words_of(P))
        store_words(at + P_bytes, words_of(R))

    # The words of a value are all read before any is waited for: one trip to memory for all.

    @inlined
    def await_map(at):
        found = load_words(at, map_words)
        while not complete(found):
            found = load_words(at, map_words)
        return P_of(found[:P_words]), R_of(found[P_words:])

    @inlined
    def await_state(at):
        found = load_words(at, R_words)
        while not complete(found):
            found = load_words(at, R_words)
        return R_of(found)

    @inlined
    def publish_maps(job, chain, rank, thread, threads):
        """Publish the tile's own maps, before any wait, unless it passes on a state or nothing."""
        if rank == chain.radix - 1 or chain.nth == chain.tiles - 1:
            return
        j = thread
        while j < chain.width:
            P, R = map_of(job, j)
            if not guarded or finite(P):
                publish_map(map_address(chain, chain.nth, j), P, R)
            j += threads

    @inlined
    def collect_maps(job, chain, rank, thread, threads):
        """Collect the maps of the earlier tiles of the group, tile after tile.

        The threads share the work. ``rank`` is the tile's place in its group, here and below.
        """
        i = thread
        while i < rank * chain.width:
            k, j = divide(i, chain.width)
            P, R = await_map(map_address(chain, chain.nth - rank + k, j))
            put_earlier(job, i, P, R)
            i += threads

    @inlined
    def hand_on(job, chain, group, rank, thread, threads):
        """Compute the states each column starts from and ends with. Each thread takes a column."""
        closes_group, is_last = rank == chain.radix - 1, chain.nth == chain.tiles - 1
        j = thread
        while j < chain.width:
            P, R = one, zero
            i = j
            while i < rank * chain.width:
                earlier_P, earlier_R = earlier(job, i)
                P, R = compose(P, R, earlier_P, earlier_R)
                i += chain.width
            if group == 0:
                h = initial_state(job, j)
            else:
                h = await_state(state_address(chain, group - 1, j))
            start = step(P, R, h)
            put_start(job, j, start)
            P, R = map_of(job, j)
            end = step(P, R, start)
            if guarded and not finite(end):
                end = redo(job, j, rank, h)
            if closes_group and not is_last:
                store_words(state_address(chain, group, j), words_of(end))
            elif guarded and not finite(P) and not is_last:
                publish_map(map_address(chain, chain.nth, j), zero_a, end)
            j += threads

    @inlined
    def look_back(job, chain, thread, threads):
        group, rank = divide(chain.nth, chain.radix)
        publish_maps(job, chain, rank, thread, threads)
        collect_maps(job, chain, rank, thread, threads)
        barrier()
        hand_on(job, chain, group, rank, thread, threads)
        barrier()

    return look_back
