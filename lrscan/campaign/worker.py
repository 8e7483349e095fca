"""Process of one phase: ``python -m lrscan.campaign.worker``.

It is started while the previous phase still runs. It imports slow modules, then waits for a line of
JSON that says which phase to run::

    {"call": "module:function", "log": path, "context": {...}, "arguments": {...}}

The function is called with a :class:`PhaseContext` and the arguments, and returns the exit status
of the process.
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

DONE, PARTIAL, UNAVAILABLE, DIED = 0, 75, 69, 70  # exit statuses; those above 0 as in sysexits.h


@dataclass
class PhaseContext:
    """Context of a phase.

    Attributes:
        device:  "cuda" or "cpu"
        profile: the profile in notebooks/profiles.toml that sets the parameters
        work:    the working folder of the campaign, with records/, notes/ and logs/
        until:   the end of the phase by ``time.monotonic``, a clock that all processes share
        wheels:  the folder with packages for the phase rivals, or None
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
        """Seconds left until the end of the phase."""
        return self.until - time.monotonic()


def _end_with(parent: int) -> None:
    """End this process if the campaign, its parent, has been killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(DIED)


def main() -> int:
    """Wait for a phase, run it, and return its exit status."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch  # noqa: F401

    from lrscan.experiments import registry

    registry.load_all()

    line = sys.stdin.readline()
    if not line:  # the campaign ended and did not need this process
        return DONE
    order = json.loads(line)
    with open(order["log"], "ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    module, _, function = order["call"].partition(":")
    call: Any = getattr(importlib.import_module(module), function)
    try:
        return call(PhaseContext(**order["context"]), **order["arguments"])
    except SystemExit as end:  # this process cannot continue, but a new one can
        print(end, flush=True)
        return DIED
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        _print_kernels()


def _print_kernels() -> None:
    """Print how many CUDA kernels came from where, for the summary of the campaign."""
    machine_code = sys.modules.get("lrscan.cuda.machine_code")
    if machine_code is not None and machine_code.tally:
        counts = ", ".join(
            f"{count} {where}" for where, count in sorted(machine_code.tally.items())
        )
        print(f"CUDA kernels: {counts}", flush=True)


if __name__ == "__main__":
    streams.take_any_text()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # skip cleanup, since with a broken device it may crash or hang
