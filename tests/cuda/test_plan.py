"""The layouts, tiles and groups that a single-pass scan chooses."""

import itertools

import pytest
import torch

pytest.importorskip("numba.cuda")
from lrscan.core.dtypes import KINDS, described  # noqa: E402
from lrscan.core.sweep import Operand, Rows  # noqa: E402
from lrscan.cuda.dispatch import _choose  # noqa: E402
from lrscan.cuda.single_pass.plan import GROUP_VALUES, THREADS_WITHOUT_MAPS, layout_of, plan  # noqa: E402
from lrscan.cuda.single_pass.room import room_of  # noqa: E402
from lrscan.cuda.single_pass.tiles import MOST_THREADS, Layout, shape_of  # noqa: E402
from lrscan.cuda.steps import Extents, Row, Variant  # noqa: E402

SHAPES = [
    (steps, n1, n0)
    for steps in (1, 31, 1000, 65_536, 2**20, 2**31 + 7, 2**33 + 1)
    for n1, n0 in ((1, 1), (1, 3), (1, 128), (8, 1536), (70_000, 8), (1, 2**20 + 4), (1, 2**33))
    if steps * n1 * n0 < 2**38  # a terabyte
]
PROCESSORS = 132


def variant(kind="float32", backward=False):
    return Variant(backward, kind, kind, kind, True, backward)


def rows(*strides, address=64, size=4):
    """Return the rows of a forward sweep whose (time, outer, inner) strides are in elements."""
    own = Row(address, strides[0] * size, 0, strides[1] * size, strides[2] * size)
    none = Row(*[0] * 5)
    return Rows(own, own, none, own, none, none, none)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["columns", "time", "thin"])
