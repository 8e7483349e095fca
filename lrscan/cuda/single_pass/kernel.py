"""A scan in a single pass: one launch reads every input once and writes every output once::

    time ->      tile 0           tile 1           tile 2
    strip 0   fill, scan       fill, scan       fill, scan
              look back  --->  look back  --->  look back
              apply, spill     apply, spill     apply, spill

Each block draws a ticket, whose number stands for a tile: first tile 0 of every strip, then tile 1
of every strip, and so on. A tile has ``chunks`` x ``vectors`` threads. Each thread has a chunk of K
consecutive steps of V neighbouring columns::

    fill        read the tile into registers (tiles.py)
    scan        each thread composes its steps to a map (P, R); the block composes the maps of its
                chunks in shared memory (within_tile.py); the last of these is the tile's map
    look back   find the state that the tile starts from, with the tile's map (lookback.py)
    apply       each thread runs its steps from the state that its chunk starts from
    spill       write the results to memory

Bytes per element, float32: 12 forward, 20 backward. A launch needs a workspace of zeros, and as
many blocks as there are tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from numba import cuda, int32, int64

from lrscan.core.sweep import Rows
from lrscan.cuda.launch import Kernel, Launches
from lrscan.cuda.memory import divide, take_ticket
from lrscan.cuda.single_pass import lookback, tiles_direct, tiles_staged
from lrscan.cuda.single_pass.between_tiles import Job, make_look_back, make_run_again, word_counts
from lrscan.cuda.single_pass.lookback import Chain
from lrscan.cuda.single_pass.plan import layout_of, plan
from lrscan.cuda.single_pass.room import room_of
from lrscan.cuda.single_pass.tiles import (
    BLOCKS_PER_SM,
    MOST_LEFT,
    MOST_THREADS,
    Layout,
    Tile,
    shape_of,
)
from lrscan.cuda.single_pass.within_tile import make_scans
from lrscan.cuda.steps import Extents, Place, Variant, barrier, column_count, inlined


class Tiling(NamedTuple):
    """Division of a launch into tiles: the sizing of the kernel.

    Attributes:
        vectors, chunks: threads per tile, along columns and along time
        radix: tiles per group of the look-back
        tiles: tiles along time
        strips: tiles next to each other over a line, which is all columns along the inner axis
        workspace: address of the workspace
    """

    vectors: int
    chunks: int
    radix: int
    tiles: int
    strips: int
    workspace: int


@functools.cache
def kernel(variant: Variant, layout: Layout) -> Kernel:
    """Return the kernel of a variant and a layout."""
    number, (K, V) = variant.number_type, shape_of(variant, layout)
    a_numbers, h_numbers = variant.algebra.coefficient_numbers, variant.algebra.state_numbers
    for_a, for_x, for_P, for_R = K * V * a_numbers, K * V * h_numbers, V * a_numbers, V * h_numbers
    for_da = layout.lanes * a_numbers
    room_numbers = room_of(variant, layout).numbers
    orders = tiles_direct if layout.order == "columns" else tiles_staged
    access = orders.make_tiles(variant, layout)
    fill, spill, tile_of = access.fill, access.spill, _make_tile_of(K, V)
    scan_steps, scan_chunks, begin_of_chunk, apply_steps = make_scans(variant, layout, access)
    look_back = make_look_back(variant, layout, access)
    run_again, guarded = make_run_again(variant, layout, access), variant.algebra.guarded

    def single_pass(rows, extents, tiling):
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        room = cuda.shared.array(room_numbers, number)
        a, x = cuda.local.array(for_a, number), cuda.local.array(for_x, number)
        P, R = cuda.local.array(for_P, number), cuda.local.array(for_R, number)
        tile = tile_of(extents, tiling, _take_ticket(tiling.workspace, thread))

        fill(rows, tile, thread, room, a, x)
        may_forget = scan_steps(a, x, P, R)
        scan_chunks(tile, thread, room, P, R)
        job = Job(rows, tile, room)
        look_back(job, _chain_of(extents, tiling, tile), thread, threads)
        h = R  # reuse the registers: the maps are in shared memory now
        believed = begin_of_chunk(tile, thread, room, h)
        if guarded:
            if cuda.syncthreads_or(int32(not believed)):
                run_again(job, thread, threads)
                begin_of_chunk(tile, thread, room, h)
                barrier()
        else:
            barrier()
        # From here on, no thread reads the maps in shared memory.
        apply_steps(a, x, h, may_forget)
        before, da = cuda.local.array(for_x, number), cuda.local.array(for_da, number)
        spill(rows, tile, thread, room, x, before, da)

    name = variant.named("single_pass", *layout)
    return Kernel(single_pass, name, Tiling, MOST_THREADS, BLOCKS_PER_SM)


@inlined
def _take_ticket(workspace, thread):
    """Return the number of the block's tile. The first thread draws the ticket for all."""
    shared = cuda.shared.array(1, int64)
    if thread == 0:
        shared[0] = take_ticket(workspace)
    barrier()
    return shared[0]


def _make_tile_of(K: int, V: int) -> Callable:
    @inlined
    def tile_of(extents, tiling, ticket):
        """Return the tile of a ticket: in order of time, then strip after strip."""
        nth, strip = divide(ticket, extents.outer * extents.middle * tiling.strips)
        line, across = divide(strip, tiling.strips)
        outer, middle = divide(line, extents.middle)
        inner = across * (tiling.vectors * V)
        first_step = nth * (tiling.chunks * K)
        return Tile(
            nth,
            Place(outer, middle, inner),
            first_step,
            min(extents.steps - first_step, MOST_LEFT),
            min(tiling.vectors * V, extents.inner - inner),
            tiling.vectors,
            tiling.chunks,
        )

    return tile_of


@inlined
def _chain_of(extents, tiling, tile):
    """Return the position of a tile in the chain."""
    line = tile.place.outer * extents.middle + tile.place.middle
    return Chain(
        tiling.workspace + lookback.TICKET_BYTES,
        tiling.radix,
        tile.nth,
        tiling.tiles,
        column_count(extents),
        line * extents.inner + tile.place.inner,
        tile.width,
    )


def prepare(
    variant: Variant, rows: Rows, extents: Extents, processors: int
) -> Callable[[list[int], Launches], None]:
    """Return a function that launches the kernel over all tiles.

    It takes the integers of the real rows and extents, and the target of the launch. The ``rows``
    given here have the alignment of the real addresses, but not their values.
    """
    layout = layout_of(variant, rows, extents)
    chosen = plan(variant, layout, extents, processors)
    counts, columns = word_counts(variant), math.prod(extents[1:])
    size = lookback.workspace_bytes(counts, chosen.tiles, columns, chosen.radix)
    sizing = (chosen.vectors, chosen.chunks, chosen.radix, chosen.tiles, chosen.strips)
    ready, grid, threads = kernel(variant, layout), chosen.grid, chosen.threads

    def launch(numbers: list[int], stream: Launches) -> None:
        workspace = stream.workspace(size)
        stream.clear(workspace, size)
        stream.launch(ready, grid, threads, [*numbers, *Tiling(*sizing, workspace)])

    return launch
