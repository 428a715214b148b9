"""Sizes by name: the compressed students of Rusu et al. 2016 (SPEC 2.2)."""

from __future__ import annotations

import pytest

from polydistill.errors import UserError
from polydistill.nets.mimic import Mimic
from polydistill.nets.sizes import SIZES, make_named, resolve_student
from polydistill.nets.student import count
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
