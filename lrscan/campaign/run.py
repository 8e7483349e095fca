"""Working down the phases within the minutes given.

    compile     the kernels, on a GPU for which no kit brings them
    first       every phase with a limit, in order, each within its limit
    left over   those that have more to do; those that had to be ended by force, within their limit
                once more; then the phases without a limit

A phase has a process of its own, which is ended when its limit has passed, with all that it
started. So none can take another's minutes, and one that fails, hangs or is killed ends itself
alone. The process of the next phase is started ahead, to import what takes seconds to import.
Where the smoke test fails nothing is measured: the minutes go into finding the smallest case.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrscan.campaign import merge, store
from lrscan.campaign.phases import COMPILE, NARROW, PHASES, Phase
from lrscan.campaign.store import CampaignError, State, Store
from lrscan.campaign.worker import DONE, PARTIAL, UNAVAILABLE
from lrscan.core.files import write_files
from lrscan.core.source_digest import digest
from lrscan.evidence import origin, provenance, workspace
from lrscan.evidence.context import environment
from lrscan.runner import signals

FINISHED, UNFINISHED, FAILED, DIED, MISSING = "done", "partial", "failed", "died", "not available"
FEWEST_MINUTES = 1.0
# Kept free at the end, for the archive and the table; what a phase is left to end by itself when it
# was told to; and the least that is worth beginning a phase for.
RESERVE_S, _GRACE_S, _LEAST_S = 8.0, 3.0, 10.0
_POLL_S, _PACK_EVERY_S = 0.1, 1.0
_LONGEST = 240  # characters of a line of the summary
_STATUSES = {DONE: FINISHED, PARTIAL: UNFINISHED, UNAVAILABLE: MISSING}
# What a later run need not do again.
SETTLED = (FINISHED, MISSING)


class Campaign:
    """A campaign on one device.

    Args:
        out:     the result folder; what it holds is gone on from
        minutes: how long it may take, from ``began`` on
        device:  "cuda", or "cpu" for a rehearsal
        earlier: a result to go on from in the place of that in ``out``
        commit:  what is measured, where there is no git: 40 digits, and "-dirty" if it was changed
        kit:     a folder that ``campaign kit`` filled
        only:    names of phases; the others are left alone
        phases:  all phases there are
        began:   by ``time.monotonic``; None: now
        say:     prints a line

    Raises:
        CampaignError: what was asked for cannot be done; nothing was changed
    """

    def __init__(
        self,
        out: Path,
        minutes: float,
        *,
        device: str = "cuda",
        earlier: Path | None = None,
        commit: str | None = None,
        kit: Path | None = None,
        only: Sequence[str] = (),
        phases: Sequence[Phase] = PHASES,
        began: float | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        check_minutes(minutes)
        began = time.monotonic() if began is None else began
        self.deadline = began + 60 * minutes - RESERVE_S
        self.phases, self.say = list(phases), say
        names = [phase.name for phase in self.phases]
        if unknown := [name for name in only if name not in names]:
            raise CampaignError(f"no phase is called {unknown[0]!r}; there are: {', '.join(names)}")
        self.wanted = [phase for phase in self.phases if phase.name in (only or names)]
        try:
            self.device = provenance.resolve_device(device)
        except ValueError as error:
            raise CampaignError(f"{error} (--device cpu is a rehearsal)") from None
        self.kit = _checked_kit(kit)
        self.root = workspace.find_root()
        now = self._describe(commit)
        self.store = Store(Path(out).resolve(), earlier)
        if self.store.state is not None:
            try:
                _check_same(self.store.state, now)
            except CampaignError:
                self.store.close()
                raise
            now.phases = self.store.state.phases
        if now.phases.get("smoke", {}).get("status") not in SETTLED:
            self.store.forget_notes()  # what failed on another day is tried again
            now.phases.pop(NARROW.name, None)
        merge.committed_runs(now.device, self.store.records)
        self.state = self.store.state = now
        self._next: subprocess.Popen[bytes] | None = None
        self._stopped = 0
        self._over: set[str] = set()  # that failed
        self._forced: set[str] = set()  # that were ended by force

    def _describe(self, commit: str | None) -> State:
        if commit is not None and not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit):
            raise CampaignError(
                f"a commit is 40 hexadecimal digits, with -dirty after them if the files were "
                f"changed, not {commit!r}"
            )
        with environment(**({"LRSCAN_COMMIT": commit} if commit else {})):
            sha, dirty = provenance.git_state()
        if sha is None:
            raise CampaignError(
                f"{self.root} has no git, which would say which commit is measured: give it with "
                "--commit (what `git rev-parse HEAD` prints where the files come from)"
            )
        if commit is not None and commit.removesuffix("-dirty") != sha:
            raise CampaignError(f"--commit says {commit}, but the files are those of {sha}")
        return State(
            device=provenance.device_slug(self.device),
            device_label=provenance.device_label(self.device),
            device_type=self.device.type,
            commit=sha,
            dirty=bool(dirty),
            sources=store.source_digests(self.root),
            versions=store.versions(),
        )

    def run(self) -> int:
        """Work down the phases.

        Returns:
            The exit status: 0 if all is finished, 75 if some is left, 1 if a phase failed or the
            result could not be written, 128 and more after a signal.
        """
        about = f"{self.state.device_label}, commit {self.state.commit[:12]}"
        self.say(f"{about}{' with changes' * self.state.dirty}; results go to {self.store.out}")
        with self._signals():
            try:
                self._work()
            finally:
                self._drop_next()
                self.store.pack(force=True)
        for line in (lines := self.summary()):
            self.say(line)
        with suppress(OSError):
            write_files({self.store.out / store.SUMMARY: "\n".join(lines) + "\n"})
        self.store.close()
        if self._stopped:
            return 128 + self._stopped
        statuses = [self._status(phase) for phase in self._shown()]
        if self.store.full or any(status in (FAILED, DIED) for status in statuses):
            return 1
        return 0 if all(status in SETTLED for status in statuses) else PARTIAL

    def _work(self) -> None:
        self.store.pack(force=True)
        if self.device.type == "cuda" and self.kit is None:
            self._begin(COMPILE, COMPILE.limit_s)
            if self._stopped:
                return
            if self._status(COMPILE) in (FAILED, DIED):
                self.say("no kernel can be compiled here: make a kit on a machine where one can")
                return
        for phase in self.wanted:
            if phase.limit_s is not None and not self._is_settled(phase):
                if not self._goes_on_after(phase, phase.limit_s):
                    return
        for phase in self._left_over():
            again = phase.limit_s if phase.name in self._forced else None
            if not self._goes_on_after(phase, again):
                return

    def _left_over(self) -> list[Phase]:
        """What the minutes that are left over are for; nothing that failed just now."""
        every = [p for p in self.wanted if not self._is_settled(p) and p.name not in self._over]
        return sorted(every, key=lambda p: (p.limit_s is None, p.name in self._forced))

    def _is_settled(self, phase: Phase) -> bool:
        return self._status(phase) in SETTLED

    def _goes_on_after(self, phase: Phase, limit_s: float | None) -> bool:
        """Run a phase; whether any other may follow it."""
        self._begin(phase, limit_s)
        if phase.name == "smoke" and self._status(phase) == UNFINISHED:
            self._begin(phase, limit_s)  # nothing is measured before it has passed
        if self._stopped:
            return False
        failed = self._status(phase) in (FAILED, DIED)
        if failed:
            self._over.add(phase.name)
        if phase.name == "smoke" and not self._is_settled(phase):
            self.say("the smoke test has not passed, so nothing is measured")
            if failed:
                self._begin(NARROW, None)
            return False
        if failed and (gone := self._device_is_gone()):
            self.say(f"the device is gone: {gone}; what was measured is kept")
            return False
        return True

    def _status(self, phase: Phase) -> str | None:
        return self._told(phase).get("status")

    def _told(self, phase: Phase) -> dict[str, Any]:
        return self.state.phases.get(phase.name, {})

    def _begin(self, phase: Phase, limit_s: float | None) -> None:
        """Run a phase once, or again after its process died, and note how it ended."""
        end = self.deadline if limit_s is None else min(self.deadline, time.monotonic() + limit_s)
        for attempt in range(1, phase.attempts + 1):
            seconds = end - time.monotonic()
            if seconds < min(_LEAST_S, (limit_s or 2 * _LEAST_S) / 2):
                return
            began = time.monotonic()
            status, message = self._one_process(phase, seconds)
            told = self.state.phases.setdefault(phase.name, {"seconds": 0.0, "attempts": 0})
            told["seconds"] = round(told["seconds"] + time.monotonic() - began, 1)
            told["attempts"] += 1
            told |= {"status": status, "message": message}
            if kernels := _kernels_in(self.store.log(phase.name)):
                told["kernels"] = kernels
            self.store.pack(force=True)
            more = f", again ({attempt} of {phase.attempts})" * (attempt < phase.attempts)
            again = status == DIED and not self._stopped
            self.say(
                f"{phase.name:12} {status:14} {told['seconds']:6.1f} s  {message}" + more * again
            )
            if not again:
                return

    def _one_process(self, phase: Phase, seconds: float) -> tuple[str, str]:
        """(how it ended, what it said)"""
        log = self.store.log(phase.name)
        before = log.stat().st_size if log.is_file() else 0
        process = self._take_next(simulated=phase.simulated and self._rehearses)
        until = time.monotonic() + seconds
        context = {
            "device": self.device.type,
            "profile": "gpu" if self.device.type == "cuda" else "quick",
            "work": str(self.store.work),
            "until": until,
            "wheels": str(self.kit / "wheels")
            if self.kit and (self.kit / "wheels").is_dir()
            else None,
        }
        told = {
            "call": phase.call,
            "log": str(log),
            "context": context,
            "arguments": dict(phase.arguments),
        }
        assert process.stdin is not None  # a pipe, see _spawn
        with suppress(OSError):  # it died while it waited; its log says of what
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.close()
        self._next = self._next or self._spawn()
        try:
            late = self._watch(process, until)
        finally:
            _end(process)  # and what it started
        text = log.read_bytes()[before:].decode(errors="replace") if log.is_file() else ""
        if late:
            self._forced.add(phase.name)
            # What goes on behind a crash ends itself in time, unless it hangs.
            how = DIED if phase.attempts > 1 else UNFINISHED
            return how, f"ended after {seconds:.0f} s, its limit; {_last_word(text)}"
        if self._stopped:
            return UNFINISHED, f"stopped by {signal.Signals(self._stopped).name}"
        status = process.returncode
        if status is None:
            return DIED, "its process cannot be ended"
        if status < 0:
            return DIED, f"its process was killed ({_signal_name(-status)}); {_last_word(text)}"
        if status not in _STATUSES:
            return (FAILED if status == 1 and "Traceback" in text else DIED), _last_word(text)
        return _STATUSES[status], _last_word(text)

    def _watch(self, process: subprocess.Popen[bytes], end: float) -> bool:
        """Wait for a process, and pack what it writes; whether it had to be ended at its limit."""
        packed = time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_S)
            now = time.monotonic()
            if now - packed > _PACK_EVERY_S:
                self.store.pack()
                packed = now
            if now > end or self._stopped:
                return now > end
        return False

    @property
    def _rehearses(self) -> bool:
        """Whether kernels are to run in Numba's simulator, for there is no GPU."""
        return self.device.type == "cpu" and importlib.util.find_spec("numba_cuda") is not None

    def _take_next(self, simulated: bool) -> subprocess.Popen[bytes]:
        """The process that was started ahead, unless the phase needs another kind."""
        if simulated:
            return self._spawn(NUMBA_ENABLE_CUDASIM="1")
        process, self._next = self._next or self._spawn(), None
        return process

    def _spawn(self, **more: str) -> subprocess.Popen[bytes]:
        settings = more | {
            "LRSCAN_COMMIT": self.state.commit + "-dirty" * self.state.dirty,
            "PYTHONUNBUFFERED": "1",
        }
        if self.kit:
            settings["LRSCAN_KERNELS"] = str(self.kit / "kernels")
        with self.store.log("start").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lrscan.campaign.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env=origin.variables() | settings,
                start_new_session=True,
            )

    def _drop_next(self) -> None:
        if self._next is not None:
            _end(self._next)

    def _device_is_gone(self) -> str:
        """What is wrong with the device, asked in a process of its own; "" if nothing is."""
        if self.device.type != "cuda":
            return ""
        script = "import torch; print(torch.ones(2, device='cuda').sum().item())"
        try:
            done = subprocess.run(
                [sys.executable, "-c", script],
                capture_output=True,
                text=True,
                timeout=min(60.0, max(self.deadline - time.monotonic(), 5.0)),
            )
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return "" if done.returncode == 0 else _last_word(done.stderr) or "no answer"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and a lost terminal end the phase; the results are packed."""

        def stop(number: int) -> None:
            self._stopped = number

        with signals.handled(stop):
            yield

    def _shown(self) -> list[Phase]:
        """Those that are wanted, and of the others those that were begun, in order."""
        every = [COMPILE, *self.wanted, NARROW]
        return [phase for phase in every if phase in self.wanted or self._told(phase)]

    def summary(self) -> list[str]:
        """What the records say of the paper's claims, then a table of the phases."""
        lines: list[str] = []
        for part in (self._claims, self._targets):
            try:
                lines += part() if self.store.records.is_dir() else []
            except Exception as error:  # no reason to lose the table of the phases
                lines.append(f"{part.__name__.strip('_')}: {type(error).__name__}: {error}")
        lines += [*[""] * bool(lines), f"{'phase':12} {'ended':14} {'seconds':>7}  what it says"]
        for phase in self._shown():
            told = self._told(phase)
            status, seconds = told.get("status", "not begun"), told.get("seconds", 0.0)
            said = told.get("message", "") or phase.about
            lines.append(f"{phase.name:12} {status:14} {seconds:7.1f}  {said}")
        kernels: dict[str, int] = {}
        for told in self.state.phases.values():
            for where, count in told.get("kernels", {}).items():
                kernels[where] = kernels.get(where, 0) + count
        if kernels:
            lines.append(
                f"CUDA kernels loaded: {kernels.get('carried', 0)} were carried along, "
                f"{kernels.get('kept', 0)} kept by this machine, "
                f"{kernels.get('compiled', 0)} had to be compiled"
            )
        if self.store.full:
            lines.append(f"{self.store.full}. The results are in {self.store.work}")
        return lines

    def _claims(self) -> list[str]:
        from lrscan.experiments import claims

        found = claims.table(self.store.records)
        return [
            _short(f"{row.id}: {row.verdict}: {row.ours}")
            for row in found.itertuples()
            if row.ours and row.device
        ]

    def _targets(self) -> list[str]:
        """Report how many performance targets of the CUDA kernels were met, and which were not."""
        from lrscan.experiments import targets

        if self.device.type != "cuda":
            return []
        found = targets.table(self.store.records, self.state.device)
        counts = ", ".join(
            f"{(found['verdict'] == verdict).sum()} {verdict}"
            for verdict in (targets.MET, targets.MISSED, targets.OPEN)
        )
        missed = found[found["verdict"] == targets.MISSED]
        return [f"targets: {counts}"] + [
            f"  missed: {row.target}: {row.measured:.3g} {row.unit}, wanted {row.wanted} "
            f"({row.where})"
            for row in missed.itertuples()
        ]


