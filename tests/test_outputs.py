"""What a user names for output takes the place of nothing but an earlier page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.outputs import replace_page
from polydistill.reporting.page import write_report
from polydistill.verbs.starts import Starts

PAGE = "<!doctype html>\n<p>second"


@pytest.mark.parametrize("before", [None, "", "<!DOCTYPE html>first", '<svg class="plot">'])
def test_a_page_replaces_a_page(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "new" / "report.html"
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
    assert replace_page(path, PAGE, "the report") == path
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.read_text() == PAGE


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "student.safetensors").write_bytes(bytes(100))
    for name, match in (
        ("student.safetensors", "another kind of file is there; choose another place"),
        ("run.json", "another kind of file"),
        ("folder", "folder is a folder: name a file"),
        ("pipe", "pipe is not a regular file"),
        ("run.json/report.html", "(File exists|Not a directory); choose another place"),
    ):
        with pytest.raises(UserError, match=match):
            write_report(tmp_path, tmp_path / name)
    with pytest.raises(UserError, match=r"--out .*pipe is not a regular file"):
        Starts("catch", "random", out=tmp_path / "pipe", overwrite=True)._target("catch")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe", "run.json", "student.safetensors"]
    assert (tmp_path / "run.json").read_text() == "{}"
