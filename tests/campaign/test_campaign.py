"""Tests of a campaign: phases keep their limits, whatever happens to one, and nothing is lost."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import campaign_stage as stage
import pytest
import torch
from click.testing import CliRunner
from projects import LONGEST_S, PYTHONPATH, alive, make_project, wait_until

from lrscan.campaign import phases, plan, run, store
from lrscan.campaign.phases import PHASES, Phase
from lrscan.campaign.run import Campaign
from lrscan.campaign.store import CampaignError, Store
from lrscan.cli import commands
from lrscan.core import sweep

COMMIT = "c0ffee" + 34 * "0"
NAMES = [phase.name for phase in PHASES]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    (root / "lrscan").mkdir()
    (root / "lrscan" / "kernel.py").write_text("one = 1\n")
    monkeypatch.chdir(root)
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, PYTHONPATH]))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path / "temporary"))
    return root


# Too long for any phase of these tests to reach: a phase that reaches it hangs.
LIMIT_S = 1000.0


def phase(call, limit_s=LIMIT_S, name=None, **more):
    return Phase(name or call, f"about {call}", limit_s, f"campaign_stage:{call}", **more)


def campaign(out, *phases, minutes=1000.0, **options):
    said = []
    given = {"device": "cpu", "commit": COMMIT, "phases": phases, "say": said.append} | options
    one = Campaign(out, minutes, **given)
    return one, said


def skip_to_the_limit(monkeypatch, campaign):
    """Let the clock jump past the limit as soon as a phase hangs."""
    hung = campaign.store.work / "notes" / "child"

    def monotonic():
        return time.monotonic() + LIMIT_S * hung.is_file()

    clock = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    monkeypatch.setattr(run, "time", clock)


def packed(out):
    """Return (state, names in the archive)."""
    with zipfile.ZipFile(out / store.ARCHIVE) as file:
        return json.loads(file.read("state.json")), file.namelist()


def statuses(out):
    return {name: outcome["status"] for name, outcome in packed(out)[0]["phases"].items()}


def test_a_phase_that_fails_hangs_or_is_killed_does_not_stop_the_others(tmp_path):
    out = tmp_path / "out"
    one, said = campaign(out, *map(phase, ("fails", "hangs", "is_killed", "works")))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Campaign, "_unfinished", lambda self: [])
        skip_to_the_limit(monkeypatch, one)
        assert one.run() == 1
    state, names = packed(out)
    assert statuses(out) == {
        "fails": "failed",
        "hangs": "partial",
        "is_killed": "died",
        "works": "done",
    }
    messages = {name: outcome["message"] for name, outcome in state["phases"].items()}
    assert messages["fails"] == "ValueError: no good"
    assert messages["hangs"].startswith("killed at its limit of 1000 s; ")
    assert "SIGKILL" in messages["is_killed"] and messages["works"] == "all is well"
    # Files written before a phase ended are kept, and no process that it started is alive.
    assert {"notes/child", "notes/before", "notes/works"} <= set(names)
    with zipfile.ZipFile(out / store.ARCHIVE) as file:
        assert not alive(int(file.read("notes/child")))
        assert file.read("logs/start.txt") == b""  # no warning when a process starts
    table = said[-4:]
    assert [line.split()[0] for line in table] == ["fails", "hangs", "is_killed", "works"]
    assert (out / store.SUMMARY).read_text().splitlines()[-4:] == table
    assert {path.name for path in out.iterdir()} == {store.ARCHIVE, store.SUMMARY}
    # A second run repeats only unfinished phases. It continues from a copy of the result folder.
    before = state["phases"]["works"]
    again, said = campaign(
        tmp_path / "again", phase("fails"), phase("works"), phase("takes_two"), earlier=out
    )
    assert again.run() == 1
    state, _ = packed(tmp_path / "again")
    assert state["phases"]["works"] == before
    assert state["phases"]["fails"]["attempts"] == 2
    # An unfinished phase continues in the time that is left.
    assert state["phases"]["takes_two"] | {"seconds": 0} == {
        "status": "done",
        "message": "the rest",
        "attempts": 2,
        "seconds": 0,
    }


def test_phases_that_hung_come_after_those_that_have_more_to_do(tmp_path):
    one, _ = campaign(
        tmp_path / "out",
        phase("hangs"),
        phase("fails"),
        phase("works"),
        phase("takes_two"),
        phase("is_killed", None),
    )
    for name, status in (("hangs", "partial"), ("works", "done"), ("takes_two", "partial")):
        one.state.phases[name] = {"status": status}
    one._killed.add("hangs")
    one._failed.add("fails")
    assert [phase.name for phase in one._unfinished()] == ["takes_two", "hangs", "is_killed"]


def test_a_phase_has_its_limit_and_no_more_than_the_minutes_left(tmp_path):
    some = [phase("tells_its_seconds"), phase("takes_two", None, name="rest")]
    one, _ = campaign(tmp_path / "out", *some)
    assert one.run() == 75  # the phase "rest" has more to do
    with zipfile.ZipFile(tmp_path / "out" / store.ARCHIVE) as file:
        assert 0 < float(file.read("notes/seconds")) <= LIMIT_S
    none_left, said = campaign(tmp_path / "none", phase("works"))
    none_left.deadline = time.monotonic() + 1
    assert none_left.run() == 75 and "not started" in said[-1]


@pytest.mark.parametrize("call", ["is_killed_once", "loses_its_device_once"])
def test_a_phase_is_started_again_after_a_crash(tmp_path, call):
    one, said = campaign(tmp_path / "out", phase(call, attempts=3))
    assert one.run() == 0
    outcome = packed(tmp_path / "out")[0]["phases"][call]
    assert (outcome["status"], outcome["message"], outcome["attempts"]) == ("done", "through", 2)
    assert sum("; retrying after attempt 1 of 3" in line for line in said) == 1


def test_nothing_is_measured_after_a_smoke_test_that_failed(tmp_path, monkeypatch):
    narrow = Phase("narrow", "", None, "campaign_stage:works", {"text": "the smallest is 1"})
    monkeypatch.setattr(run, "NARROW", narrow)
    one, said = campaign(tmp_path / "out", phase("wrong", name="smoke"), phase("works"))
    assert one.run() == 1
    assert statuses(tmp_path / "out") == {"smoke": "failed", "narrow": "done"}
    assert any(line.startswith("works        not started") for line in said)
    assert said[-1].endswith("the smallest is 1")


def test_an_unfinished_smoke_test_is_finished_before_anything_is_measured(tmp_path):
    out = tmp_path / "out"
    one, _ = campaign(out, phase("takes_two", name="smoke"), phase("works"))
    assert one.run() == 0 and statuses(out) == {"smoke": "done", "works": "done"}
    out = tmp_path / "other"
    one, said = campaign(out, phase("has_not_ended", name="smoke"), phase("works"))
    assert one.run() == 75
    # It did not fail, so there is no failure to narrow down, and nothing is measured.
    assert statuses(out) == {"smoke": "partial"}
    assert "the smoke test did not pass, so nothing is measured" in said


def test_a_smoke_test_that_hangs_has_failed(tmp_path, monkeypatch):
    narrow = Phase("narrow", "", None, "campaign_stage:works")
    monkeypatch.setattr(run, "NARROW", narrow)
    out = tmp_path / "out"
    one, _ = campaign(out, phase("hangs", name="smoke", attempts=2), phase("works"))
    skip_to_the_limit(monkeypatch, one)
    assert one.run() == 1
    assert statuses(out) == {"smoke": "died", "narrow": "done"}
    # A later run tries the failed cases again.
    again, _ = campaign(tmp_path / "again", phase("works", name="smoke"), earlier=out)
    assert not (again.store.work / "notes").exists()


@pytest.mark.parametrize(("call", "started"), [("works", True), ("fails", False)])
def test_without_a_kit_the_kernels_are_compiled_before_the_first_phase(
    tmp_path, monkeypatch, call, started
):
    monkeypatch.setattr(run, "COMPILE", phase(call, name="compile"))
    one, said = campaign(tmp_path / "out", phase("takes_two", None))
    one.device = torch.device("cuda")
    assert one.run() == (75 if started else 1)
    assert list(statuses(tmp_path / "out")) == ["compile", *["takes_two"] * started]
    assert started or any(
        "the kernels cannot be compiled here: make a kit" in line for line in said
    )


def test_with_a_kit_nothing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "COMPILE", phase("fails", name="compile"))
    one, _ = campaign(tmp_path / "out", phase("works"))
    one.device, one.kit = torch.device("cuda"), tmp_path
    assert one.run() == 0 and list(statuses(tmp_path / "out")) == ["works"]


def test_kernels_are_compiled_for_this_gpu(tmp_path, monkeypatch, capsys):
    properties = SimpleNamespace(multi_processor_count=40)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(phases.warmup, "check_compilers", lambda: None)
    asked = []
    monkeypatch.setattr(phases.warmup, "compile_all", lambda *given: asked.append(given) or (3, 4))
    context = phases.PhaseContext("cuda", "gpu", tmp_path, time.monotonic() + 60)
    assert phases.compile_kernels(context) == phases.DONE
    assert asked == [("lrscan.campaign.kernels:needed", (40,), (7, 5), None)]
    assert "=> 3 kernels compiled, 4 already present" in capsys.readouterr().out


def test_a_kit_of_other_sources_is_refused(tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "serial-sm90-0123456789abcdef.cubin").write_bytes(b"")
    with pytest.raises(CampaignError, match="not compiled from the sources here, .*: make the kit"):
        campaign(tmp_path / "out", phase("works"), kit=tmp_path)
    monkeypatch.setattr(run, "digest", lambda folder: "0123456789abcdef" * 4)
    campaign(tmp_path / "out", phase("works"), kit=tmp_path)


def test_a_file_that_vanishes_while_the_archive_is_written_is_no_error(tmp_path, monkeypatch):
    one, _ = campaign(tmp_path / "out", phase("works"))
    one.store.records.mkdir()
    for name in ("one.csv", ".one.csv.1a2b"):
        (one.store.records / name).write_text("a")
    one.store.pack(force=True)
    assert "records/.one.csv.1a2b" not in packed(tmp_path / "out")[1]
    gone = one.store.records / "gone.csv"
    listed = one.store._files()
    monkeypatch.setattr(one.store, "_files", lambda: [*listed, gone])
    one.store.pack()  # the archive stays as it was
    assert "records/one.csv" in packed(tmp_path / "out")[1]


def test_a_campaign_ends_when_its_device_no_longer_works(tmp_path, monkeypatch):
    monkeypatch.setattr(Campaign, "_device_problem", lambda self: "no such device")
    one, said = campaign(tmp_path / "out", phase("works"), phase("fails"), phase("takes_two"))
    assert one.run() == 1
    assert "the device no longer works: no such device; earlier measurements are kept" in said
    assert statuses(tmp_path / "out") == {"works": "done", "fails": "failed"}


def test_a_signal_ends_the_phase_and_the_results_are_packed(tmp_path, project):
    script = (
        "import sys; from pathlib import Path; import test_campaign as t\n"
        "one, _ = t.campaign(Path(sys.argv[1]), t.phase('hangs'), t.phase('works'))\n"
        "sys.exit(one.run())"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", script, out])
    try:
        wait_until(lambda: (out / store.ARCHIVE).is_file() and "notes/child" in packed(out)[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST_S) == 128 + signal.SIGTERM
    finally:
        process.kill()
    state, _ = packed(out)
    assert state["phases"]["hangs"]["message"] == "stopped by SIGTERM"
    assert "works" not in state["phases"]
    with zipfile.ZipFile(out / store.ARCHIVE) as file:
        assert not alive(int(file.read("notes/child")))


def test_under_nohup_a_campaign_is_not_stopped_by_a_hang_up(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        one, _ = campaign(tmp_path / "out", phase("works"))
        with one._signals():
            signal.raise_signal(signal.SIGHUP)
            assert one._stopped == 0
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
                signal.raise_signal(number)
                assert one._stopped == number
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_full_disk_does_not_damage_the_archive(tmp_path, monkeypatch):
    out = tmp_path / "out"
    one, _ = campaign(out, phase("works"))
    one.store.pack(force=True)
    before = (out / store.ARCHIVE).read_bytes()
    write = store.write_files

    def full(files):
        if any(path.parent == out for path in files):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files)

    monkeypatch.setattr(store, "write_files", full)
    assert one.run() == 1
    assert (out / store.ARCHIVE).read_bytes() == before
    assert "No space left on device" in (last := one.summary()[-1])
    work = Path(last.rpartition(" ")[2])
    assert (work / "notes" / "works").read_text() == "all is well"


def test_an_archive_is_kept_small(tmp_path, monkeypatch):
    one, _ = campaign(tmp_path / "out", phase("works"))
    one.store.log("long").write_bytes(os.urandom(300_000))
    one.store.records.mkdir(exist_ok=True)
    (one.store.records / "some.csv").write_text("a,b\n")
    one.store.pack(force=True)
    with zipfile.ZipFile(tmp_path / "out" / store.ARCHIVE) as file:
        assert file.getinfo("logs/long.txt").file_size == 128 * 1024
    monkeypatch.setattr(store, "MOST_BYTES", 60_000)
    one.store.pack(force=True)
    names = packed(tmp_path / "out")[1]
    assert "records/some.csv" in names and not any(name.startswith("logs/") for name in names)


def test_a_summary_whose_claims_cannot_be_computed_still_has_its_table(tmp_path, monkeypatch):
    one, _ = campaign(tmp_path / "out", phase("works"))
    one.store.records.mkdir()
    monkeypatch.setattr("lrscan.experiments.claims.table", lambda folder: 1 / 0)
    first, *_, last = one.summary()
    assert first == "claims: ZeroDivisionError: division by zero" and last.startswith("works")


def test_the_command_needs_neither_git_nor_jupyter(tmp_path):
    """Run from a copy of the files, as on a bare machine, but with compiled CPU kernels."""
    tree, blocker = tmp_path / "tree", tmp_path / "blocker"
    shutil.copytree(ROOT / "notebooks", tree / "notebooks")
    (tree / "lrscan").symlink_to(ROOT / "lrscan")
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('papermill', 'nbformat', 'nbclient', 'IPython', 'jupyter_client'):\n"
        "    sys.modules[name] = None\n"
    )
    line = [
        sys.executable,
        "-m",
        "lrscan",
        "campaign",
        "run",
        "--device",
        "cpu",
        "--minutes",
        "99",
        "--only",
        "heat_map",
        "--only",
        "sanitizer",
        "--commit",
        COMMIT,
        "--out",
        "result",
    ]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocker), str(tree)])}
    done = subprocess.run(line, cwd=tree, env=settings, capture_output=True, text=True)
    name, status, *_ = done.stdout.splitlines()[-2].split()
    # On a busy machine the phase may not finish within the limit.
    expected = {0: "done", 75: "partial"}
    assert (name, status) == ("heat_map", expected.get(done.returncode)), done.stdout + done.stderr
    state, names = packed(tree / "result")
    assert state["commit"] == COMMIT and "lrscan/campaign/run.py" in state["sources"]
    csv = [name for name in names if name.endswith("lstm_throughput.csv")]
    assert len(csv) == 1
    with zipfile.ZipFile(tree / "result" / store.ARCHIVE) as file:
        sidecar = json.loads(file.read(csv[0].replace(".csv", ".json")))
    assert sidecar["measurements"][-1]["commit"] == COMMIT


def refused(*arguments):
    result = CliRunner().invoke(commands.main, ["campaign", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "smokes"], f"no phase is called 'smokes'; the phases are: {', '.join(NAMES)}"),
        (["--minutes", "0.5"], "0.5 minutes are too few to measure anything: give --minutes 1"),
        (["--minutes", "nan"], "nan minutes are too few"),
        (["--minutes", "0.5", "--dry-run"], "0.5 minutes are too few"),
        (["--device", "cuda:9"], "(to rehearse without a GPU: --device cpu)"),
        (["--device", "tpu"], "not 'tpu'"),
        (["--commit", "main"], "a commit is 40 hexadecimal digits"),
        ([], "git finds no commit for"),
        (["--calls", "2"], "--calls only works with --dry-run"),
        (["--kit", "."], "is not a kit, since it has no folder named kernels"),
        (["--resume", "notebooks"], "no campaign result in notebooks: campaign.zip is missing"),
        (["--resume", "lrscan/kernel.py"], "kernel.py is not a campaign result: "),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, message, project):
    given = [] if "--commit" in arguments or "no commit" in message else ["--commit", COMMIT]
    assert message in refused("run", "--device", "cpu", "--out", "o", *given, *arguments)
    assert not Path("o", store.ARCHIVE).exists()


def test_a_result_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError, match="file/out cannot be written: Not a directory"):
        campaign(tmp_path / "file" / "out", phase("works"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": "beef" + 36 * "0"}, "the earlier result has another commit: 'c0ffee"),
        ({"commit": f"{COMMIT}-dirty"}, "has another dirty flag: False, not True"),
        ({"device": "h100"}, "has another device: 'h100', not 'cpu-"),
        ({"versions": {"torch": "1.0"}}, "measured with {'torch': '1.0'}, but {"),
        ({"sources": {"lrscan/kernel.py": "0"}}, "have changed .*: lrscan/kernel.py, "),
    ],
)
def test_an_earlier_result_that_does_not_match_is_refused(tmp_path, change, message):
    out = tmp_path / "out"
    one, _ = campaign(out, phase("works"))
    for name, value in change.items():
        if name != "commit":
            setattr(one.state, name, value)
    one.store.pack(force=True)
    before = (out / store.ARCHIVE).read_bytes()
    with pytest.raises(CampaignError, match=message.replace("{", r"\{")):
        campaign(out, phase("works"), commit=change.get("commit", COMMIT))
    assert (out / store.ARCHIVE).read_bytes() == before


@pytest.mark.parametrize("name", ["../outside", "/outside", "records/../../outside", "C:/outside"])
def test_an_archive_that_reaches_outside_is_refused(tmp_path, name):
    out = tmp_path / "out"
    one, _ = campaign(out, phase("works"))
    one.store.pack(force=True)
    with zipfile.ZipFile(out / store.ARCHIVE, "a") as file:
        file.writestr(name, "text")
    with pytest.raises(CampaignError, match="is not a campaign result: it names"):
        Store(tmp_path / "other", out)


def test_half_an_archive_is_refused_and_kept(tmp_path):
    out = tmp_path / "out"
    one, _ = campaign(out, phase("works"))
    one.store.pack(force=True)
    half = (out / store.ARCHIVE).read_bytes()[:-40]
    (out / store.ARCHIVE).write_bytes(half)
    before = list((tmp_path / "temporary").iterdir())
    with pytest.raises(CampaignError, match="is not a campaign result: File is not a zip file"):
        campaign(out, phase("works"))
    assert (out / store.ARCHIVE).read_bytes() == half
    assert list((tmp_path / "temporary").iterdir()) == before


ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("minutes", "calls"), [(9.5, 1), (5.0, 2)])
def test_the_plan_fits_one_long_call_and_two_short_ones(in_checkout, minutes, calls):
    lines, fits = plan.table(minutes, calls)
    assert fits, "\n".join(lines)
    assert [line.split()[0] for line in lines[1 : 1 + len(PHASES)]] == NAMES
    # If every phase uses up its limit, the time still suffices for all of them.
    assert sum(one.limit_s or 0 for one in PHASES) <= 60 * 9.5 - run.RESERVE_S


def test_a_plan_that_does_not_fit_says_so(in_checkout):
    result = CliRunner().invoke(commands.main, ["campaign", "run", "--dry-run", "--minutes", "2"])
    assert result.exit_code == 1
    assert "1 call of 2 minutes: the plan does not fit; unfinished: " in result.output


def test_every_phase_can_be_called():
    from importlib import import_module

    for one in (*PHASES, run.NARROW):
        module, _, function = one.call.partition(":")
        assert callable(getattr(import_module(module), function)), one.name
        json.dumps(one.arguments)


def test_the_kit_has_every_kernel_that_a_model_launches(in_checkout, monkeypatch):
    """Run models forward and backward on the CPU, and plan the same sweeps for CUDA."""
    pytest.importorskip("numba.cuda")
    from lrscan import nn
    from lrscan.campaign.kernels import needed
    from lrscan.cuda.launch import noted
    from lrscan.experiments.models import MODELS

    calls, run = [], sweep.run

    def spy(tensors, backward, dim, reverse, algorithm, cu_seqlens, backend):
        shapes = {
            row: None if t is None else (t.shape, t.stride(), t.dtype) for row, t in tensors.items()
        }
        calls.append((shapes, backward, dim, reverse))
        run(tensors, backward, dim, reverse, algorithm, cu_seqlens, backend)

    monkeypatch.setattr(sweep, "run", spy)
    for width, batch in ((24, 1), (256, 8), (64, 1)):
        for make in (*MODELS.values(), nn.GILR):
            net = make(24, width, 2, algorithm="serial")  # so the CPU's fused cells are not used
            net(torch.rand(40, batch, 24))[0][-1].sum().backward()
    assert len(calls) > 40
    with noted(132) as launched:
        for shapes, backward, dim, reverse in calls:
            tensors = {
                row: None
                if one is None
                else torch.empty_strided(*one[:2], dtype=one[2], device="meta")
                for row, one in shapes.items()
            }
            for algorithm in ("auto", "serial_paper", "serial", "blocked", "single_pass"):
                run(tensors, backward, dim, reverse, algorithm, None, "cuda")
    assert len(launched) >= 10 and not set(launched) - set(needed())


def test_sweeps_over_tensors_without_data_are_refused():
    pytest.importorskip("numba.cuda")
    from lrscan.cuda.launch import launch_both_ways

    with pytest.raises(RuntimeError, match='tensors on "meta" have no data to sweep over'):
        launch_both_ways((40, 4), 0, torch.float32, "auto")


assert stage  # used: other processes call its functions by name
