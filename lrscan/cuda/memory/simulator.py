"""The bodies of :mod:`lrscan.cuda.memory` in Numba's simulator, where memory is the host's.

Every access is checked: it has to lie within one of the tensors of the launch, so a
kernel that reaches outside fails here.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from lrscan.core.dtypes import KINDS
from lrscan.cuda.kinds import state_of

__all__ = [
    "divide",
    "fresh",
    "load",
    "load_vector",
    "load_word",
    "padded",
    "rolled",
    "store",
    "store_vector",
    "store_word",
    "take_ticket",
    "value_of",
    "words_of",
]

_FLAG = 1 << 32
_FORMATS = {2: "e", 4: "f", 8: "d"}
_lock = threading.Lock()

# (first address, address after the last) of each tensor that a kernel may touch.
_allowed: list[tuple[int, int]] = []


def allow(tensor: Tensor) -> None:
    """Let kernels touch a tensor's memory too."""
    storage = tensor.untyped_storage()
    _allowed.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))


def allow_only(tensors: Iterable[Tensor]) -> None:
    """Let kernels touch the memory of these tensors, and no other."""
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


def _read(kind, address, alignment):
    info = KINDS[kind]
    raw = _bytes(address, info.size, alignment).raw
    if kind == "bfloat16":
        numbers = struct.unpack("<f", b"\0\0" + raw)
    else:
        numbers = struct.unpack(f"<{info.planes}{_FORMATS[info.bytes]}", raw)
    return state_of(kind).type(complex(*numbers) if info.planes == 2 else numbers[0])


def _write(kind, address, value, alignment):
    info = KINDS[kind]
    if kind == "bfloat16":
        bits = int(np.float32(value).view(np.uint32))
        if value != value:
            bits = 0x7FFFFFFF
        else:
            bits += (bits >> 16 & 1) + 0x7FFF
        raw = (bits >> 16).to_bytes(2, "little")
    else:
        raw = np.asarray(value).astype(kind).tobytes()
    ctypes.memmove(_bytes(address, info.size, alignment), raw, info.size)


def load(kind, address):
    return _read(kind, address, KINDS[kind].bytes)


def store(kind, address, value):
    _write(kind, address, value, KINDS[kind].bytes)


def load_vector(kind, count, address, array, at):
    size = KINDS[kind].size
    _bytes(address, count * size, min(count * size, 16))
    for i in range(count):
        array[at + i] = load(kind, address + i * size)


def store_vector(kind, count, address, array, at):
    size = KINDS[kind].size
    _bytes(address, count * size, min(count * size, 16))
    for i in range(count):
        store(kind, address + i * size, array[at + i])


def take_ticket(address):
    with _lock:
        word = ctypes.c_int64.from_address(int(address))
        word.value += 1
        return word.value - 1


def load_word(address):
    word = struct.unpack("<q", _bytes(address, 8, 8).raw)[0]
    if word == 0:  # the simulator runs one block after the other, so waiting would be for ever
        raise RuntimeError(f"the word at {address:#x} was not published by an earlier block")
    return word


def store_word(address, word):
    ctypes.memmove(_bytes(address, 8, 8), struct.pack("<q", word), 8)


def words_of(value):
    return tuple(part | _FLAG for part in np.asarray(value).reshape(1).view(np.uint32).tolist())


def value_of(kind, words):
    parts = np.array([word & 0xFFFFFFFF for word in words], np.uint32)
    return parts.view(kind)[0]


def divide(n, m):
    if not (0 <= n < 2**31 and 0 < m < 2**31):
        raise OverflowError(f"{n} // {m} is not within 31 bits")
    return n // m, n % m


def fresh(n):
    return n


def rolled():
    pass


def padded(i, shift):
    return i + (i >> shift)
