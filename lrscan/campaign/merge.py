"""Merge of a campaign's result: its records go to ``figures/records/``, and figures are redrawn.

Everything is checked before anything is written, and all records are written together. Training
runs are added to the committed ones. The timings of an experiment replace the committed ones,
unless they are fewer.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas

from lrscan.campaign.store import CHANGED, CampaignError, State, archive_in, unpack
from lrscan.core.files import write_files
from lrscan.evidence import origin, provenance, records, workspace
from lrscan.evidence.records import Records
from lrscan.experiments import claims, registry
from lrscan.experiments.verdicts import NOT_MEASURED
from lrscan.runner import catalog

CLAIMS_NOTEBOOK = "reproduce/00_claims"


def merge(
    source: Path,
    *,
    accept_dirty: bool = False,
    replace: bool = False,
    draw: bool = True,
    say: Callable[[str], None] = print,
) -> int:
    """Check a result, merge its records, redraw the figures, and print which claims changed.

    Args:
        source:       a result folder, or its archive
        accept_dirty: accept a result measured with uncommitted changes; its records say so
        replace:      replace an experiment's committed timings even by fewer new ones
        draw:         redraw the figures, which needs papermill
        say:          called with each line of output

    Returns:
        The exit status: 1 if a figure could not be drawn.

    Raises:
        CampaignError: ``source`` is not a result, or must not be merged; nothing was changed
    """
    root, committed = workspace.find_root(), workspace.committed_records()
    origin.check(root)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        state = unpack(archive_in(Path(source)), work)
        _check_state(state)
        _check_sources(root, state, work / "records", accept_dirty)
        found = _read(work / "records", state)
        merged = work / "merged"
        news = {one.experiment: _merge_one(one, state, committed, merged, replace) for one in found}
        changed = {name: text for name, text in news.items() if text}
        if not changed:
            names = ", ".join(one.experiment for one in found)
            say(f"Nothing new: {workspace.relative(committed)} already has the records of {names}")
            return 0
        before = claims.table(committed)
        files = {}
        for name in changed:
            for ending in (".csv", ".json"):
                path = merged / state.device / f"{name}{ending}"
                files[committed / state.device / path.name] = path.read_bytes()
    write_files(files)
    about = f"{state.device_label}, commit {state.commit[:12]}{CHANGED * state.dirty}"
    say(f"{about}: merged into {workspace.relative(committed / state.device)}:")
    for name, text in changed.items():
        say(f"  {name}: {text}")
    status = _draw(root, list(changed), say) if draw else 0
    _report_claims(before, claims.table(committed), say)
    say("Check the figures, then commit: git add figures && git commit")
    return status


def _check_state(state: State) -> None:
    if state.device_type != "cuda":
        raise CampaignError(
            f"the result was measured on {state.device_label}: a rehearsal is not merged"
        )
    smoke = state.phases.get("smoke", {})
    if smoke.get("status") != "done":
        why = smoke.get("message") or "it was not run"
        narrow = state.phases.get("narrow", {}).get("message")
        raise CampaignError(
            f"the smoke test did not pass, so no number of this result can be used: {why}"
            + (f"; {narrow}" if narrow else "")
        )


def _mark_dirty(folder: Path, state: State) -> None:
    """Set ``dirty`` in the state and in the records of everything measured at its commit."""
    state.dirty = True
    for path in folder.glob("*/*.json"):
        document = json.loads(path.read_bytes())
        for measurement in document["measurements"]:
            measurement["dirty"] = measurement["dirty"] or measurement["commit"] == state.commit
        path.write_text(records.json_text(document))


def _check_sources(root: Path, state: State, records_folder: Path, accept_dirty: bool) -> None:
    """Raise unless this repository has the commit, and its files are the measured ones."""
    try:
        listing = provenance.git(root, "ls-tree", "-r", "-z", f"{state.commit}^{{commit}}")
    except (OSError, subprocess.SubprocessError):
        raise CampaignError(
            f"the result was measured at commit {state.commit}, which this repository does not "
            "have: fetch it first"
        ) from None
    blobs = {}
    for line in filter(None, listing.split("\0")):
        mode_type_blob, _, path = line.partition("\t")
        blobs[path] = mode_type_blob.split()[2]
    changed = sorted(path for path, blob in state.sources.items() if blobs.get(path) != blob)
    if changed and not state.dirty and not accept_dirty:
        raise CampaignError(
            f"the measured files differ from commit {state.commit[:12]} in "
            f"{', '.join(changed[:5])}. Measure again, or give --accept-dirty; the records then "
            "say that the tree was dirty"
        )
    if state.dirty and not accept_dirty:
        where = ", ".join(changed[:5]) or "files that do not affect measurements"
        raise CampaignError(
            f"the result was measured at commit {state.commit[:12]}{CHANGED} in {where}. Commit "
            "and measure again, or give --accept-dirty; the records then say that the tree was "
            "dirty"
        )
    if changed:
        _mark_dirty(records_folder, state)


def _read(folder: Path, state: State) -> list[Records]:
    """Read and check the result's records."""
    found = []
    for path in sorted(folder.glob("*/*.csv")):
        device, name = path.parent.name, path.stem
        if device != state.device:
            raise CampaignError(
                f"the result was measured on {state.device}, but has records of {device}"
            )
        if name not in registry.NAMES:
            raise CampaignError(f"the result has records of {name!r}, which is not an experiment")
        try:
            one = records.read(name, device, directory=folder)
            measurements = one.provenance["measurements"]
            wrong = [m for m in measurements if m["device"] != device]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CampaignError(f"the records of {name} cannot be read: {error}") from None
        if wrong or not (one.table["device"] == device).all() or one.table.empty:
            raise CampaignError(f"the records of {name} are empty or not of {device}")
        found.append(one)
    if not found:
        raise CampaignError("the result has no records: no phase that measures was started")
    return found


