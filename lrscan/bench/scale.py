"""Beyond one device: the recurrence split over ranks, measured and modelled."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lrscan import distributed
from lrscan.bench.registry import experiment, inputs
from lrscan.core import api
from lrscan.distributed import cost
from lrscan.distributed.exchange import Peers
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.records import Records

_TIMEOUT = datetime.timedelta(minutes=10)
# A sample lasts at least so long on every rank.
_SHORTEST_SAMPLE_S = 3e-3
# Columns of the exchanges that are timed alone, beside those of the recurrences.
_EXCHANGED = (1, 65_536)


@experiment("reproduce/07_beyond_one_device")
def scaling(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    ranks: Iterable[int],
    runs: int,
) -> Records:
    """Time of the recurrence split over ranks of this machine, and of the exchange alone.

    Processes of one thread each, with gloo; on GPUs one a device, with NCCL, and no more ranks
    than devices. float32, shape (T, C). The time of a run is that of the slowest rank. Rows of
    "whole" are of one process that does not split.
    """
    where = provenance.resolve_device(device)
    lengths, features = sorted(set(lengths)), sorted(set(features))
    gpu = where.type == "cuda"
    at_once = torch.cuda.device_count() if gpu else provenance.usable_cores()
    if wrong := [n for n in ranks if n < 1]:
        raise ValueError(f"ranks are at least 1, not {wrong[0]}")
    counts = sorted(n for n in {1, *ranks} if n <= at_once or not gpu)
    parameters = {"lengths": lengths, "features": features, "ranks": counts, "runs": runs}
    with tempfile.TemporaryDirectory() as folder:
        asked = parameters | {"seed": seed, "device": where.type, "folder": folder}
        mp.start_processes(_work, (asked,), nprocs=counts[-1], start_method=_start_method())
        measured = json.loads(Path(folder, "rows.json").read_text())
    identity = {"dtype": "float32", "layout": "TC", "B": 1, "seed": seed, "runs": runs}
    identity |= {"profile": workspace.profile()}
    rows = [identity | row for row in measured]
    parameters |= {"at_once": at_once}
    return records.write("scaling", rows, provenance.collect(where, parameters, seed))


def _start_method() -> str:
    """How to start the ranks: where it can be, from a server that has imported all of this."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    return "forkserver"


