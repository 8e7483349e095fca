"""Memory as kernels see it: one body on a GPU and one in the simulator.

A *value* is what an algebra computes with: one number, real or complex, or a tuple of several,
which lie side by side. ``kind`` says which, see :mod:`lrscan.core.dtypes`.

Global memory, by addresses in bytes:

    load(kind, address)                            read a value, widened to the kind of its state
    store(kind, address, value)                    write a value, rounded to nearest
    load_vector(kind, count, address, array, i)    ``count`` values side by side, widened, to an
                                                   array from its value i on
    store_vector(kind, count, address, array, i)   back; for how wide, and how aligned, see
                                                   :mod:`lrscan.cuda.memory.alignment`

Arrays of numbers, in registers, where every index has to be known when a kernel is compiled:

    get(kind, array, i)                  value i
    put(array, i, value)

and in the memory that a block shares, with indices below 2**32:

    get_shared(kind, room, first, i)     value i of those that begin with the number room[first]
    put_shared(room, first, i, value)

Values:

    finite(value)       whether none of its numbers is infinite or NaN
    nonzero(value)      whether one of its numbers is not zero; a NaN counts as such
    is_nan(value)       whether one of them is NaN
    zero_or_nan(value)  whether all of its numbers are zero, or one is NaN

What blocks share goes through *words* of 8 bytes, read and written whole: 32 bits of a value, and
above them a flag. A word is either all zero or complete, whatever the order in which memory shows
it to other blocks, so no fence is needed.

    take_ticket(address)          add one to the counter there, atomically; returns the count before
    load_words(address, count)    read so many words, a tuple; a loop of it reads again and again
    store_words(address, words)
    complete(words)               whether all of them are there
    words_of(value)               a value as flagged words, a tuple
    value_of(kind, words)         the value of that kind back from its words

And numbers that a kernel counts with:

    divide(n, m)        (n // m, n % m) of numbers below 2**31
    opaque(n)           n, of which the compiler knows nothing: what is computed from it is not kept
                        in registers from an earlier phase of a kernel, but computed again, and a
                        loop that counts by it is not unrolled
    padded(i, shift)    i + i // 2**shift, below 2**32
"""

from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from lrscan.cuda.memory.simulator import *  # noqa: F403
else:
    from lrscan.cuda.memory.device import *  # noqa: F403
