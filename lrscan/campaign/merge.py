"""Bringing a result home: its records into `figures/records/`, and the figures drawn from them.

Everything is checked before anything is written, and all records are written together. Training
runs join those that are there. Times of an experiment replace those that are there, unless they
are fewer.
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

from lrscan.campaign.store import CampaignError, State, archive_in, unpack
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
    """Check a result, merge its records, draw their figures, and say which claims changed.

    Args:
        source:       a result folder, or its archive
        accept_dirty: take a result of a tree with changes; its records say so
        replace:      take an experiment's times also where they are fewer than those that are there
        draw:         draw the figures, which takes papermill
        say:          prints a line

    Returns:
        The exit status: 1 if a figure could not be drawn.

    Raises:
        CampaignError: it is no result, or not one to merge; nothing was changed
    """
    root, home = workspace.find_root(), workspace.committed_records()
    origin.check(root)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        state = unpack(archive_in(Path(source)), work)
        _check_state(state)
        _check_sources(root, state, work / "records", accept_dirty)
        found = _read(work / "records", state)
        merged = work / "merged"
        fresh = {one.experiment: _merge_one(one, state, home, merged, replace) for one in found}
        changed = {name: told for name, told in fresh.items() if told}
        if not changed:
            say(f"Nothing is new: {len(found)} experiments are in {workspace.relative(home)}")
            return 0
        before = claims.table(home)
        files = {}
        for name in changed:
            for ending in (".csv", ".json"):
                path = merged / state.device / f"{name}{ending}"
                files[home / state.device / path.name] = path.read_bytes()
    write_files(files)
    about = f"{state.device_label}, commit {state.commit[:12]}{' with changes' * state.dirty}"
    say(f"{about}: records in {workspace.relative(home / state.device)}:")
    for name, told in changed.items():
        say(f"  {name}: {told}")
    status = _draw(root, list(changed), say) if draw else 0
    _tell_claims(before, claims.table(home), say)
    say("Look at the figures, then commit: git add figures && git commit")
    return status


def _check_state(state: State) -> None:
    if state.device_type != "cuda":
        raise CampaignError(f"the result is of {state.device_label}: that was a rehearsal")
    smoke = state.phases.get("smoke", {})
    if smoke.get("status") != "done":
        told = smoke.get("message") or "it was not run"
        narrow = state.phases.get("narrow", {}).get("message")
        raise CampaignError(
            f"the smoke test has not passed, so no number of this result counts: {told}"
            + (f"; {narrow}" if narrow else "")
        )


def _mark_dirty(folder: Path, state: State) -> None:
    """Say of everything that was measured at the commit that the tree was dirty."""
    state.dirty = True
    for path in folder.glob("*/*.json"):
        document = json.loads(path.read_bytes())
        for measurement in document["measurements"]:
            measurement["dirty"] = measurement["dirty"] or measurement["commit"] == state.commit
        path.write_text(records.json_text(document))


def _check_sources(root: Path, state: State, records_folder: Path, accept_dirty: bool) -> None:
    """The commit is here, and what was measured are its files."""
    try:
        listing = provenance.git(root, "ls-tree", "-r", "-z", f"{state.commit}^{{commit}}")
    except (OSError, subprocess.SubprocessError):
        raise CampaignError(
            f"the result is of commit {state.commit}, which this repository does not have"
        ) from None
    blobs = {}
    for line in filter(None, listing.split("\0")):
        mode_type_blob, _, path = line.partition("\t")
        blobs[path] = mode_type_blob.split()[2]
    changed = sorted(path for path, blob in state.sources.items() if blobs.get(path) != blob)
    if changed and not state.dirty and not accept_dirty:
        raise CampaignError(
            f"what was measured is not commit {state.commit[:12]}: {', '.join(changed[:5])} "
            "had other contents. With --accept-dirty the records say that the tree was dirty"
        )
    if state.dirty and not accept_dirty:
        told = ", ".join(changed[:5]) or "files that were not measured"
        raise CampaignError(
            f"the result is of commit {state.commit[:12]} with changes in {told}. Commit first and "
            "measure again, or give --accept-dirty; the records then say that the tree was dirty"
        )
    if changed:
        _mark_dirty(records_folder, state)


def _read(folder: Path, state: State) -> list[Records]:
    """The result's records, checked."""
    found = []
    for path in sorted(folder.glob("*/*.csv")):
        device, name = path.parent.name, path.stem
        if device != state.device:
            raise CampaignError(f"the result is of {state.device}, but has records of {device}")
        if name not in registry.NAMES:
            raise CampaignError(f"the result has records of {name!r}, which is no experiment")
        try:
            one = records.read(name, device, directory=folder)
            measurements = one.provenance["measurements"]
            wrong = [m for m in measurements if m["device"] != device]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CampaignError(f"the records of {name} cannot be read: {error}") from None
        if wrong or not (one.table["device"] == device).all() or one.table.empty:
            raise CampaignError(f"the records of {name} are not those of {device}")
        found.append(one)
    if not found:
        raise CampaignError("the result has no records: no phase that measures was begun")
    return found


