"""Compiled kernels on disk: a damaged file or a full disk costs one more compilation, no more."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numba
import pytest
from filelock import FileLock

from lrscan.core import kernel_files
from lrscan.cpu import compile as compiling
from lrscan.cpu.memory import fetch_add

DAMAGES = {
    "cut off": lambda data: data[: len(data) // 2],
    "all but the last byte": lambda data: data[:-1],
    "empty": lambda data: b"",
    "a bit flipped": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: bytes(range(256)) * 9,
    "longer": lambda data: data + b"x",
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "tally", compiling.Counter())
    return tmp_path / "cache"


def compile_two():
    """Compile two variants of a function as a new process would, and return the tally."""
    for variant in ("one", "two"):

        @compiling.kernel(f"of a test, {variant}", "of a test")
        def run(address):
            fetch_add(address, 1)

    found, compiling.tally = compiling.tally, compiling.Counter()
    return {way: found[way] for way in (compiling.COMPILED, compiling.KEPT)}


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_a_kernel_is_compiled_once_and_kept():
    assert compile_two() == {"compiled": 2, "kept": 0}
    assert compile_two() == {"compiled": 0, "kept": 2}


@damaged
def test_a_damaged_file_is_compiled_and_written_again(damage, cache):
    compile_two()
    whole = {path: path.read_bytes() for path in files(cache)}
    for path, data in whole.items():
        path.write_bytes(damage(data))
        assert compile_two()["compiled"] >= 1
        assert compile_two() == {"compiled": 0, "kept": 2}
    assert files(cache) == sorted(whole)


def test_a_damaged_file_affects_no_other_kernel(cache):
    compile_two()
    files(cache)[0].write_bytes(b"")
    assert compile_two() == {"compiled": 1, "kept": 1}


def test_kernels_run_on_a_full_disk(cache, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for _ in range(2):
        assert compile_two() == {"compiled": 2, "kept": 0}
    assert not files(cache)


def in_a_new_process(folder, start):
    numba.core.config.CACHE_DIR = folder
    start.wait()
    return compile_two()


def test_processes_that_need_the_same_kernel_compile_it_once(cache):
    """The ranks of one job need them at the same time."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        start = manager.Barrier(3)
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
            tallies = [pool.submit(in_a_new_process, str(cache), start) for _ in range(3)]
            tallies = [future.result() for future in tallies]
    assert sum(tally["compiled"] for tally in tallies) == 2
    assert sum(tally["kept"] for tally in tallies) == 4
    assert {path.suffix for path in files(cache)} == {".nbc"}


def test_a_process_that_waited_long_enough_compiles_by_itself(cache, monkeypatch):
    compile_two()
    first, second = files(cache)
    first.unlink()
    monkeypatch.setattr(kernel_files, "LONGEST_WAIT_S", 0.1)
    with FileLock(f"{first}.lock", is_singleton=False):
        assert compile_two() == {"compiled": 1, "kept": 1}


def test_a_kernel_is_compiled_where_files_cannot_be_locked(monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert compile_two() == {"compiled": 2, "kept": 0}
