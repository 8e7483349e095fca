"""Tests of merging a result: what is checked and merged, and that a refusal changes nothing."""

import json
import subprocess
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from projects import in_run, make_project
from training_records import trained

from lrscan.campaign import merge as merging
from lrscan.campaign import store
from lrscan.campaign.store import CampaignError, State
from lrscan.cli import commands
from lrscan.evidence import records, workspace

GPU = {"device": "h100", "device_label": "NVIDIA H100", "device_type": "cuda", "dirty": False}
MORE = {"parameters": {"runs": 3}, "seed": 0, "versions": {"torch": "2"}, "profile": "gpu"}
TIMES = {"serial_paper": 8.0, "serial": 2.0, "single_pass": 0.1}


def git(*arguments):
    line = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Repository with one commit and one source file that affects measurements."""
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    (root / "lrscan").mkdir()
    (root / "lrscan" / "kernel.py").write_text("one = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    return root


class Result:
    """Result folder that a test fills with records of this commit."""

    def __init__(self, path):
        self.path, self.work = path, path.parent / f"{path.name}-work"
        self.commit = git("rev-parse", "HEAD")
        phases = {"smoke": {"status": "done", "message": "all"}}
        sources = store.source_digests(workspace.find_root())
        self.state = State("h100", "NVIDIA H100", "cuda", self.commit, False, sources, {}, phases)

    @property
    def origin(self):
        return GPU | MORE | {"commit": self.commit}

    def times(self, steps=(65_536,), left=0, **more):
        rows = [
            {"algorithm": name, "T": T, "C": 32, "median_ms": ms}
            for T in steps
            for name, ms in TIMES.items()
        ]
        origin = self.origin | more
        records.say_left(origin, left)
        records.write("kernel_speedup", rows, origin, directory=self.work / "records")
        return self

    def runs(self, *runs, monkeypatch, **more):
        with monkeypatch.context() as patch:
            in_run(patch, records=str(self.work / "records"))
            trained(self.origin | more, "problem_2b", *runs)
        return self

    def packed(self, **changed):
        self.path.mkdir(exist_ok=True)
        with zipfile.ZipFile(self.path / store.ARCHIVE, "w") as file:
            file.writestr("state.json", json.dumps(asdict(self.state) | changed))
            for path in self.work.rglob("*"):
                if path.is_file():
                    file.write(path, path.relative_to(self.work))
        return self.path


@pytest.fixture
def result(tmp_path):
    return Result(tmp_path / "result")


def merge(path, **options):
    said = []
    status = merging.merge(path, draw=False, say=said.append, **options)
    assert status == 0
    return "\n".join(said)


def committed():
    folder = workspace.committed_records()
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(path, message, **options):
    before = committed()
    with pytest.raises(CampaignError, match=message):
        merge(path, **options)
    assert committed() == before


def test_records_are_merged_byte_for_byte_and_changed_claims_are_printed(result):
    output = merge(result.times().packed())
    for ending in ("csv", "json"):
        at = f"records/h100/kernel_speedup.{ending}"
        assert (result.work / at).read_bytes() == Path("figures", at).read_bytes()
    assert "NVIDIA H100, commit" in output and "kernel_speedup: 3 timings" in output
    assert "C2 on NVIDIA H100:\n    before: not measured yet\n    now:    holds: at T" in output
    assert "C3" not in output


def test_a_second_merge_of_a_result_changes_nothing(result):
    merge(result.times().packed())
    before = committed()
    output = merge(result.path)
    assert output == "Nothing new: figures/records already has the records of kernel_speedup"
    assert committed() == before


def test_a_partial_record_says_so(result):
    assert "partial: 4 shapes left to measure" in merge(result.times(left=4).packed())
    assert records.read("kernel_speedup", "h100").left == 4
    from lrscan.experiments import claims

    table = claims.table()
    (ours,) = table[table["id"] == "C2"]["ours"]
    assert ours.endswith("(partial: 4 left)")


def test_fewer_times_do_not_replace_more_unless_asked(result, tmp_path):
    merge(result.times((16, 65_536)).packed())
    fewer = Result(tmp_path / "fewer").times().packed()
    refuses(fewer, "3 timings, fewer than the 6 in figures/records/h100/kernel_speedup.csv")
    assert "3 timings replace 6" in merge(fewer, replace=True)
    more = Result(tmp_path / "more").times((16, 64, 65_536)).packed()
    assert "9 timings replace 3" in merge(more)


def test_new_runs_are_added_to_committed_ones(result, tmp_path, monkeypatch):
    merge(
        result.runs(
            ("GILRLSTM", 1024, 0, 5), ("LSTM", 1024, 0, None), monkeypatch=monkeypatch
        ).packed()
    )
    first = records.read("problem_2b", "h100").provenance["measurements"]
    Path("lrscan", "kernel.py").write_text("one = 2\n")
    git("commit", "-qam", "two")
    # A later campaign at another commit continued from a committed run and trained two new ones.
    later = Result(tmp_path / "later")
    later.runs(("GILRLSTM", 1024, 0, 5), monkeypatch=monkeypatch, commit=result.commit)
    later.runs(("GILRLSTM", 1024, 1, 7), ("LSTM", 1024, 1, 9), monkeypatch=monkeypatch)
    assert "problem_2b: 2 new runs, 4 in total" in merge(later.packed())
    found = records.read("problem_2b", "h100")
    ended = {m["outcome"]["run"]: m for m in found.provenance["measurements"]}
    assert len(ended) == 4 and len(found.table) == 5 + 50 + 7 + 9
    for one in first:
        assert ended[one["outcome"]["run"]] == one
    assert {m["commit"] for m in ended.values()} == {result.commit, later.commit}
    # A run that had not learned is replaced by the same run after more iterations.
    gave_up = Result(tmp_path / "longer").runs(("LSTM", 1024, 0, 60), monkeypatch=monkeypatch)
    assert "1 new run, 4 in total" in merge(gave_up.packed())


def test_new_runs_of_another_commit_are_refused(result, monkeypatch):
    result.runs(("GILRLSTM", 1024, 0, 5), monkeypatch=monkeypatch, commit="beef")
    refuses(result.packed(), "was measured at commit beef, but the result names commit")


def test_the_sources_are_those_of_the_commit(result):
    result.times()
    other = {"lrscan/kernel.py": "0" * 40}
    path = result.packed(sources=other)
    refuses(path, "the measured files differ from commit .* in lrscan/kernel.py. Measure again")
    # This happens if the files were changed and --commit named the commit without -dirty.
    merge(path, accept_dirty=True)
    (measurement,) = records.read("kernel_speedup", "h100").provenance["measurements"]
    assert measurement["dirty"] is True and measurement["commit"] == result.commit


def test_a_dirty_tree_is_refused_and_recorded_if_accepted(result):
    Path("lrscan", "kernel.py").write_text("one = 3\n")
    result.times(dirty=True)
    changed = {"dirty": True, "sources": store.source_digests(workspace.find_root())}
    path = result.packed(**changed)
    refuses(path, "with uncommitted changes in lrscan/kernel.py. Commit and measure again")
    assert "with uncommitted changes" in merge(path, accept_dirty=True)
    (measurement,) = records.read("kernel_speedup", "h100").provenance["measurements"]
    assert measurement["dirty"] is True


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"commit": "beef" + 36 * "0"}, "commit beef0+, which this repository does not have"),
        ({"device_type": "cpu", "device_label": "CPU, 2 cores"}, "on CPU, 2 cores: a rehearsal is"),
        (
            {
                "phases": {
                    "smoke": {"status": "failed", "message": "2 failed"},
                    "narrow": {"status": "done", "message": "the smallest is (1, 1)"},
                }
            },
            "smoke test did not pass, .*: 2 failed; the smallest is",
        ),
        ({"phases": {}}, "smoke test did not pass, .*: it was not run"),
        ({"device": "h200"}, "was measured on h200, but has records of h100"),
        ({"format": 7}, "its format is 7, but only format 1 can be read"),
    ],
)
def test_a_result_that_must_not_be_merged_is_refused(result, changed, message):
    refuses(result.times().packed(**changed), message)


def test_damaged_records_are_refused(result):
    result.times()
    folder = result.work / "records" / "h100"
    csv = (folder / "kernel_speedup.csv").read_text()
    (folder / "kernel_speedup.csv").write_text(csv.replace("median_ms", "milliseconds"))
    refuses(result.packed(), "kernel_speedup cannot be read: .*unknown column 'milliseconds'")
    (folder / "kernel_speedup.csv").write_text(csv.replace("h100", "h200"))
    refuses(result.packed(), "kernel_speedup are empty or not of h100")
    (folder / "kernel_speedup.csv").write_text(csv)
    (folder / "other.csv").write_text(csv)
    refuses(result.packed(), "records of 'other', which is not an experiment")


def test_a_result_without_records_is_refused(result):
    refuses(result.packed(), "has no records: no phase that measures was started")


def test_the_command_refuses_with_a_message(tmp_path):
    made = CliRunner().invoke(commands.main, ["campaign", "merge", str(tmp_path)])
    assert made.exit_code == 2 and "there is no campaign result in" in made.output


def test_a_campaign_continues_from_committed_runs(result, tmp_path, monkeypatch):
    merge(result.times().runs(("GILRLSTM", 64, 0, 5), monkeypatch=monkeypatch).packed())
    merging.committed_runs("h100", tmp_path / "records")
    there = sorted(path.name for path in (tmp_path / "records" / "h100").iterdir())
    assert there == ["problem_2b.csv", "problem_2b.json"]  # not the timings, of another commit
