"""Sizes by name: the compressed students of Rusu et al. 2016."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from polydistill.errors import UserError
from polydistill.nets.mimic import Mimic
from polydistill.nets.sizes import SIZES, make_named, resolve_student
from polydistill.nets.student import Student, count
from polydistill.plugins import factory
from polydistill.recipe import StudentSettings
from polydistill.tasks import ATARI_AXIS, Suite, Task

PONG = Suite((Task("pong", "atari", ATARI_AXIS[:6], (4, 84, 84), stack=4),))


@pytest.mark.parametrize(("name", "parameters"), [("net1", 427_874), ("net2", 113_346), ("net3", 61_954)])
def test_parameter_counts(name: str, parameters: int) -> None:
    kind, student = make_named(name, PONG)
    assert kind == "mimic"
    assert isinstance(student, Mimic)
    assert count(student) == parameters


def test_options_go_on_top_of_a_size() -> None:
    assert resolve_student("net3", {"hidden": 8}) == ("mimic", {"channels": [16, 16, 16], "hidden": 8})
    assert SIZES["net3"]["hidden"] == 64
    assert resolve_student("controllers") == ("controllers", {})


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UserError, match="unknown student 'nett1': did you mean 'net1'"):
        resolve_student("nett1")
    with pytest.raises(UserError, match="unknown student 'sizes': known: net1, net2, net3, "):
        resolve_student("sizes")
    with pytest.raises(UserError, match=r"options .* do not make a mimic"):
        make_named("net1", PONG, {"channels": [1, 2]})


def test_a_recipe_may_name_a_size() -> None:
    """It is resolved as it is read, so that everything after it, the run's own recipe too, knows networks alone."""
    read = StudentSettings.parse({"kind": "net2", "options": {"hidden": 100}, "bf16": False}, "x")
    assert read == StudentSettings(kind="mimic", options={"channels": [16, 16, 16], "hidden": 100}, bf16=False)
    assert StudentSettings(kind="net2").options == {"channels": [16, 16, 16], "hidden": 128}
    assert StudentSettings.parse(read.model_dump(), "again") == read
    assert StudentSettings(kind="controllers", options={"head": 3}).options == {"head": 3}
    for wrong in ({"kind": "net2", "options": 5}, {"kind": "net2", "options": None}, {"kind": ["net2"]}):
        with pytest.raises(UserError, match=r"^x: (options|kind): Input should be"):
            StudentSettings.parse(wrong, "x")


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("mimic", {"hidden": -3}, "hidden is -3, and sizes are whole numbers above 0"),
        ("mimic", {"hidden": 0}, "hidden is 0, and sizes are whole numbers above 0"),
        ("mimic", {"hidden": [64, 0]}, "hidden is [64, 0], and sizes are whole numbers above 0"),
        ("mimic", {"hidden": []}, "hidden is [], and sizes are whole numbers above 0"),
        ("mimic", {"hidden": 1.5}, "hidden is 1.5, and sizes are whole numbers above 0"),
        ("mimic", {"hidden": True}, "hidden is True, and sizes are whole numbers above 0"),
        ("mimic", {"hidden": "abc"}, "hidden is 'abc', and sizes are whole numbers above 0"),
        ("net1", {"channels": [32, 0, 64]}, "channels is [32, 0, 64], and sizes are whole numbers above 0"),
        ("task_torsos", {"widths": [-1]}, "widths is [-1], and sizes are whole numbers above 0"),
        ("task_torsos", {"widths": 7}, "its own settings are widths (1028, 512), train_convs False, torso_bf16 None"),
        ("controllers", {"hidden": [4, 4]}, "its own settings are channels (32, 64, 64), hidden 512, head 128, norm F"),
        ("mimic", {"channels": [1, 2]}, "channels [1, 2]: three to six layers read a screen of 84x84"),
        ("mimic", {"bf16": True}, "its own settings are channels (32, 64, 64), hidden 512, norm False"),
        ("mimic", {"hidden": 10**14}, "this machine has not the memory for them"),
        ("task_heads", {"outputs": "all"}, "outputs are 'axis' or 'own', not 'all'"),
    ],
)
def test_options_that_make_no_network_are_told_in_our_words(kind: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as error:
        make_named(kind, PONG, options, where="student.options")
    said = str(error.value)
    assert said.startswith("student.options {")
    assert f"do not make a {resolve_student(kind)[0]}: {reason}" in said
    assert "\n" not in said
    assert "tensor" not in said


def test_the_sizes_of_somebody_else_s_network_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero may mean something there."""

    class Theirs(Student):
        def __init__(self, suite: Suite, depth: int = 2, bf16: bool = False):
            super().__init__(suite, bf16)
            self.body = torch.nn.Linear(1, 2 + depth)

    monkeypatch.setattr("polydistill.plugins.factory", lambda *a: Theirs if "theirs" in a else factory(*a))
    monkeypatch.setattr("polydistill.nets.names", lambda: ["theirs"])
    assert isinstance(make_named("theirs", PONG, {"depth": 0})[1], Theirs)
    with pytest.raises(UserError, match="do not make a theirs: its own settings are depth 2"):
        make_named("theirs", PONG, {"depth": "x"})
