"""JUnit XML for CI servers: one test suite per notebook, one test case per code cell."""

import re
from xml.etree import ElementTree

from lrscan.runner.outcome import FAILED, INTERRUPTED, NOT_RUN, UNCHANGED, Outcome, where

# Characters that XML 1.0 cannot represent, even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(outcomes: list[Outcome], started_at: str) -> str:
    """Return the report of a run; a cell that was not run counts as skipped, never as passed."""
    root = ElementTree.Element("testsuites", name="lrscan")
    for outcome in outcomes:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=outcome.notebook,
            time=f"{outcome.seconds:.3f}",
            timestamp=started_at.removesuffix("Z"),
        )
        cells = [(f"cell {cell.number}", cell.status, cell.seconds or 0) for cell in outcome.cells]
        if outcome.failure and outcome.failure.cell is None:
            # The failure belongs to no cell.
            cells.insert(0, ("kernel" if cells else "notebook", outcome.verdict, 0))
        for name, status, seconds in cells:
            case = ElementTree.SubElement(
                suite, "testcase", classname=outcome.notebook, name=name, time=f"{seconds:.3f}"
            )
            if outcome.verdict == UNCHANGED:
                ElementTree.SubElement(case, "skipped", message=f"unchanged, {outcome.reason}")
            elif status == NOT_RUN:
                ElementTree.SubElement(case, "skipped", message=NOT_RUN)
            elif status in (FAILED, INTERRUPTED) and (failure := outcome.failure):
                element = ElementTree.SubElement(
                    case, "failure", type=status, message=failure.error
                )
                element.text = "\n".join([where(failure), *failure.traceback])
        count = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "skipped")}
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(count["failure"]))
        suite.set("errors", "0")
        suite.set("skipped", str(count["skipped"]))
    ElementTree.indent(root)
    text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", ElementTree.tostring(root, "unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
