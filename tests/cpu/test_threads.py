"""The threads of the CPU backend: results are right however they are used."""

import ctypes
import multiprocessing
import threading

import pytest
import torch
from projects import LONGEST_S, wait_until
from recurrences import check, draw

from lrscan import linear_recurrence
from lrscan.cpu import threads


def test_two_python_threads_at_once_are_both_right():
    cases = [draw((3000, 200), torch.float32, 0, seed=k) for k in range(2)]
    results = [[] for _ in cases]

    def work(k):
        a, x, h0, _ = cases[k]
        for _ in range(20):
            results[k].append(linear_recurrence(a, x, h0))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for (a, x, h0, _), got in zip(cases, results, strict=True):
        expected = linear_recurrence(a, x, h0)
        assert len(got) == 20 and all(torch.equal(h, expected) for h in got)


def _in_child(queue, case, expected):
    # Compared by NumPy: torch's own threads do not survive a fork.
    queue.put(bool((linear_recurrence(*case).numpy() == expected.numpy()).all()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_too():
    a, x, h0, _ = draw((3000, 200), torch.float32, 0)
    expected = linear_recurrence(a, x, h0)  # the pool is running before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, (a, x, h0), expected), daemon=True)
    child.start()
    assert queue.get(timeout=LONGEST_S)
    child.join(timeout=LONGEST_S)
    assert child.exitcode == 0


@pytest.fixture(params=["team", "pool"])
def either(request, monkeypatch):
    """Use the threads of torch's OpenMP, then those of the pool."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "_team", None)
    elif threads._team is None:
        pytest.skip("torch's OpenMP cannot be reached here")


def compiled(function):
    """Wrap a Python function as a C function; return (the object to keep alive, its address)."""
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)
    return callback, ctypes.cast(callback, ctypes.c_void_p).value


def test_every_thread_calls_the_function(either):
    seen, together = set(), threading.Barrier(3, timeout=LONGEST_S)

    def work(argument):
        together.wait()
        seen.add((threading.get_ident(), argument))

    alive, address = compiled(work)
    for _ in range(2):
        seen.clear()
        threads.run(address, 7, 3)
        assert len(seen) == 3 and (threading.get_ident(), 7) in seen


def test_a_worker_that_wakes_late_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(threads, "_team", None)
    monkeypatch.setattr(threads._Worker, "begin", lambda self, function, argument: late(self))
    workers, calls = [], []

    def late(worker):  # given its work, but not woken
        worker._function, worker._argument, worker._claim = calls.append, 2, threading.Lock()
        workers.append(worker)

    alive, address = compiled(calls.append)
    threads.run(address, 1, 2)
    assert calls == [1]
    workers[0]._wake.release()
    wait_until(lambda: workers[0] in threads._idle)
    assert calls == [1]


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_threads_is_obeyed(count, monkeypatch):
    asked = []
    monkeypatch.setattr(threads, "run", lambda kernel, argument, threads: asked.append(threads))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        linear_recurrence(torch.rand(4000, 300), torch.rand(4000, 300))
    finally:
        torch.set_num_threads(before)
    assert asked == [count]


def test_a_task_larger_than_a_threads_share_is_right():
    a, x, h0, dh = draw((2000, 300), torch.float32, 0, kind="lasts")
    inputs = [t.requires_grad_() for t in (a, x, h0)]
    h = linear_recurrence(*inputs)
    got = [h.detach(), *torch.autograd.grad(h, inputs, dh)]
    check(got, *(t.detach() for t in inputs), dh, 0, False)
