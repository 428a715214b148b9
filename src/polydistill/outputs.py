"""Files that a user names for output: what may be replaced, and how."""

from __future__ import annotations

import os
from pathlib import Path

from polydistill.errors import UserError

PAGES = (b"<!doctype html", b"<svg")  # how a report or a picture of ours begins


def require_file(path: Path) -> None:
    """Refuse an output that would take the place of something that is no regular file: a folder, a device.

    Raises:
        UserError: naming it.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"--out {path} is {kind}: name a file")


def replace_page(path: Path, text: str, what: str) -> Path:
    """Write an HTML page or an SVG picture in one rename, in place of an earlier one or of nothing; returns ``path``.

    Args:
        what: For the message, for example ``"the report"``.

    Raises:
        UserError: another file is there, or it cannot be written; then that is as it was.
    """
    tmp = path.with_name(f".{path.name}.tmp")
    try:
        require_file(path)
        if path.exists():
            with path.open("rb") as file:
                begins = file.read(64).lstrip().lower()
            if begins and not begins.startswith(PAGES):
                raise UserError(f"cannot write {what} to {path}: another kind of file is there; choose another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            tmp.write_text(text, encoding="utf-8")
            os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {what} to {path}: {error.strerror}; choose another place") from None
    return path
