"""Measurements beyond one device, on tiny sizes, and the notebook's claim about them."""

import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch
from projects import make_project

from lrscan import distributed
from lrscan.distributed import cost
from lrscan.experiments import outlook, peak_memory, ranks, scaling

NOTEBOOK = Path(__file__).parents[2] / "notebooks/reproduce/07_beyond_one_device.ipynb"
SIZES = {"lengths": [37, 64], "features": [3], "ranks": [1, 2], "runs": 2}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield scaling.measure(device="cpu", seed=0, **SIZES)


def test_every_case_has_a_row_with_its_bytes(measured):
    table = measured.table
    split = table[(table["algorithm"] == "split") & (table["direction"] != "exchange")]
    cases = set(split[["direction", "T", "ranks"]].itertuples(index=False, name=None))
    assert cases == {
        (d, t, n) for d in ("forward", "backward") for t in SIZES["lengths"] for n in (1, 2)
    }
    for row in split.itertuples():
        assert row.bytes == cost.bytes_a_rank(row.direction, row.T, 3, row.ranks)
    whole = table[table["algorithm"] == "whole"]
    assert set(whole["ranks"]) == {1} and len(whole) == 4
    exchanges = table[table["direction"] == "exchange"]
    assert set(exchanges["ranks"]) == {2} and {1, 3} < set(exchanges["C"])
    assert exchanges["T"].isna().all()
    assert (table["q1_ms"] <= table["median_ms"]).all() and (table["q1_ms"] > 0).all()


def test_the_model_is_what_was_measured_where_it_was_fitted(measured):
    table = scaling.summarise(measured)
    ends = table[table["fitted"] & (table["direction"] != "exchange")]
    assert set(ends["ranks"]) == {1} and len(ends) == 4
    # Instead of a negative intercept the fit is a line through zero, which meets the longest only.
    at_most = ends["model_ms"] >= ends["median_ms"] * (1 - 1e-9)
    assert at_most.all()
    assert set(table.loc[~table["fitted"], "ranks"]) == {2}
    assert (table["model_ms"] > 0).all()


def test_a_wrong_chunk_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "linear_recurrence", lambda a, x, group: a * x)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/at", rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="h on rank 0 differs from that of one process"):
            ranks._calls(torch.distributed.group.WORLD, torch.device("cpu"), 8, 2, 0)
    finally:
        torch.distributed.destroy_process_group()


def test_a_count_of_zero_ranks_is_refused():
    with pytest.raises(ValueError, match="not 0"):
        scaling.measure(device="cpu", seed=0, **SIZES | {"ranks": [0, 2]})


def test_figures_are_drawn_from_few_rows(measured):
    figure = scaling.plot(measured)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["forward, 3 columns", "backward, 3 columns", "the exchange alone"]
    assert "times as fast as" in figure.get_suptitle().replace("\n", " ")
    alone = replace(measured, table=measured.table[measured.table["ranks"] == 1])
    assert scaling.plot(alone).get_suptitle().startswith("A recurrence split along time")


def far(tree_round_s=1e-5):
    device = cost.Device(2e-5, 2.68e12)
    links = {"ring": cost.Link(1e-5, 5e10), "tree": cost.Link(tree_round_s, 5e10, tree=True)}
    return outlook.predict(device, links, 2**36, 16, [1, 1024])


def test_the_outlook_is_the_model():
    table = far()
    assert len(table) == 8 and set(table["T"]) == {2**36}
    alone = table[(table["ranks"] == 1) & (table["direction"] == "forward")]
    assert alone["speedup"].tolist() == pytest.approx([0.5, 0.5], rel=1e-4)
    best = table.loc[table["speedup"].idxmax()]
    assert (best["ranks"], best["link"], best["direction"]) == (1024, "tree", "backward")
    title = outlook.plot(table, "a device").get_suptitle().replace("\n", " ")
    assert title.startswith("A model, not a measurement: 1,024 devices do the work of ")


def claim(ratio=1.0, pieces=1, distant=None):
    """Run the notebook's last cell on these numbers."""
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]

    class Memory:
        table = pandas.DataFrame({"algorithm": ["whole", "pieces"], "bytes": [9, pieces]})

    names = {
        "rest": pandas.DataFrame({"median_ms": [1.0] * 3}),
        "memory": [Memory],
        "ratio": pandas.Series([ratio] * 3),
        "far": far() if distant is None else distant,
        "pandas": pandas,
    }
    exec("".join(cells[-1]["source"]), names)


def test_the_notebooks_claim_holds_and_can_fail(capsys):
    claim()
    assert "1.00 in the median of\n3 times" in capsys.readouterr().out
    wrong = [{"ratio": 3.5}, {"ratio": 0.3}, {"pieces": 4}, {"distant": far(tree_round_s=1e-3)}]
    for numbers in wrong:
        with pytest.raises(AssertionError):
            claim(**numbers)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="elsewhere less exact")
def test_chunks_hold_less_than_one_call(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path / "project"))
    one = peak_memory.measure(seed=0, whole_steps=8192, piece_steps=512)
    held = one.table.set_index("algorithm")["bytes"]
    activations = 8192 * 64 * 2 * 4  # at the least: h of both layers
    assert held["whole"] > 3 * held["pieces"] and held["whole"] > activations
    shown = [label.get_text() for label in peak_memory.plot(one).axes[0].texts]
    assert shown == [f"{held[name] / 2**20:.0f} MiB" for name in ("whole", "pieces")]
