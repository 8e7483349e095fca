"""Processes of the experiment ``scaling``: the work, checks and timings of each rank."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lrscan import distributed
from lrscan.core import api
from lrscan.distributed import cost
from lrscan.distributed.exchange import Peers
from lrscan.experiments import timing
from lrscan.experiments.inputs import draw_inputs

_TIMEOUT = datetime.timedelta(minutes=10)
# Shortest sample, in seconds of the slowest rank.
_SHORTEST_SAMPLE_S = 3e-3
# Columns of the exchanges that are timed alone, in addition to those of the recurrences.
_EXCHANGED = (1, 65_536)

Calls = dict[Any, Callable[[], object]]


def measure(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Start the ranks as processes, and return the rows of every group of them.

    Args:
        asked: "lengths", "features", "ranks" (sorted counts), "runs", "seed", and "device", which
            is "cpu" or "cuda"
    """
    with tempfile.TemporaryDirectory() as folder:
        given = (dict(asked) | {"folder": folder},)
        mp.start_processes(_work, given, nprocs=asked["ranks"][-1], start_method=_start_method())
        return json.loads(Path(folder, "rows.json").read_text())


def _start_method() -> str:
    """Return how to start the ranks: if possible from a server that has imported everything."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    return "forkserver"


def _work(rank: int, asked: Mapping[str, Any]) -> None:
    """Measure, as one rank, every case of every group that the rank belongs to."""
    torch.set_num_threads(1)
    gpu, size = asked["device"] == "cuda", asked["ranks"][-1]
    where = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(where)
    store = dist.FileStore(str(Path(asked["folder"], "store")), size)
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT
    )
    rows = []
    for count in asked["ranks"]:
        group = dist.new_group(range(count), timeout=_TIMEOUT)
        if rank < count:
            rows += _measure_group(group, where, asked)
        dist.barrier()  # idle ranks wait here and leave the processors to the others
    if rank == 0:
        Path(asked["folder"], "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def _measure_group(
    group: Any, where: torch.device, asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of every length and number of columns, and of the exchanges alone."""
    rows, ranks = [], group.size()
    for columns in asked["features"]:
        for steps in asked["lengths"]:
            calls = _calls(group, where, steps, columns, asked["seed"])
            for (algorithm, direction), times in _timed(calls, group, asked["runs"]).items():
                moved = cost.WHOLE[direction] * 4 * steps * columns
                if algorithm == "split":
                    moved = cost.bytes_a_rank(direction, steps, columns, ranks)
                own = {"algorithm": algorithm, "direction": direction, "T": steps, "C": columns}
                rows.append(own | {"ranks": ranks, "bytes": moved} | times)
    peers = Peers(group)
    for columns in sorted({*_EXCHANGED, *asked["features"]}) if ranks > 1 else ():
        pair = torch.zeros(2, columns, dtype=torch.float64, device=where)

        def exchange(pair: torch.Tensor = pair) -> object:
            return peers.gather(pair, "exchange alone")()

        own = {"algorithm": "split", "direction": "exchange", "C": columns, "ranks": ranks}
        own |= {"bytes": cost.bytes_exchanged(columns, ranks)}
        rows.append(own | _timed({"exchange": exchange}, group, asked["runs"])["exchange"])
    return rows


def _calls(group: Any, where: torch.device, steps: int, columns: int, seed: int) -> Calls:
    """Return the calls to time, after comparing the chunks of the ranks with the whole."""
    a, x, _ = draw_inputs(steps, columns, torch.float32, where, seed)
    dh = draw_inputs(steps, columns, torch.float32, where, seed + 1)[1]
    whole = [t.requires_grad_() for t in (a, x)]
    h = api.linear_recurrence(*whole)
    gradients = torch.autograd.grad(h, whole, dh, retain_graph=True)
    expected = [h.detach(), *gradients]

    def own(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().tensor_split(group.size())[group.rank()].clone()

    leaves, own_dh = [own(t).requires_grad_() for t in whole], own(dh)
    chunk = distributed.linear_recurrence(*leaves, group=group)
    got = [chunk.detach(), *torch.autograd.grad(chunk, leaves, own_dh, retain_graph=True)]
    for name, one, other in zip(("h", "da", "dx"), got, expected, strict=True):
        if not torch.allclose(one, own(other), rtol=1e-4, atol=1e-4):
            raise RuntimeError(f"{name} on rank {group.rank()} differs from that of one process")
    calls: Calls = {
        ("split", "forward"): lambda: distributed.linear_recurrence(*leaves, group=group),
        ("split", "backward"): lambda: torch.autograd.grad(
            chunk, leaves, own_dh, retain_graph=True
        ),
    }
    if group.size() == 1:
        calls["whole", "forward"] = lambda: api.linear_recurrence(*whole)
        calls["whole", "backward"] = lambda: torch.autograd.grad(h, whole, dh, retain_graph=True)
    return calls


def _timed(calls: Calls, group: Any, runs: int) -> dict[Any, dict[str, float]]:
    """Return quartiles of the slowest rank's milliseconds per call, the calls sampled in turn."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = 1
        while _slowest_s(call, repeats[name], group) < _SHORTEST_SAMPLE_S:
            repeats[name] *= 2
    taken: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            number = repeats[name]
            taken[name].append(_slowest_s(call, number, group) / number * 1e3)
    return {name: timing.columns(timing.quartiles(samples)) for name, samples in taken.items()}


def _slowest_s(call: Callable[[], object], number: int, group: Any) -> float:
    """Return the seconds of the slowest rank for ``number`` calls, after a common start."""
    gpu = "nccl" in dist.get_backend(group)
    dist.barrier(group)
    start = time.perf_counter()
    for _ in range(number):
        call()
    if gpu:
        torch.cuda.synchronize()
    seconds = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
    seconds = seconds.cuda() if gpu else seconds
    dist.all_reduce(seconds, dist.ReduceOp.MAX, group=group)
    return seconds.item()
