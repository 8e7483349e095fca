"""Phases of a made-up campaign, one for each way in which a real phase can end."""

import json
import os
import signal
import subprocess
import sys
import time

from lrscan.campaign import smoke
from lrscan.campaign.phases import say
from lrscan.campaign.worker import DONE, PARTIAL


def note(context, name, text):
    path = context.work / "notes" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def works(context, text="all is well"):
    note(context, "works", text)
    say(text)
    return DONE


def fails(context):
    raise ValueError("no good")


def hangs(context):
    """Hang, together with a child process that ignores SIGTERM."""
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    child.stdout.readline()
    note(context, "child", str(child.pid))
    time.sleep(600)


def is_killed(context):
    note(context, "before", "this was measured")
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_once(context):
    """Crash in the first process and succeed in the second."""
    if not (context.work / "notes" / "crashed").exists():
        note(context, "crashed", "")
        os.kill(os.getpid(), signal.SIGKILL)
    say("through")
    return DONE


def loses_its_device_once(context):
    if not (context.work / "notes" / "lost").exists():
        note(context, "lost", "")
        sys.exit("the device is lost to this process")
    say("through")
    return DONE


def takes_two(context):
    first = not (context.work / "notes" / "first").exists()
    note(context, "first", "")
    say("half of it" if first else "the rest")
    return PARTIAL if first else DONE


def wrong(context):
    case = smoke.SmokeCase("blocked", "float32", (300, 128), 0)
    line = {"case": case._asdict(), "passed": False, "shares": {"h": 7.0}}
    note(context, "smoke.jsonl", json.dumps(line) + "\n")
    raise RuntimeError("1 of 2 cases failed")


def has_not_ended(context):
    say("12 of 13 cases")
    return PARTIAL


def tells_its_seconds(context):
    note(context, "seconds", str(context.until - time.monotonic()))
    return DONE