def check_minutes(minutes: float) -> None:
    """Raise CampaignError unless something can be measured in so many."""
    if not minutes >= FEWEST_MINUTES:
        raise CampaignError(
            f"{minutes:g} minutes are too few: the fewest that measure anything are "
            f"{FEWEST_MINUTES:g}"
        )


def _checked_kit(kit: Path | None) -> Path | None:
    if kit is None:
        return None
    kit = Path(kit).resolve()
    if not (kit / "kernels").is_dir():
        raise CampaignError(f"{kit} is no kit: it has no folder kernels (`lrscan campaign kit`)")
    made_from = digest("cuda")[:16]
    if not any((kit / "kernels").glob(f"*-{made_from}.cubin")):
        raise CampaignError(
            f"the kernels in {kit} were not made from these sources, whose digest is {made_from}: "
            "make the kit again (`lrscan campaign kit`)"
        )
    return kit


def _check_same(before: State, now: State) -> None:
    """Raise unless what is measured now may stand beside what was measured before."""
    for name, told in (("device", "device"), ("commit", "commit"), ("dirty", "state of the tree")):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise CampaignError(
                f"the earlier result is of another {told}: {old!r}, and this is {new!r}. "
                "Give another --out, or --resume a result of the same"
            )
    if changed := sorted({path for path, _ in before.sources.items() ^ now.sources.items()}):
        raise CampaignError(
            f"the earlier result was measured with other files: {', '.join(changed[:5])}"
        )
    if before.versions != now.versions:
        raise CampaignError(
            f"the earlier result was measured with {before.versions}, and here is {now.versions}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: politely at first."""
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()
    if not hasattr(os, "killpg"):
        process.kill()
        process.wait(_GRACE_S)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):  # both, for its children may be less polite
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it for longer
            process.wait(_GRACE_S)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_word(text: str) -> str:
    """What a phase says of itself: its last line with an arrow, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("CUDA kernels:")]
    if not lines:
        return "it said nothing"
    arrows = [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
    failed = re.match(r"\w+(Error|Exception)\b", lines[-1])
    return _short(lines[-1] if failed or not arrows else arrows[-1])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _kernels_in(log: Path) -> dict[str, int]:
    """How many kernels came from where, over all processes of a phase."""
    found: dict[str, int] = {}
    for line in log.read_text(errors="replace").splitlines() if log.is_file() else ():
        if line.startswith("CUDA kernels:"):
            for count, where in re.findall(r"(\d+) (\w+)", line):
                found[where] = found.get(where, 0) + int(count)
    return found