def _check_commit(name: str, measurement: dict[str, Any], state: State) -> None:
    if (measurement["commit"], bool(measurement["dirty"])) != (state.commit, state.dirty):
        raise CampaignError(
            f"{name} was measured at commit {measurement['commit']}"
            f"{CHANGED * bool(measurement['dirty'])}, but the result names commit {state.commit}"
            f"{CHANGED * state.dirty}"
        )


def _merge_one(one: Records, state: State, committed: Path, merged: Path, replace: bool) -> str:
    """Write the merged records of an experiment to a folder; describe what is new, or return ""."""
    before = records.find(one.experiment, one.device, directory=committed)
    join = _join_runs if "run" in one.table else _replace_times
    return join(one, before, state, merged, replace)


def _copy(one: Records, merged: Path) -> None:
    folder = merged / one.device
    paths = (one.path, one.path.with_suffix(".json"))
    write_files({folder / path.name: path.read_bytes() for path in paths})


def _replace_times(
    one: Records, before: Records | None, state: State, merged: Path, replace: bool
) -> str:
    for measurement in one.provenance["measurements"]:
        _check_commit(one.experiment, measurement, state)
    if before is not None:
        if before.table.equals(one.table) and before.provenance == one.provenance:
            return ""
        if len(one.table) < len(before.table) and not replace:
            raise CampaignError(
                f"{one.experiment} has {len(one.table)} timings, fewer than the "
                f"{len(before.table)} in {workspace.relative(before.path)}: give --replace to "
                "replace them all the same"
            )
    _copy(one, merged)
    text = f"{len(one.table):,} timings" + (f" replace {len(before.table):,}" if before else "")
    left = f", partial: {one.left} shape{'s' * (one.left != 1)} left to measure"
    return text + (left if one.left else "")


def _join_runs(
    one: Records, before: Records | None, state: State, merged: Path, replace: bool
) -> str:
    """Add new training runs, and replace those that had not learned and now trained longer."""
    ended = {} if before is None else _by_run(before)
    trained, new = _by_run(one), []
    for run, measurement in trained.items():
        earlier = ended.get(run)
        if earlier is None or (
            earlier["outcome"]["status"] != "learned"
            and earlier["outcome"]["iterations"] < measurement["outcome"]["iterations"]
        ):
            _check_commit(f"{one.experiment}, {run},", measurement, state)
            new.append(run)
    if not new:
        return ""
    if before is not None:
        _copy(before, merged)
    rows = one.rows()
    for run in new:
        records.add(
            one.experiment,
            [row for row in rows if row["run"] == run],
            trained[run],
            key=("run",),
            same=partial(_is_run, run),
            directory=merged,
        )
    total = len(set(ended) | set(new))
    text = f"{len(new)} new run{'s' * (len(new) != 1)}, {total} in total"
    return text + (f", {one.left} left to train" if one.left else "")


def _is_run(run: str, measurement: Mapping[str, Any]) -> bool:
    return measurement["outcome"]["run"] == run


def _by_run(one: Records) -> dict[str, dict[str, Any]]:
    return {m["outcome"]["run"]: m for m in one.provenance["measurements"]}


def _draw(root: Path, experiments: list[str], say: Callable[[str], None]) -> int:
    """Redraw, from the records, the figures of the notebooks that show these experiments."""
    try:
        from lrscan.runner import suite
    except ModuleNotFoundError as error:
        say(
            f"The figures were not drawn, since {error.name} is not installed. Install it with "
            '`pip install "lrscan[notebooks]"`, then draw them with '
            "`lrscan run --only reproduce -p measure=False --record`."
        )
        return 1
    owners = {registry.load(name).notebook for name in experiments} | {CLAIMS_NOTEBOOK}
    every = catalog.discover(root)
    values = catalog.load_profile(root, "quick", every)
    selected = [notebook for notebook in every if notebook.name in owners]
    parameters = catalog.override(values.parameters, selected, ["measure=False"])
    status = suite.run(
        root, selected, parameters, profile="quick", timeout_s=values.timeout_s, record=True
    )
    if status:
        say("Some notebooks failed on the new records, see the messages above")
    return status


def _report_claims(
    before: pandas.DataFrame, after: pandas.DataFrame, say: Callable[[str], None]
) -> None:
    """Print the rows of the claims table that changed, before and after."""

    def rows_of(table: pandas.DataFrame) -> dict[tuple[str, str], tuple[str, str]]:
        return {(row.id, row.device): (row.verdict, row.ours) for row in table.itertuples()}

    old, new = rows_of(before), rows_of(after)
    changed = [key for key in new if old.get(key) != new[key]]
    say("Claims that changed:" if changed else "No claim changed.")
    for name, device in changed:
        was = old.get((name, device), (NOT_MEASURED, ""))
        say(f"  {name} on {device or 'any device'}:")
        say(f"    before: {': '.join(filter(None, was))}")
        say(f"    now:    {': '.join(filter(None, new[name, device]))}")


def committed_runs(device: str, folder: Path) -> None:
    """Copy the committed training runs of a device to a folder, to continue from them.

    Records that the folder already has are kept. The runs keep the commit that they were trained
    at. Timings are not copied, since timings of other commits are of no use.
    """
    for path in sorted((workspace.committed_records() / device).glob("*.csv")):
        one = records.read(path.stem, device)
        if "run" in one.table and not (folder / device / path.name).is_file():
            _copy(one, folder)
