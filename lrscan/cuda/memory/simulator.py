"""Implementation of :mod:`lrscan.cuda.memory` for Numba's simulator, in the memory of the host.

It checks loads and stores of global memory for alignment and bounds, though not the counter of
tickets. A kernel that reads or writes outside the tensors of its launch raises an error here.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from lrscan.core.dtypes import described
from lrscan.core.machine_types import numpy_dtype
from lrscan.cuda.memory.alignment import access_bytes

__all__ = [
    "complete",
    "divide",
    "finite",
    "get",
    "get_shared",
    "is_nan",
    "load",
    "load_vector",
    "load_words",
    "nonzero",
    "opaque",
    "padded",
    "put",
    "put_shared",
    "store",
    "store_vector",
    "store_words",
    "take_ticket",
    "value_of",
    "words_of",
    "zero_or_nan",
]

_FLAG = 1 << 32
_FORMATS = {2: "e", 4: "f", 8: "d"}
_lock = threading.Lock()

# (first address, last address + 1) of each tensor that a kernel may access.
_allowed: list[tuple[int, int]] = []


def allow(tensor: Tensor) -> None:
    """Allow kernels to access the memory of one more tensor."""
    storage = tensor.untyped_storage()
    _allowed.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))


def allow_only(tensors: Iterable[Tensor]) -> None:
    """Allow kernels to access the memory of these tensors and no other."""
    _allowed.clear()
    for tensor in tensors:
        allow(tensor)


def _bytes(address: int, size: int, alignment: int):
    address = int(address)
    if address % alignment:
        raise IndexError(f"address {address:#x} is not a multiple of {alignment}")
    if not any(first <= address and address + size <= end for first, end in _allowed):
        raise IndexError(f"{size} bytes at {address:#x} are outside every tensor")
    return (ctypes.c_char * size).from_address(address)


def number_bytes(kind):
    """Return the bytes per number."""
    return described(kind).bytes * described(kind).planes


def _read(kind, address, alignment):
    """Read one number."""
    info = described(kind)
    raw = _bytes(address, number_bytes(kind), alignment).raw
    if info.number == "bfloat16":
        planes = struct.unpack("<f", b"\0\0" + raw)
    else:
        planes = struct.unpack(f"<{info.planes}{_FORMATS[info.bytes]}", raw)
    return numpy_dtype(info.number).type(complex(*planes) if info.planes == 2 else planes[0])


def _write(kind, address, number, alignment):
    """Write one number."""
    name = described(kind).number
    if name == "bfloat16":
        bits = int(np.float32(number).view(np.uint32))
        if number != number:
            bits = 0x7FFFFFFF
        else:
            bits += (bits >> 16 & 1) + 0x7FFF
        raw = (bits >> 16).to_bytes(2, "little")
    else:
        raw = np.asarray(number).astype(name).tobytes()
    ctypes.memmove(_bytes(address, number_bytes(kind), alignment), raw, number_bytes(kind))


def _numbers_of(value):
    return value if isinstance(value, tuple) else (value,)


def _value_from(numbers):
    return tuple(numbers) if len(numbers) > 1 else numbers[0]


def load(kind, address):
    info, size = described(kind), number_bytes(kind)
    return _value_from([_read(kind, address + i * size, info.bytes) for i in range(info.numbers)])


def store(kind, address, value):
    for i, number in enumerate(_numbers_of(value)):
        _write(kind, address + i * number_bytes(kind), number, described(kind).bytes)


def load_vector(kind, count, address, array, i):
    size = described(kind).size
    _bytes(address, count * size, access_bytes(kind, count))
    for k in range(count):
        put(array, i + k, load(kind, address + k * size))


def store_vector(kind, count, address, array, i):
    size = described(kind).size
    _bytes(address, count * size, access_bytes(kind, count))
    for k in range(count):
        store(kind, address + k * size, get(kind, array, i + k))


def get(kind, array, i):
    return get_shared(kind, array, 0, i)


def put(array, i, value):
    put_shared(array, 0, i, value)


def get_shared(kind, array, first, i):
    count = described(kind).numbers
    return _value_from([array[_inside(first + i * count + n)] for n in range(count)])


def put_shared(array, first, i, value):
    numbers = _numbers_of(value)
    for n, number in enumerate(numbers):
        array[_inside(first + i * len(numbers) + n)] = number


def _inside(index):
    if index < 0:  # NumPy would count from the end
        raise IndexError(f"index {index} of an array is negative")
    return index


def finite(value):
    return all(number - number == 0 for number in _numbers_of(value))


def nonzero(value):
    return any(number != 0 for number in _numbers_of(value))


def is_nan(value):
    return any(number != number for number in _numbers_of(value))


def zero_or_nan(value):
    return not nonzero(value) or is_nan(value)


def take_ticket(address):
    with _lock:
        word = ctypes.c_int64.from_address(int(address))
        word.value += 1
        return word.value - 1


def load_words(address, count):
    words = struct.unpack(f"<{count}q", _bytes(address, 8 * count, 8).raw)
    if 0 in words:  # the simulator runs one block after the other, so waiting would never end
        raise RuntimeError(f"a word at {address:#x} was not published by an earlier block")
    return words


def store_words(address, words):
    size = 8 * len(words)
    ctypes.memmove(_bytes(address, size, 8), struct.pack(f"<{len(words)}q", *words), size)


def complete(words):
    return all(word >> 32 for word in words)


def words_of(value):
    parts = np.array(_numbers_of(value)).view(np.uint32)
    return tuple(part | _FLAG for part in parts.tolist())


def value_of(kind, words):
    parts = np.array([word & 0xFFFFFFFF for word in words], np.uint32)
    return _value_from(list(parts.view(described(kind).number)))


def divide(n, m):
    if not (0 <= n < 2**31 and 0 < m < 2**31):
        raise OverflowError(f"{n} // {m} is not within 31 bits")
    return n // m, n % m


def opaque(n):
    return n


def padded(i, shift):
    return i + (i >> shift)
