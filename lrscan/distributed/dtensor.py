"""Recurrence of DTensors whose columns are sharded over a mesh; every rank holds all steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from lrscan.core import sweep


def recurrence(
    local: Callable[..., Tensor],
    a: DTensor,
    x: DTensor,
    h0: DTensor | None,
    dim: int,
    *options: object,
    cu_seqlens: Tensor | None = None,
) -> DTensor:
    """Call ``local(a, x, h0, dim, *options, cu_seqlens)`` on each rank's own part.

    Columns do not depend on each other, so a shard of the result needs only the same shards of a,
    x and h0. If an input is replicated and has the sharded axis, each rank takes its shard of it.
    If an input is broadcast along that axis, its gradient is a partial sum on every rank. The
    recurrence itself sends nothing.

    Raises:
        TypeError: some inputs are DTensors, and others are not
        ValueError: meshes or shards that differ, partial sums, or time that is sharded
    """
    if isinstance(x, DTensor) and not isinstance(a, DTensor) and a.dim() == 0:  # it was a number
        everywhere = [Replicate()] * x.device_mesh.ndim
        a = DTensor.from_local(a, x.device_mesh, everywhere, run_check=False)
    tensors = {"a": a, "x": x} | ({} if h0 is None else {"h0": h0})
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            raise TypeError(
                f"{name} is not a DTensor, but other inputs are; make it one with "
                "torch.distributed.tensor.distribute_tensor"
            )
        if tensor.device_mesh != x.device_mesh:
            raise ValueError(
                f"{name} is on {tensor.device_mesh}, but x is on {x.device_mesh}; "
                "place them on one mesh"
            )
    mesh, shape = x.device_mesh, sweep.broadcast_shape(a, x)
    axes = {
        name: _axes(tensor, shape, dim if name == "h0" and cu_seqlens is None else None)
        for name, tensor in tensors.items()
    }
    columns = [_sharded(tensors, axes, over) for over in range(mesh.ndim)]
    if dim in columns:
        raise ValueError(
            f"dim {dim}, which is time, is sharded over mesh dimension {columns.index(dim)}; for "
            "chunks of time use lrscan.distributed.linear_recurrence"
        )
    own = {name: _local(tensor, axes[name], columns) for name, tensor in tensors.items()}
    h = local(own["a"], own["x"], own.get("h0"), dim, *options, cu_seqlens)
    placements = [Replicate() if axis is None else Shard(axis) for axis in columns]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        h.contiguous(), mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )


def _axes(tensor: Tensor, shape: torch.Size, without: int | None) -> dict[int, int]:
    """Return {axis of the result: axis of the input}, without axes that are broadcast."""
    of_result = [axis for axis in range(len(shape)) if axis != without]
    missing = len(of_result) - tensor.dim()
    return {
        axis: own - missing
        for own, axis in enumerate(of_result)
        if own >= missing and (tensor.shape[own - missing] == shape[axis])
    }


def _sharded(
    tensors: Mapping[str, DTensor], axes: Mapping[str, dict[int, int]], over: int
) -> int | None:
    """Return the axis of the result that is sharded over a mesh dimension, or None."""
    found: dict[int, str] = {}
    for name, tensor in tensors.items():
        placement = tensor.placements[over]
        if isinstance(placement, Partial):
            raise ValueError(
                f"{name} holds partial sums over mesh dimension {over}; add them with "
                f"{name}.redistribute(...)"
            )
        if type(placement) is Shard:
            of_result = {at: axis for axis, at in axes[name].items()}
            axis = of_result.get(placement.dim % tensor.dim())
            if axis is not None:
                found.setdefault(axis, name)
                continue
        if not isinstance(placement, Replicate):
            raise ValueError(
                f"{name} is placed as {placement} over mesh dimension {over}; "
                "redistribute it, for example to Replicate()"
            )
    if len(found) > 1:
        listed = " and ".join(f"axis {axis} (of {name})" for axis, name in found.items())
        raise ValueError(f"mesh dimension {over} shards {listed}; redistribute one of the inputs")
    return next(iter(found), None)


def _local(tensor: DTensor, axes: dict[int, int], columns: list[int | None]) -> Tensor:
    """Return a rank's part of an input. Its gradient is placed likewise, or is a partial sum."""
    wanted: list[Placement] = []
    of_gradient: list[Placement] = []
    for axis in columns:
        held = Shard(axes[axis]) if axis in axes else Replicate()
        wanted.append(held)
        of_gradient.append(Partial() if axis is not None and axis not in axes else held)
    return tensor.redistribute(placements=wanted).to_local(grad_placements=of_gradient)
