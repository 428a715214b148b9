"""What `polydistill distill --help` calls by name is what there is."""

from __future__ import annotations

import re

import pytest

from polydistill import nets
from polydistill.replay import samplers
from tests.command_line import typed


def test_networks_and_samplers_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(monkeypatch, "distill", "--help") == 0
    said = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for before, names, after in (("--student", nets.names(), "--out"), ("--sampler", samplers.names(), "--updates")):
        told = re.findall(r"\w+", said.split(f" {before} ")[1].split(f" {after} ")[0])
        assert set(names) <= set(told), before
