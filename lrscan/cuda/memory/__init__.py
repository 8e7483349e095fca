"""Memory access for kernels, with one implementation for a GPU and one for the simulator.

A *value* is a coefficient or a state of an algebra: a real or complex number, or a tuple of several
numbers that are adjacent in memory. Its ``kind`` says which, see :mod:`lrscan.core.dtypes`.

Functions for global memory, with addresses in bytes::

    load(kind, address)                            read a value, widened to the kind of its state
    store(kind, address, value)                    write a value, rounded to nearest
    load_vector(kind, count, address, array, i)    read ``count`` adjacent values, widened, into
                                                   values i, i + 1, .. of an array
    store_vector(kind, count, address, array, i)   write them back

For the width and alignment of the last two, see :mod:`lrscan.cuda.memory.alignment`.

Functions for arrays of numbers in registers. There every index must be known when the kernel is
compiled::

    get(kind, array, i)                  return value i
    put(array, i, value)                 set value i

Functions for arrays of numbers in the block's shared memory, with indices below 2**32. Values are
counted from the number ``room[first]``::

    get_shared(kind, room, first, i)     return value i
    put_shared(room, first, i, value)    set value i

Tests of values::

    finite(value)       True if no number of it is infinite or NaN
    nonzero(value)      True if any number of it is not zero; NaN is not zero
    is_nan(value)       True if any number of it is NaN
    zero_or_nan(value)  True if all numbers of it are zero, or any is NaN

Blocks exchange values in *words* of 8 bytes, which are always read and written whole. A word has 32
bits of a value, and above them a flag. So a word is either all zero or complete, in whichever order
other blocks see the words, and no fence is needed::

    take_ticket(address)          atomically add 1 to the counter there; return the count before
    load_words(address, count)    return a tuple of words; in a loop, it reads memory every time
    store_words(address, words)   write a tuple of words
    complete(words)               True if all words have their flag
    words_of(value)               return a value as a tuple of flagged words
    value_of(kind, words)         return the value of that kind from its words

Functions for indices::

    divide(n, m)        return (n // m, n % m), for n and m below 2**31
    opaque(n)           return n, but hide from the compiler where it comes from
    padded(i, shift)    return i + i // 2**shift, below 2**32

A result computed from ``opaque(n)`` does not stay in registers from one phase of a kernel to the
next; the compiler computes it again. A loop that counts with ``opaque`` is not unrolled.
"""

from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from lrscan.cuda.memory.simulator import *  # noqa: F403
else:
    from lrscan.cuda.memory.device import *  # noqa: F403