def _work(rank: int, asked: Mapping[str, Any]) -> None:
    """What a rank does: every case of every group that it is in."""
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
            rows += _of_a_group(group, where, asked)
        dist.barrier()  # ranks without work wait here, and leave the processors to the others
    if rank == 0:
        Path(asked["folder"], "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def _of_a_group(group: Any, where: torch.device, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of every length and number of columns, and of the exchanges alone."""
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
        calls = {"exchange": lambda pair=pair: peers.gather(pair, "exchange alone")()}
        own = {"algorithm": "split", "direction": "exchange", "C": columns, "ranks": ranks}
        own |= {"bytes": cost.bytes_exchanged(columns, ranks)}
        rows.append(own | _timed(calls, group, asked["runs"])["exchange"])
    return rows


def _calls(
    group: Any, where: torch.device, steps: int, columns: int, seed: int
) -> dict[tuple[str, str], Callable[[], object]]:
    """What is timed, after the pieces were found to be those of the whole."""
    a, x, _ = inputs(steps, columns, torch.float32, where, seed)
    dh = inputs(steps, columns, torch.float32, where, seed + 1)[1]
    whole = [t.requires_grad_() for t in (a, x)]
    h = api.linear_recurrence(*whole)
    gradients = torch.autograd.grad(h, whole, dh, retain_graph=True)
    expected = [h.detach(), *gradients]

    def own(tensor):
        return tensor.detach().tensor_split(group.size())[group.rank()].clone()

    leaves, own_dh = [own(t).requires_grad_() for t in whole], own(dh)
    piece = distributed.linear_recurrence(*leaves, group=group)
    got = [piece.detach(), *torch.autograd.grad(piece, leaves, own_dh, retain_graph=True)]
    for name, one, other in zip(("h", "da", "dx"), got, expected, strict=True):
        if not torch.allclose(one, own(other), rtol=1e-4, atol=1e-4):
            raise RuntimeError(f"{name} on rank {group.rank()} is not that of one process")
    calls = {
        ("split", "forward"): lambda: distributed.linear_recurrence(*leaves, group=group),
        ("split", "backward"): lambda: torch.autograd.grad(
            piece, leaves, own_dh, retain_graph=True
        ),
    }
    if group.size() == 1:
        calls["whole", "forward"] = lambda: api.linear_recurrence(*whole)
        calls["whole", "backward"] = lambda: torch.autograd.grad(h, whole, dh, retain_graph=True)
    return calls


def _timed(
    calls: Mapping[Any, Callable[[], object]], group: Any, runs: int
) -> dict[Any, dict[str, float]]:
    """Quartiles of the slowest rank's milliseconds a call, the calls sampled in turn."""
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
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    names = ("q1_ms", "median_ms", "q3_ms")
    found = {}
    for name, samples in taken.items():
        values = torch.tensor(samples, dtype=torch.float64).quantile(quartiles).tolist()
        found[name] = dict(zip(names, values, strict=True))
    return found


def _slowest_s(call: Callable[[], object], number: int, group: Any) -> float:
    """Seconds that the slowest rank takes for so many calls, all having begun together."""
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


def fitted(measured: Records) -> tuple[dict[tuple[str, int], cost.Device], cost.Link | None]:
    """The model's numbers: a device for each direction and number of columns, and the link.

    The devices come from one rank at the fewest and the most steps, the link from exchanges
    between two ranks. Everything else is for the model to foretell.
    """
    table = measured.table
    at_once = measured.provenance["measurements"][-1]["parameters"]["at_once"]
    alone = table[(table["algorithm"] == "split") & (table["ranks"] == 1)]
    devices = {
        key: cost.fitted_device(_seconds(one, "bytes"), at_once)
        for key, one in alone.groupby(["direction", "C"])
    }
    pair = table[(table["direction"] == "exchange") & (table["ranks"] == 2)]
    if pair.empty:
        return devices, None
    return devices, cost.fitted_link(_seconds(pair, "C"), 2)


def _seconds(rows: pandas.DataFrame, by: str) -> dict[int, float]:
    return dict(zip(rows[by], rows["median_ms"] / 1e3, strict=True))


def modelled(measured: Records) -> pandas.DataFrame:
    """Rows of "split" with what the model says of them: ``model_ms``, and whether it was fitted."""
    devices, link = fitted(measured)
    table = measured.table[measured.table["algorithm"] == "split"].copy()
    ends = {table["T"].min(), table["T"].max()}
    link = cost.Link(0, 1) if link is None else link  # one rank exchanges nothing

    def model(row):
        if row.direction == "exchange":
            alone = cost.exchange_s(link, row.C, row.ranks)
            return cost.shared(next(iter(devices.values())), row.ranks) * alone * 1e3
        device = devices[row.direction, row.C]
        return cost.split_s(device, link, row.direction, row.T, row.C, row.ranks) * 1e3

    rows = list(table.itertuples())
    table["model_ms"] = [model(row) for row in rows]
    table["fitted"] = [
        row.ranks == 2 if row.direction == "exchange" else row.ranks == 1 and row.T in ends
        for row in rows
    ]
    return table


def outlook(
    device: cost.Device,
    links: Mapping[str, cost.Link],
    steps: int,
    columns: int,
    ranks: Sequence[int],
) -> pandas.DataFrame:
    """What the model says of devices that are not here, for links by name.

    Columns: direction, link, T, C, ranks, split_s, exchange_s, and the speedup over one device
    that does not split.
    """
    rows = [
        {
            "direction": direction,
            "link": name,
            "T": steps,
            "C": columns,
            "ranks": count,
            "split_s": cost.split_s(device, link, direction, steps, columns, count),
            "exchange_s": cost.exchange_s(link, columns, count),
            "whole_s": cost.whole_s(device, direction, steps, columns),
        }
        for direction in cost.PASSES
        for name, link in links.items()
        for count in ranks
    ]
    table = pandas.DataFrame(rows)
    return table.assign(speedup=table.pop("whole_s") / table["split_s"])
