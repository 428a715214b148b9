"""Commands, typed as a user types them, in this process: importing torch anew for each would take seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polydistill import cli
from polydistill.processes import Children


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """``polydistill ARGUMENTS``; the exit code."""
    monkeypatch.setattr(sys, "argv", ["polydistill", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def children_here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """From now on what would be started as another process runs here; the arguments of each, as they come."""
    started: list[list[str]] = []

    def start(self: object, arguments: list[str]) -> Any:
        started.append(list(arguments))
        with monkeypatch.context() as patch:
            code = typed(patch, *arguments)
        return SimpleNamespace(wait=lambda: code)

    monkeypatch.setattr(Children, "start", start)
    return started


def refused(place: Path, calls: list[list[str]], said: str, match: str) -> None:
    """An experiment's mistake was told in one line, and nothing was started or left in ``place``."""
    assert match in said
    assert said.count("\n") == 1
    assert calls == []
    assert not (place / "runs").exists()
    assert not (place / "results").exists()
