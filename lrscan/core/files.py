"""Atomic writes: files are written completely or not at all."""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_files(files: Mapping[Path, bytes | str]) -> None:
    """Write files under temporary names, then rename them, so that no partial file is ever seen.

    All are written before the first is renamed. A full disk or an interruption during the writes
    leaves the old files as they were.
    """
    aside = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside[path].write_bytes(data.encode() if isinstance(data, str) else data)
        for path, temporary in aside.items():
            os.replace(temporary, path)
    except OSError as error:  # else it names no file, or the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        for temporary in aside.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
