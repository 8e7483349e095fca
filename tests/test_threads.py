"""The thread pool of the CPU backend: results stay right however it is used."""

import multiprocessing
import threading
import time

import pytest
import torch
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
    assert queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0


def test_every_caller_works_and_an_error_reaches_the_caller():
    seen, together = set(), threading.Barrier(2, timeout=30)

    def work():
        together.wait()
        seen.add(threading.get_ident())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads.run(work, (), most=2)
        assert len(seen) == 2 and threading.get_ident() in seen

        def fail_elsewhere(caller):
            if threading.get_ident() != caller:
                raise ZeroDivisionError
            time.sleep(0.01)

        with pytest.raises(ZeroDivisionError):
            threads.run(fail_elsewhere, (threading.get_ident(),), most=2)
        threads.run(work, (), most=2)  # the worker is back
    finally:
        torch.set_num_threads(before)


def test_one_thread_is_obeyed():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seen = []
        threads.run(lambda: seen.append(threading.get_ident()), (), most=8)
        assert seen == [threading.get_ident()]
    finally:
        torch.set_num_threads(before)


def test_a_task_larger_than_a_threads_share_is_right():
    a, x, h0, dh = draw((2000, 300), torch.float32, 0)
    inputs = [t.requires_grad_() for t in (a, x, h0)]
    h = linear_recurrence(*inputs)
    got = [h.detach(), *torch.autograd.grad(h, inputs, dh)]
    check(got, *(t.detach() for t in inputs), dh, 0, False)
