"""Run of a campaign's phases within a time limit.

The order is::

    compile       the kernels, on a GPU if no kit provides them
    first round   every phase with a limit, in order, each within its limit
    time left     phases that have more to do; then phases that had to be killed, within their
                  limit once more; then the phases without a limit

Each phase runs in a process of its own. At the phase's limit this process is killed, together with
everything that it started. So no phase can use up the time of another, and a phase that fails,
hangs or is killed does not stop the others. The process of the next phase is started ahead of time,
so that its slow imports are done when its turn comes. If the smoke test fails, nothing is measured,
and the time is used to find the smallest failing case.
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
# Seconds kept free at the end for the archive and the table; seconds that a process has to end by
# itself after SIGTERM; and the fewest seconds for which a phase is started.
RESERVE_S, _GRACE_S, _LEAST_S = 8.0, 3.0, 10.0
_POLL_S, _PACK_EVERY_S = 0.1, 1.0
_LONGEST = 240  # most characters of a message in the summary
_STATUSES = {DONE: FINISHED, PARTIAL: UNFINISHED, UNAVAILABLE: MISSING}
# A later run does not repeat phases with these statuses.
SETTLED = (FINISHED, MISSING)


class Campaign:
    """Campaign on one device.

    Args:
        out:     the result folder; if it holds a result, the campaign continues from it
        minutes: the time limit, counted from ``began``
        device:  "cuda", or "cpu" for a rehearsal
        earlier: a result to continue from instead of the one in ``out``
        commit:  the measured commit, where there is no git: 40 digits, followed by "-dirty" if
            files were changed
        kit:     a folder that ``campaign kit`` filled
        only:    names of the phases to run; empty: all
        phases:  all phases
        began:   the start by ``time.monotonic``; None: now
        say:     called with each line of output

    Raises:
        CampaignError: an argument is not valid, or the earlier result does not match; nothing was
            changed
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
            raise CampaignError(
                f"no phase is called {unknown[0]!r}; the phases are: {', '.join(names)}"
            )
        self.wanted = [phase for phase in self.phases if phase.name in (only or names)]
        try:
            self.device = provenance.resolve_device(device)
        except ValueError as error:
            raise CampaignError(f"{error} (to rehearse without a GPU: --device cpu)") from None
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
            self.store.forget_notes()  # cases that failed in an earlier run are tried again
            now.phases.pop(NARROW.name, None)
        merge.committed_runs(now.device, self.store.records)
        self.state = self.store.state = now
        self._next: subprocess.Popen[bytes] | None = None
        self._stopped = 0
        self._failed: set[str] = set()  # names of phases that failed in this run
        self._killed: set[str] = set()  # names of phases that were killed at their limit

    def _describe(self, commit: str | None) -> State:
        if commit is not None and not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit):
            raise CampaignError(
                f"a commit is 40 hexadecimal digits, followed by -dirty if files were changed, not "
                f"{commit!r}"
            )
        with environment(**({"LRSCAN_COMMIT": commit} if commit else {})):
            sha, dirty = provenance.git_state()
        if sha is None:
            raise CampaignError(
                f"git finds no commit for {self.root}: name the commit of these files with "
                "--commit (what `git rev-parse HEAD` prints where the files come from)"
            )
        if commit is not None and commit.removesuffix("-dirty") != sha:
            raise CampaignError(f"--commit names {commit}, but git has checked out {sha}")
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
        """Run the phases.

        Returns:
            The exit status: 0 if everything is finished, 75 if something is left, 1 if a phase
            failed or the result could not be written, 128 plus its number after a signal.
        """
        about = f"{self.state.device_label}, commit {self.state.commit[:12]}"
        self.say(f"{about}{store.CHANGED * self.state.dirty}; results go to {self.store.out}")
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
                self.say(
                    "the kernels cannot be compiled here: make a kit on a machine that can compile "
                    "(`lrscan campaign kit`)"
                )
                return
        for phase in self.wanted:
            if phase.limit_s is not None and not self._is_settled(phase):
                if not self._continues_after(phase, phase.limit_s):
                    return
        for phase in self._unfinished():
            again = phase.limit_s if phase.name in self._killed else None
            if not self._continues_after(phase, again):
                return

    def _unfinished(self) -> list[Phase]:
        """Return the phases for the time that is left, without those that failed in this run."""
        every = [p for p in self.wanted if not self._is_settled(p) and p.name not in self._failed]
        return sorted(every, key=lambda p: (p.limit_s is None, p.name in self._killed))

    def _is_settled(self, phase: Phase) -> bool:
        return self._status(phase) in SETTLED

    def _continues_after(self, phase: Phase, limit_s: float | None) -> bool:
        """Run a phase. Return True if another one may follow."""
        self._begin(phase, limit_s)
        if phase.name == "smoke" and self._status(phase) == UNFINISHED:
            self._begin(phase, limit_s)  # since nothing is measured before it has passed
        if self._stopped:
            return False
        failed = self._status(phase) in (FAILED, DIED)
        if failed:
            self._failed.add(phase.name)
        if phase.name == "smoke" and not self._is_settled(phase):
            self.say("the smoke test did not pass, so nothing is measured")
            if failed:
                self._begin(NARROW, None)
            return False
        if failed and (problem := self._device_problem()):
            self.say(f"the device no longer works: {problem}; earlier measurements are kept")
            return False
        return True

    def _status(self, phase: Phase) -> str | None:
        return self._outcome(phase).get("status")

    def _outcome(self, phase: Phase) -> dict[str, Any]:
        """Return the entry of a phase in the state; empty if it was never started."""
        return self.state.phases.get(phase.name, {})

    def _begin(self, phase: Phase, limit_s: float | None) -> None:
        """Run a phase, again if its process died, and record in the state how it ended."""
        end = self.deadline if limit_s is None else min(self.deadline, time.monotonic() + limit_s)
        for attempt in range(1, phase.attempts + 1):
            seconds = end - time.monotonic()
            if seconds < min(_LEAST_S, (limit_s or 2 * _LEAST_S) / 2):
                return
            began = time.monotonic()
            status, message = self._one_process(phase, seconds)
            outcome = self.state.phases.setdefault(phase.name, {"seconds": 0.0, "attempts": 0})
            outcome["seconds"] = round(outcome["seconds"] + time.monotonic() - began, 1)
            outcome["attempts"] += 1
            outcome |= {"status": status, "message": message}
            if kernels := _kernels_in(self.store.log(phase.name)):
                outcome["kernels"] = kernels
            self.store.pack(force=True)
            again = status == DIED and not self._stopped
            retry = f"; retrying after attempt {attempt} of {phase.attempts}"
            self.say(
                f"{phase.name:12} {status:14} {outcome['seconds']:6.1f} s  {message}"
                + retry * (again and attempt < phase.attempts)
            )
            if not again:
                return

    def _one_process(self, phase: Phase, seconds: float) -> tuple[str, str]:
        """Run a phase in one process for up to ``seconds``; return (status, message)."""
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
        order = {
            "call": phase.call,
            "log": str(log),
            "context": context,
            "arguments": dict(phase.arguments),
        }
        assert process.stdin is not None  # a pipe, see _spawn
        with suppress(OSError):  # the process died while it waited; the log has the reason
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.close()
        self._next = self._next or self._spawn()
        try:
            late = self._watch(process, until)
        finally:
            _end(process)  # and everything that it started
        text = log.read_bytes()[before:].decode(errors="replace") if log.is_file() else ""
        if late:
            self._killed.add(phase.name)
            # A phase with several attempts ends by itself in time, so this one hung.
            status = DIED if phase.attempts > 1 else UNFINISHED
            return status, f"killed at its limit of {seconds:.0f} s; {_last_message(text)}"
        if self._stopped:
            return UNFINISHED, f"stopped by {signal.Signals(self._stopped).name}"
        code = process.returncode
        if code is None:
            return DIED, "the process could not be killed"
        if code < 0:
            return DIED, f"the process was killed by {_signal_name(-code)}; {_last_message(text)}"
        if code not in _STATUSES:
            return (FAILED if code == 1 and "Traceback" in text else DIED), _last_message(text)
        return _STATUSES[code], _last_message(text)

    def _watch(self, process: subprocess.Popen[bytes], end: float) -> bool:
        """Wait for a process and pack what it writes. Return True if it ran past ``end``."""
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
        """True if CUDA kernels run in Numba's simulator, because the device is a CPU."""
        return self.device.type == "cpu" and importlib.util.find_spec("numba_cuda") is not None

    def _take_next(self, simulated: bool) -> subprocess.Popen[bytes]:
        """Return the process that was started ahead, or a new one if the simulator is needed."""
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

    def _device_problem(self) -> str:
        """Test the device in a process of its own; describe the problem, or return ""."""
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
            return "it does not respond"
        return "" if done.returncode == 0 else _last_message(done.stderr) or "no response"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and a lost terminal end the phase; the results are still packed."""

        def stop(number: int) -> None:
            self._stopped = number

        with signals.handled(stop):
            yield

    def _shown(self) -> list[Phase]:
        """Return the wanted phases, and of the others those that were started, in order."""
        every = [COMPILE, *self.wanted, NARROW]
        return [phase for phase in every if phase in self.wanted or self._outcome(phase)]

    def summary(self) -> list[str]:
        """Return the verdicts of the paper's claims and a table of the phases, as lines."""
        lines: list[str] = []
        for part in (self._claims, self._targets):
            try:
                lines += part() if self.store.records.is_dir() else []
            except Exception as error:  # the table of the phases is still printed
                lines.append(f"{part.__name__.strip('_')}: {type(error).__name__}: {error}")
        lines += [*[""] * bool(lines), f"{'phase':12} {'status':14} {'seconds':>7}  message"]
        for phase in self._shown():
            outcome = self._outcome(phase)
            status, seconds = outcome.get("status", "not started"), outcome.get("seconds", 0.0)
            message = outcome.get("message", "") or phase.about
            lines.append(f"{phase.name:12} {status:14} {seconds:7.1f}  {message}")
        kernels: dict[str, int] = {}
        for outcome in self.state.phases.values():
            for where, count in outcome.get("kernels", {}).items():
                kernels[where] = kernels.get(where, 0) + count
        if kernels:
            lines.append(
                f"CUDA kernels loaded: {kernels.get('carried', 0)} from the kit, "
                f"{kernels.get('kept', 0)} from this machine's cache, "
                f"{kernels.get('compiled', 0)} compiled"
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
        """Count the performance targets of the CUDA kernels that were met, and list the missed."""
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
            f"  missed: {row.target}: {row.measured:.3g} {row.unit}, required {row.wanted} "
            f"({row.where})"
            for row in missed.itertuples()
        ]


