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
tile whose P is not finite waits for that, and publishes the constant map h -> 0 h + R.

These functions are compiled into the kernels. tests/cuda/test_lookback.py runs them on a model of
memory that delays and reorders as much as it may, and tests/cuda/test_compiled_code.py looks for
the loads and stores of words in the machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

TICKET_BYTES = 8  # at the start of a workspace
WORD_BYTES = 8


def workspace_bytes(parts: int, tiles: int, columns: int, radix: int) -> int:
    """Size of the workspace: the ticket counter, the maps of tiles, the states between groups."""
    maps = tiles if radix > 1 else 0
    states = (tiles - 1) // radix
    return TICKET_BYTES + WORD_BYTES * parts * columns * (2 * maps + states)


def make_look_back(
    parts: int,
    memory: SimpleNamespace,
    algebra: SimpleNamespace,
    barrier: Callable,
    tile: SimpleNamespace,
    device: Callable,
) -> Callable:
    """The function by which the threads of a block learn the state that their tile begins with.

    Args:
        parts:   words a state
        memory:  load_word, store_word, words_of, value_of (see :mod:`lrscan.cuda.memory`)
        algebra: step, compose, finite, divide, and the states one and zero
        barrier: waits for all threads of the block
        tile:    what a tile knows about itself, as functions of its ``job``:
                 map_of(job, j)        (P, R) of its column j
                 begin(job, j)         the state before the first step
                 put(job, i, value)    keep a number for all threads of the block
                 get(job, i)           what was put there
                 carry(job, j, h)      take h as the state that column j begins with
                 redo(job, j, n, h)    run column j step by step, from the state h that the n
                                       tiles before it begin with; carries the state that the
                                       tile begins with, and returns the one it ends with
        device:  compiles a function (the tests do not)

    Returns:
        ``look_back(job, thread, threads, words, radix, index, tiles, columns, first, width)``, for
        each thread of a block: ``words`` is the address of the words, ``index`` the tile's place
        in time among ``tiles``, and it has the columns ``first`` to ``first + width`` of
        ``columns``. Numbers 0 to ``2 * width * (radix - 1)`` are put.
    """
    load_word, store_word = memory.load_word, memory.store_word
    words_of, value_of = memory.words_of, memory.value_of
    step, compose, finite = algebra.step, algebra.compose, algebra.finite
    divide, one, zero = algebra.divide, algebra.one, algebra.zero
    map_of, begin, put, get = tile.map_of, tile.begin, tile.put, tile.get
    carry, redo = tile.carry, tile.redo
    state_bytes = WORD_BYTES * parts

    @device
    def publish(address, value):
        words = words_of(value)
        for i in range(parts):
            store_word(address + 8 * i, words[i])

    @device
    def wait(word, address):
        """The word at the address, which was read before, once it is there."""
        while word >> 32 == 0:
            word = load_word(address)
        return word

    # All words of what is awaited are read before any is waited for: one way to memory for all.
    if parts == 1:

        @device
        def await_value(at):
            return value_of((wait(load_word(at), at),))

        @device
        def await_map(at):
            P, R = load_word(at), load_word(at + 8)
            return value_of((wait(P, at),)), value_of((wait(R, at + 8),))

    elif parts == 2:

        @device
        def await_value(at):
            low, high = load_word(at), load_word(at + 8)
            return value_of((wait(low, at), wait(high, at + 8)))

        @device
        def await_map(at):
            P = load_word(at), load_word(at + 8)
            R = load_word(at + 16), load_word(at + 24)
            P = wait(P[0], at), wait(P[1], at + 8)
            return value_of(P), value_of((wait(R[0], at + 16), wait(R[1], at + 24)))

    else:

        @device
        def await_value(at):
            a, b = load_word(at), load_word(at + 8)
            c, d = load_word(at + 16), load_word(at + 24)
            low = wait(a, at), wait(b, at + 8)
            return value_of((low[0], low[1], wait(c, at + 16), wait(d, at + 24)))

        @device
        def await_map(at):
            return await_value(at), await_value(at + 32)

    @device
    def look_back(job, thread, threads, words, radix, index, tiles, columns, first, width):
        group, rank = divide(index, radix)
        closes, ends = rank == radix - 1, index == tiles - 1
        states = words
        if radix > 1:
            states = words + tiles * columns * (2 * state_bytes)
        row = columns * (2 * state_bytes)
        maps = words + first * (2 * state_bytes) + (index - rank) * row
        # Publish before any wait.
        j = thread
        while j < width:
            P, R = map_of(job, j)
            if finite(P) and not closes and not ends:
                own = maps + rank * row + j * (2 * state_bytes)
                publish(own, P)
                publish(own + state_bytes, R)
            j += threads
        # Collect the maps of the earlier tiles of the group, all threads together.
        i = thread
        while i < rank * width:
            earlier, j = divide(i, width)
            other = maps + earlier * row + j * (2 * state_bytes)
            P, R = await_map(other)
            put(job, 2 * i, P)
            put(job, 2 * i + 1, R)
            i += threads
        barrier()
        j = thread
        while j < width:
            P, R = one, zero
            i = j
            while i < rank * width:
                P, R = compose(P, R, get(job, 2 * i), get(job, 2 * i + 1))
                i += width
            place = states + (first + j) * state_bytes + group * columns * state_bytes
            if group == 0:
                h = begin(job, j)
            else:
                h = await_value(place - columns * state_bytes)
            start = step(P, R, h)
            carry(job, j, start)
            P, R = map_of(job, j)
            end = step(P, R, start)
            if finite(end):
                h = end
            else:
                h = redo(job, j, rank, h)
            if closes and not ends:
                publish(place, h)
            elif not finite(P) and not ends:
                own = maps + rank * row + j * (2 * state_bytes)
                publish(own, zero)
                publish(own + state_bytes, h)
            j += threads
        barrier()

    return look_back
