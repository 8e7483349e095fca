"""Memory as kernels see it: addresses in bytes, one body on a GPU and one in the simulator.

    load(kind, address)                            an element, widened to the type of its state
    store(kind, address, value)                    the same, rounded to nearest
    load_vector(kind, count, address, array, at)   neighbouring elements to array[at], array[at+1]..
    store_vector(kind, count, address, array, at)  back; both in accesses of 16 bytes, aligned so
    divide(n, m)                                   (n // m, n % m) of numbers below 2**31
    fresh(n)                                       n, of which the compiler knows nothing: what is
                                                   computed from it is not kept in registers from
                                                   an earlier phase of a kernel, but computed again
    padded(i, shift)                               i + i // 2**shift, below 2**32
    rolled()                                       keeps the loop that it is in from being unrolled

What blocks share goes through *words* of 8 bytes, read and written whole: 32 bits of a value, and
above them a flag. A word is either all zero or complete, whatever the order in which memory shows
it to other blocks, so no fence is needed.

    take_ticket(address)   add one to the counter there, atomically; returns the count before
    load_word(address)     read a word; a loop of it reads again and again
    store_word(address, word)
    words_of(value)        a state as flagged words: a tuple of 1 (float32), 2 or 4
    value_of(kind, words)  the state of that kind back from its words
"""

from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from lrscan.cuda.memory.simulator import *  # noqa: F403
else:
    from lrscan.cuda.memory.device import *  # noqa: F403