def check_minutes(minutes: float) -> None:
    """Raise CampaignError unless the minutes suffice to measure something."""
    if not minutes >= FEWEST_MINUTES:
        raise CampaignError(
            f"{minutes:g} minutes are too few to measure anything: give --minutes "
            f"{FEWEST_MINUTES:g} or more"
        )


def _checked_kit(kit: Path | None) -> Path | None:
    if kit is None:
        return None
    kit = Path(kit).resolve()
    if not (kit / "kernels").is_dir():
        raise CampaignError(
            f"{kit} is not a kit, since it has no folder named kernels: make a kit with "
            "`lrscan campaign kit`"
        )
    made_from = digest("cuda")[:16]
    if not any((kit / "kernels").glob(f"*-{made_from}.cubin")):
        raise CampaignError(
            f"the kernels in {kit} were not compiled from the sources here, whose digest is "
            f"{made_from}: make the kit again with `lrscan campaign kit`"
        )
    return kit


def _check_same(before: State, now: State) -> None:
    """Raise unless new measurements are comparable with those of the earlier result."""
    remedy = "Give another --out, or --resume a result that matches"
    for name, label in (("device", "device"), ("commit", "commit"), ("dirty", "dirty flag")):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise CampaignError(
                f"the earlier result has another {label}: {old!r}, not {new!r}. {remedy}"
            )
    if changed := sorted({path for path, _ in before.sources.items() ^ now.sources.items()}):
        raise CampaignError(
            f"these files have changed since the earlier result: {', '.join(changed[:5])}. {remedy}"
        )
    if before.versions != now.versions:
        raise CampaignError(
            f"the earlier result was measured with {before.versions}, but {now.versions} is "
            f"installed. {remedy}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started, first by SIGTERM, then by SIGKILL."""
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()
    if not hasattr(os, "killpg"):
        process.kill()
        process.wait(_GRACE_S)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):  # always both: a child may ignore SIGTERM
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):  # the GPU driver may hold it for longer
            process.wait(_GRACE_S)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_message(text: str) -> str:
    """Return the last line of a phase's output that starts with "=> ", or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("CUDA kernels:")]
    if not lines:
        return "no output"
    arrows = [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
    failed = re.match(r"\w+(Error|Exception)\b", lines[-1])
    return _short(lines[-1] if failed or not arrows else arrows[-1])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _kernels_in(log: Path) -> dict[str, int]:
    """Count the kernels that a phase loaded, by origin, over all its processes."""
    found: dict[str, int] = {}
    for line in log.read_text(errors="replace").splitlines() if log.is_file() else ():
        if line.startswith("CUDA kernels:"):
            for count, where in re.findall(r"(\d+) (\w+)", line):
                found[where] = found.get(where, 0) + int(count)
    return found
