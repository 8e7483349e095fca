"""Figures on disk: SVG and PNG that carry the provenance of their records.

The same records give the same bytes: nothing of today (date, commit, machine) is in a
figure. When and at which commit it was drawn stands in `manifest.json`.
"""

import hashlib
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan.core.files import write_files
from lrscan.core.versions import package_version
from lrscan.evidence import context, workspace
from lrscan.evidence.provenance import git_state, utc_now
from lrscan.evidence.records import Records, json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150
# The packages that decide a figure's bytes.
DRAWN_BY = ("matplotlib", "seaborn", "pandas", "numpy", "pillow")
# Ids in the SVG are hashes of what they name; without a salt they are drawn at random.
SAVING: dict[Any, str] = {"svg.hashsalt": "lrscan", "svg.fonttype": "path"}


@contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib's own settings for a while, whatever the user's files and pyplot have set.

    They are read when something is added to a figure and again when it is drawn, so whoever makes
    a figure wraps all of it; as a decorator, a function.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
        interactive = matplotlib.is_interactive()  # set where the first figure is made
    matplotlib.interactive(interactive)


def save(figure: "Figure", name: str, records: Records | None, *, alt: str) -> dict[str, Path]:
    """Save a figure as `<device>/NAME.svg` and `.png`, and enter both into the manifest.

    Arguments
    ---------
    figure    the matplotlib figure
    name      the files' name
    records   what it was drawn from; None for a drawing, which goes to `drawings/`
    alt       a sentence that says what the figure shows, for those who do not see it

    Returns
    -------
    dict
        {"svg": path, "png": path}; empty outside a checkout, where nothing is saved

    Raises
    ------
    ValueError
        `name` cannot be a file's name, or `alt` is empty.
    """
    workspace.check_name(name)
    if not alt.strip():
        raise ValueError(f"figure {name!r}: alt is empty; say in a sentence what it shows")
    try:
        folder = workspace.figures_folder()
    except workspace.WorkspaceError:
        _say_once("Outside a checkout of lrscan figures are shown, and not saved.")
        _describe(figure, alt)
        return {}
    device = records.device if records else "drawings"
    paths = {kind: folder / device / f"{name}.{kind}" for kind in ("svg", "png")}
    provenance = json.dumps(records.provenance, sort_keys=True) if records else ""
    images = {
        paths["svg"]: _svg(figure, name, alt, provenance),
        paths["png"]: _png(figure, name, alt, provenance),
    }
    drawn = _drawn(records) | {"alt": alt}
    entries = {
        path.relative_to(folder).as_posix(): drawn | {"sha256": _sha256(data)}
        for path, data in images.items()
    }
    manifest = folder / "manifest.json"
    with workspace.locked(manifest):
        write_files({**images, manifest: json_text(read_manifest(manifest) | entries)})
    _describe(figure, alt)
    return paths


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The manifest's entries by figure file, relative to its folder; none if it is absent."""
    return json.loads(path.read_bytes()) if path.is_file() else {}


@cache
def _say_once(text: str) -> None:
    print(text)


def _describe(figure: "Figure", alt: str) -> None:
    """Let a notebook that shows the figure keep the text, as the metadata of its output."""
    metadata = {kind: {"alt": alt} for kind in ("image/png", "image/svg+xml")}
    vars(figure)["_repr_mimebundle_"] = lambda **_: ({}, metadata)


def _render(figure: "Figure", kind: str, backend: str, metadata: dict[str, Any]) -> bytes:
    """The figure's bytes under matplotlib's own settings, whatever pyplot is set to."""
    import matplotlib

    buffer = io.BytesIO()
    with own_settings():
        for name, value in SAVING.items():
            matplotlib.rcParams[name] = value
        figure.savefig(buffer, format=kind, backend=backend, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def _svg(figure: "Figure", name: str, alt: str, provenance: str) -> bytes:
    # Creator and Date are matplotlib's version and today.
    metadata = {"Creator": None, "Date": None, "Description": provenance or None}
    image = _render(figure, "svg", "svg", metadata).decode()
    before, opening, after = image.partition("<svg ")
    attributes, end, body = after.partition(">")
    return (
        f'{before}{opening}role="img" aria-labelledby="{name}-title {name}-desc" '
        f'{attributes}{end}\n <title id="{name}-title">{escape(name.replace("_", " "))}</title>'
        f'\n <desc id="{name}-desc">{escape(alt)}</desc>{body}'
    ).encode()


def _png(figure: "Figure", name: str, alt: str, provenance: str) -> bytes:
    metadata = {"Software": None, "Title": name, "Description": alt, "Provenance": provenance}
    return _render(figure, "png", "agg", {k: v for k, v in metadata.items() if v or v is None})


def _drawn(records: Records | None) -> dict[str, Any]:
    """What the manifest says of a figure drawn here and now."""
    commit, dirty = git_state()
    run = context.current()
    entry: dict[str, Any] = {
        "records": None,
        "provenance": None,
        "notebook": run.notebook,
        "parameters": run.parameters,
        "seed": (run.parameters or {}).get("seed"),
        "drawn_at": utc_now(),
        "commit": commit,
        "dirty": dirty,
        # How long the notebook had run by then; None by hand.
        "duration_s": run.started and round(time.time() - run.started, 1),
        "versions": {name: package_version(name) for name in DRAWN_BY},
    }
    if records:
        latest = records.provenance["measurements"][-1]
        entry["records"] = {
            "path": workspace.relative(records.path),
            "sha256": _sha256(records.path.read_bytes()),
            "provenance_sha256": _sha256(records.path.with_suffix(".json").read_bytes()),
        }
        entry["provenance"] = {
            key: latest[key]
            for key in (
                "device",
                "device_label",
                "driver",
                "commit",
                "dirty",
                "measured_at",
                "parameters",
                "profile",
                "seed",
                "versions",
            )
        }
    return entry


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