def test_tiles_cover_everything_and_fit(order, kind):
    for (steps, n1, n0), backward in itertools.product(SHAPES, (False, True)):
        own, lanes = variant(kind, backward), 16 // KINDS[kind].size if order == "columns" else 1
        layout = Layout(order, lanes)
        if n0 % lanes:
            continue
        K, V = shape_of(own, layout)
        chosen = plan(own, layout, Extents(steps, 1, n1, n0), PROCESSORS)
        width, length = chosen.vectors * V, chosen.chunks * K
        assert 1 <= chosen.vectors * chosen.chunks <= chosen.threads <= MOST_THREADS
        assert chosen.tiles * length >= steps > (chosen.tiles - 1) * length
        assert chosen.strips == -(-n0 // width)
        assert chosen.grid == chosen.tiles * n1 * chosen.strips < 2**31
        room = room_of(own, layout)
        assert width * (chosen.radix - 1) <= room.maps
        assert room.numbers * described(own.state).size <= 48 * 1024 - 8


def test_there_are_tiles_for_every_multiprocessor_if_there_is_enough_work():
    for steps, columns in [(2**20, 1), (2**16, 32), (2**13, 256)]:
        chosen = plan(variant(), Layout("time", 4), Extents(steps, 1, 1, columns), PROCESSORS)
        assert chosen.grid >= 1.5 * PROCESSORS


def test_tiles_form_groups_only_where_columns_are_few():
    many = plan(variant(), Layout("columns", 4), Extents(65_536, 1, 1, 12_288), PROCESSORS)
    few = plan(variant(), Layout("columns", 4), Extents(2**20, 1, 1, 32), PROCESSORS)
    assert many.radix == 1 and few.radix > 16


def test_blocks_are_smaller_only_where_tiles_pass_no_maps():
    for order, extents in (("columns", (8192, 1, 8, 1024)), ("time", (1024, 1, 1, 65_536))):
        chosen = plan(variant(), Layout(order, 4), Extents(*extents), PROCESSORS)
        assert chosen.radix == 1 and chosen.threads == THREADS_WITHOUT_MAPS
    for order, extents in (("columns", (65_536, 1, 4, 256)), ("time", (2**21, 1, 1, 32))):
        chosen = plan(variant(), Layout(order, 4), Extents(*extents), PROCESSORS)
        assert chosen.radix > 1 and chosen.threads == MOST_THREADS


@pytest.mark.parametrize("columns", [256, 1024, 2048, 4096])
def test_a_group_of_tiles_has_just_enough_elements(columns):
    chosen = plan(variant(), Layout("columns", 4), Extents(65_536, 1, 1, columns), PROCESSORS)
    elements = chosen.radix * chosen.chunks * 8 * columns
    assert GROUP_VALUES <= elements < 2 * GROUP_VALUES


@pytest.mark.parametrize(
    ("operands", "extents", "expected"),
    [
        (rows(64, 0, 1), (100, 1, 1, 64), Layout("columns", 4)),
        (rows(-64, 0, 1), (100, 1, 1, 64), Layout("columns", 4)),
        (rows(64, 0, 1, address=68), (100, 1, 1, 64), Layout("columns", 1)),
        (rows(63, 0, 1), (100, 1, 1, 63), Layout("columns", 1)),
        (rows(64, 6400, 1), (100, 1, 9, 64), Layout("columns", 4)),
        (rows(1, 0, 100), (100, 1, 1, 64), Layout("time", 4)),
        (rows(-1, 0, 100, address=76), (100, 1, 1, 64), Layout("time", 4, down=True)),
        (rows(-1, 0, 100, address=64), (100, 1, 1, 64), Layout("time", 1)),
        (rows(1, 0, 101), (101, 1, 1, 64), Layout("time", 1)),
        (rows(1, 0, 0), (100, 1, 1, 1), Layout("time", 4)),
        (rows(3, 0, 1), (100, 1, 1, 3), Layout("thin", 1)),
        (rows(200, 0, 2), (100, 1, 1, 64), Layout("thin", 1)),
    ],
)
def test_layouts_are_recognised(operands, extents, expected):
    assert layout_of(variant(), operands, Extents(*extents)) == expected


def test_a_coefficient_that_is_the_same_for_all_lanes_is_read_once():
    extents = Extents(100, 1, 1, 64)
    operands = rows(64, 0, 1)._replace(a=Row(64, 4, 0, 0, 0))
    assert layout_of(variant(), operands, extents) == Layout("columns", 4, same_a=True)
    operands = rows(1, 0, 100)._replace(a=Row(68, 0, 0, 0, 4))
    assert layout_of(variant(), operands, extents) == Layout("time", 4, same_a=True)


@pytest.mark.parametrize(
    ("dtype", "steps", "columns", "apart", "forward", "backward"),
    [
        ("float32", 4, 1000, 1, "serial", "serial"),  # hardly more work than a launch
        ("float32", 8, 1000, 1, "single_pass", "single_pass"),
        ("float32", 32, 1000, 1, "serial", "single_pass"),  # all steps are read ahead at once
        ("float32", 40, 1000, 1, "single_pass", "single_pass"),  # eight steps remain
        ("float32", 128, 2**18, 1, "serial", "single_pass"),
        ("float32", 1024, 2**21, 1, "single_pass", "single_pass"),
        ("bfloat16", 512, 1000, 1, "serial", "single_pass"),
        ("bfloat16", 1024, 2**16, 1, "serial", "single_pass"),  # half the bytes per number
        ("bfloat16", 8192, 2**13, 1, "single_pass", "single_pass"),
        ("bfloat16", 8, 2**21, 8, "serial", "serial"),  # one sector has a whole column
        ("float32", 8, 2**16, 8, "serial", "serial"),
        ("float32", 8, 2**21, 8, "single_pass", "single_pass"),
        ("float32", 16, 2**16, 16, "single_pass", "serial"),
        ("float32", 1024, 2**21, 1024, "single_pass", "single_pass"),
    ],
)
def test_auto_uses_one_thread_per_column_only_where_that_was_faster(
    dtype, steps, columns, apart, forward, backward
):
    operands = {"x": Operand(getattr(torch, dtype), 0, 1, (0, 0, apart), True)}
    for way, algorithm in ((False, forward), (True, backward)):
        own = variant(dtype, way)
        assert _choose(operands, own, steps, (1, 1, columns), PROCESSORS) == algorithm
