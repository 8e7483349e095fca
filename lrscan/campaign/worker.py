"""The process of a phase: ``python -m lrscan.campaign.worker``.

It is started while the phase before still runs, imports what takes seconds to import, and waits for
a line of JSON that says which phase it is:

    {"call": "module:function", "log": path, "context": {...}, "arguments": {...}}

The function is called with a :class:`PhaseContext` and the arguments, and returns its exit status.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrscan.runner import streams

DONE, PARTIAL, UNAVAILABLE, DIED = 0, 75, 69, 70  # as in sysexits.h, but for 0


@dataclass
class PhaseContext:
    """What a phase is given.

    device   "cuda" or "cpu"
    profile  whose parameters of notebooks/profiles.toml are used
    work     the campaign's folder: records/, notes/, logs/
    until    when the phase is ended, by ``time.monotonic``, which all processes share
    wheels   a folder with packages for the phase of rivals; None: there is none
    """

    device: str
    profile: str
    work: Path
    until: float
    wheels: Path | None = None

    def __post_init__(self) -> None:
        self.work = Path(self.work)
        self.wheels = Path(self.wheels) if self.wheels else None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()


def _end_with(parent: int) -> None:
    """End this process when the campaign has gone without a word."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(DIED)


def main() -> int:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch  # noqa: F401

    from lrscan.experiments import registry

    registry.load_all()

    line = sys.stdin.readline()
    if not line:  # the campaign ended without this worker
        return DONE
    told = json.loads(line)
    with open(told["log"], "ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    module, _, function = told["call"].partition(":")
    call: Any = getattr(importlib.import_module(module), function)
    try:
        return call(PhaseContext(**told["context"]), **told["arguments"])
    except SystemExit as end:  # the process is of no more use; another one goes on
        print(end, flush=True)
        return DIED
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        _tell_kernels()


def _tell_kernels() -> None:
    machine_code = sys.modules.get("lrscan.cuda.machine_code")
    if machine_code is not None and machine_code.tally:
        told = ", ".join(f"{count} {where}" for where, count in sorted(machine_code.tally.items()))
        print(f"CUDA kernels: {told}", flush=True)


if __name__ == "__main__":
    streams.take_any_text()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what a broken device does at exit is no result