def _check_commit(name: str, measurement: dict[str, Any], state: State) -> None:
    if (measurement["commit"], bool(measurement["dirty"])) != (state.commit, state.dirty):
        dirty = " with changes" * bool(measurement["dirty"])
        raise CampaignError(
            f"{name} was measured at commit {measurement['commit']}{dirty}, and the result is "
            f"said to be of {state.commit}"
        )


def _merge_one(one: Records, state: State, home: Path, merged: Path, replace: bool) -> str:
    """Write the merged records of an experiment to a folder; says what is new, "" if nothing."""
    there = records.find(one.experiment, one.device, directory=home)
    join = _join_runs if "run" in one.table else _replace_times
    return join(one, there, state, merged, replace)


def _copy(one: Records, merged: Path) -> None:
    folder = merged / one.device
    paths = (one.path, one.path.with_suffix(".json"))
    write_files({folder / path.name: path.read_bytes() for path in paths})


def _replace_times(
    one: Records, there: Records | None, state: State, merged: Path, replace: bool
) -> str:
    for measurement in one.provenance["measurements"]:
        _check_commit(one.experiment, measurement, state)
    if there is not None:
        if there.table.equals(one.table) and there.provenance == one.provenance:
            return ""
        if len(one.table) < len(there.table) and not replace:
            raise CampaignError(
                f"{one.experiment} has {len(one.table)} times, and {len(there.table)} are in "
                f"{workspace.relative(there.path)}: give --replace to take the fewer"
            )
    _copy(one, merged)
    told = f"{len(one.table):,} times" + (f" in the place of {len(there.table):,}" if there else "")
    return told + (f", partial: {one.left} shapes are left" if one.left else "")


def _join_runs(
    one: Records, there: Records | None, state: State, merged: Path, replace: bool
) -> str:
    """Those that are there stay, unless the new one of that name went on for longer."""
    ended = {} if there is None else _by_run(there)
    trained, new = _by_run(one), []
    for run, measurement in trained.items():
        before = ended.get(run)
        if before is None or (
            before["outcome"]["status"] != "learned"
            and before["outcome"]["iterations"] < measurement["outcome"]["iterations"]
        ):
            _check_commit(f"{one.experiment}, {run},", measurement, state)
            new.append(run)
    if not new:
        return ""
    if there is not None:
        _copy(there, merged)
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
    return f"{len(new)} new runs, {total} in all" + (f", {one.left} left" if one.left else "")


def _is_run(run: str, measurement: Mapping[str, Any]) -> bool:
    return measurement["outcome"]["run"] == run


def _by_run(one: Records) -> dict[str, dict[str, Any]]:
    return {m["outcome"]["run"]: m for m in one.provenance["measurements"]}


def _draw(root: Path, experiments: list[str], say: Callable[[str], None]) -> int:
    """Draw the figures of the notebooks that show these experiments, from the records."""
    try:
        from lrscan.runner import suite
    except ModuleNotFoundError as error:
        say(f"The figures were not drawn: {error.name} is not installed")
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
        say("Not every notebook passed: what it says above is about the new records")
    return status


def _tell_claims(
    before: pandas.DataFrame, after: pandas.DataFrame, say: Callable[[str], None]
) -> None:
    """Say what the claims table had, and has now."""

    def said(table: pandas.DataFrame) -> dict[tuple[str, str], tuple[str, str]]:
        return {(row.id, row.device): (row.verdict, row.ours) for row in table.itertuples()}

    old, new = said(before), said(after)
    changed = [key for key in new if old.get(key) != new[key]]
    say("Claims that changed:" if changed else "No claim changed.")
    for name, device in changed:
        was = old.get((name, device), (NOT_MEASURED, ""))
        say(f"  {name} on {device or 'any device'}:")
        say(f"    before: {': '.join(filter(None, was))}")
        say(f"    now:    {': '.join(filter(None, new[name, device]))}")


def committed_runs(device: str, folder: Path) -> None:
    """Copy the committed training runs of a device, to go on from, where there are none yet.

    They keep the commit that they were trained at; times of other commits are of no use.
    """
    for path in sorted((workspace.committed_records() / device).glob("*.csv")):
        one = records.read(path.stem, device)
        if "run" in one.table and not (folder / device / path.name).is_file():
            _copy(one, folder)
