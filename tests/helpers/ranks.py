"""Processes of a gloo group on this machine, in which tests call functions."""

import datetime
import os
import traceback

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from projects import LONGEST_S

WAIT_S = 120  # the limit for an answer, so that a test that hangs fails


class Ranks:
    """A pool of ``size`` processes; ``run`` calls a function in all or in the first of them.

    Groups of the first 1, 2, ... ranks exist from the start.
    """

    def __init__(self, size, folder, timeout_s=LONGEST_S):
        context = mp.get_context("spawn")
        pairs = [context.Pipe() for _ in range(size)]
        self.size, self.pipes = size, [ours for ours, _ in pairs]
        store = str(folder / "store")
        self.processes = [
            context.Process(target=_serve, args=(rank, size, store, timeout_s, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()
        for _, theirs in pairs:
            theirs.close()

    def run(self, function, *arguments, size=None):
        """Call ``function(group, *arguments)`` on each rank, and return the list of results.

        The result is a :class:`Failure` where the function raised, and None where the process
        ended.
        """
        size = size or self.size
        for pipe in self.pipes[:size]:
            pipe.send((function, arguments, size))
        results = []
        for pipe in self.pipes[:size]:
            assert pipe.poll(WAIT_S), "a rank does not answer"
            try:
                results.append(pipe.recv())
            except EOFError:
                results.append(None)
        return results

    def results(self, function, *arguments, size=None):
        """Do the same as :meth:`run`, but fail if a rank raised an error."""
        results = self.run(function, *arguments, size=size)
        failed = [r for r in results if isinstance(r, Failure)]
        assert not failed, failed[0].text
        return results

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()


class Failure:
    """A record of an error on a rank."""

    def __init__(self, error):
        self.kind, self.message = type(error).__name__, str(error)
        self.ranks, self.text = getattr(error, "ranks", None), traceback.format_exc()


def _serve(rank, size, store, timeout_s, pipe):
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=timeout_s)
    files = dist.FileStore(store, size)
    dist.init_process_group("gloo", store=files, rank=rank, world_size=size, timeout=timeout)
    groups = {n: dist.new_group(range(n), timeout=timeout) for n in range(1, size + 1)}
    while True:
        try:
            function, arguments, asked = pipe.recv()
        except EOFError:
            os._exit(0)  # do not wait for other ranks
        try:
            answer = function(groups[asked], *arguments)
        except Exception as error:  # sent to the test
            answer = Failure(error)
        pipe.send(answer)
