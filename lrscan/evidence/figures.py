"""Figures on disk: SVG and PNG files that carry the provenance of their records.

The same records give the same bytes, because a figure does not say when, at which commit or on
which machine it was drawn. The date and the commit are in ``manifest.json``.
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
# The packages on which a figure's bytes depend.
DRAWN_BY = ("matplotlib", "seaborn", "pandas", "numpy", "pillow")
# Ids in an SVG are salted hashes of their content. matplotlib's default salt is random.
SAVING: dict[Any, str] = {"svg.hashsalt": "lrscan", "svg.fonttype": "path"}


@contextmanager
def own_settings() -> Iterator[None]:
    """Use matplotlib's default settings for a while, instead of the user's own and pyplot's.

    matplotlib reads its settings when something is added to a figure, and again when the figure is
    drawn. Wrap all code that makes a figure, or decorate the function that does.

    Example:
        >>> import matplotlib
        >>> from lrscan.evidence.figures import own_settings
        >>> with matplotlib.rc_context({"font.size": 30}), own_settings():
        ...     matplotlib.rcParams["font.size"]
        10.0
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
        interactive = matplotlib.is_interactive()  # pyplot sets it with its first figure
    matplotlib.interactive(interactive)


def save(figure: "Figure", name: str, records: Records | None, *, alt: str) -> dict[str, Path]:
    """Save a figure as ``<device>/NAME.svg`` and ``.png``, and enter both into the manifest.

    Args:
        figure: the matplotlib figure
        name: the name of the files
        records: the records that the figure shows; None for a drawing, which goes to ``drawings/``
        alt: a sentence that says what the figure shows, for readers who cannot see it

    Returns:
        {"svg": path, "png": path}. Outside a checkout nothing is saved, and the result is empty.

    Raises:
        ValueError: ``name`` is not a valid file name, or ``alt`` is empty

    Example:
        >>> import os
        >>> from unittest import mock
        >>> from matplotlib.figure import Figure
        >>> from lrscan.evidence import figures
        >>> with mock.patch.dict(os.environ, LRSCAN_BUILD="made"):  # instead of build/
        ...     paths = figures.save(Figure(), "blank", None, alt="An empty page.")
        >>> print(*sorted(path.name for path in paths.values()))
        blank.png blank.svg
    """
    workspace.check_name(name)
    if not alt.strip():
        raise ValueError(f"figure {name!r}: alt is empty; say in one sentence what it shows")
    try:
        folder = workspace.figures_folder()
    except workspace.WorkspaceError:
        _print_once("Outside a checkout of lrscan, figures are shown, and not saved.")
        _describe(figure, alt)
        return {}
    device = records.device if records else "drawings"
    paths = {kind: folder / device / f"{name}.{kind}" for kind in ("svg", "png")}
    provenance = json.dumps(records.provenance, sort_keys=True) if records else ""
    images = {
        paths["svg"]: _svg(figure, name, alt, provenance),
        paths["png"]: _png(figure, name, alt, provenance),
    }
    origin = _origin(records) | {"alt": alt}
    entries = {
        path.relative_to(folder).as_posix(): origin | {"sha256": _sha256(data)}
        for path, data in images.items()
    }
    manifest = folder / "manifest.json"
    with workspace.locked(manifest):
        write_files({**images, manifest: json_text(read_manifest(manifest) | entries)})
    _describe(figure, alt)
    return paths


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest's entries by figure file, named relative to the manifest's folder.

    Without a manifest there are no entries.

    Example:
        >>> from pathlib import Path
        >>> from lrscan.evidence.figures import read_manifest
        >>> text = '{"h200/speed.svg": {"alt": "Speed against T."}}'
        >>> _ = Path("manifest.json").write_text(text)
        >>> read_manifest(Path("manifest.json"))
        {'h200/speed.svg': {'alt': 'Speed against T.'}}
    """
    return json.loads(path.read_bytes()) if path.is_file() else {}


@cache
def _print_once(text: str) -> None:
    print(text)


def _describe(figure: "Figure", alt: str) -> None:
    """Make a notebook that shows the figure keep its alt text, as metadata of the output."""
    metadata = {kind: {"alt": alt} for kind in ("image/png", "image/svg+xml")}
    vars(figure)["_repr_mimebundle_"] = lambda **_: ({}, metadata)


def _render(figure: "Figure", kind: str, backend: str, metadata: dict[str, Any]) -> bytes:
    """Render a figure under matplotlib's default settings."""
    import matplotlib

    buffer = io.BytesIO()
    with own_settings():
        for name, value in SAVING.items():
            matplotlib.rcParams[name] = value
        figure.savefig(buffer, format=kind, backend=backend, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def _svg(figure: "Figure", name: str, alt: str, provenance: str) -> bytes:
    # Creator and Date would be matplotlib's version and today's date.
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


def _origin(records: Records | None) -> dict[str, Any]:
    """Describe where, when and from which records a figure is drawn, for the manifest."""
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
        # How long the notebook had been running; None outside a run.
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
